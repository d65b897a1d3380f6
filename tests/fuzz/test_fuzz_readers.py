"""A few damaged inputs of every format; `benchmarks/fuzz.py` makes thousands of the same kind."""

import pytest

from benchmarks.fuzz import KINDS, faults
from lenspipe.errors import ConfigError, DataError
from lenspipe.scan.config import ScanConfig
from lenspipe.stamps.readers.npy import open_array
from lenspipe.toml import read_toml


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_damaged_file_is_read_right_or_is_one_deliberate_error(kind, tmp_path):
    counts, found = faults(kind, 30, seed=1, folder=tmp_path)
    assert not found, found[0]
    assert counts["error"] >= 10  # else the damage was none


def test_an_array_of_a_shape_that_cannot_be_and_a_thousand_brackets_are_errors(tmp_path):
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000000, 1000000000000, 4), }"
    (tmp_path / "s.npy").write_bytes(b"\x93NUMPY\x01\x00" + (len(head) + 1).to_bytes(2, "little") + head + b"\n")
    with pytest.raises(DataError, match="ends early"), open_array(tmp_path / "s.npy"):
        pass
    (tmp_path / "s.toml").write_text("a = " + "[" * 5000)
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(tmp_path / "s.toml", ScanConfig)
