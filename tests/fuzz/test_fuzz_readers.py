"""A few damaged inputs of every format; `benchmarks/fuzz.py` makes thousands of the same kind."""

import pytest
import sky

from benchmarks.fuzz import KINDS, KINDS_OF_COMMANDS, faults
from benchmarks.fuzzed_commands import lenspipe
from lenspipe.errors import ConfigError, DataError
from lenspipe.scan.config import ScanConfig
from lenspipe.stamps.readers.npy import open_array
from lenspipe.toml import read_toml


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_damaged_file_is_read_right_or_is_one_deliberate_error(kind, tmp_path):
    counts, found = faults(kind, 30, seed=1, folder=tmp_path)
    assert not found, found[0]
    assert counts["error"] >= 10  # else the damage was none


IN_CI = (
    "scan/",
    "catalog/run.json",
    "catalog/candidates",
    "gallery/prov",
    "explain/run",
    "similar/vec",
    "calibrate/card",
)


@pytest.mark.parametrize("kind", [k for k in KINDS_OF_COMMANDS if k.name.startswith(IN_CI)], ids=lambda kind: kind.name)
def test_a_command_on_a_damaged_file_ends_as_on_the_whole_or_in_one_line(kind, tmp_path):
    counts, found = faults(kind, 2, seed=5, folder=tmp_path)
    assert not found, found[0]
    assert counts.total()


@pytest.mark.parametrize(("name", "file"), [("n" * 300, "a_r.fits"), ("a", "f" * 244 + "_r.fits")])
def test_a_long_name_of_a_tile_or_a_file_is_a_name(tmp_path, name, file):
    sky.write_tile(tmp_path, "a", bands="r", shape=(60, 60), n_source=2)
    (tmp_path / "a_r.fits").rename(tmp_path / file)
    (tmp_path / "m.csv").write_text(f"tile,band,image\n{name},r,{file}\n")
    asked = ["scan", str(tmp_path / "m.csv"), "--runner", "local", "--model", "none", "--no-catalog"]
    code, said = lenspipe([*asked, "--out", str(tmp_path / "run")])
    assert code == 0, said


def test_an_array_of_a_shape_that_cannot_be_and_a_thousand_brackets_are_errors(tmp_path):
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000000, 1000000000000, 4), }"
    (tmp_path / "s.npy").write_bytes(b"\x93NUMPY\x01\x00" + (len(head) + 1).to_bytes(2, "little") + head + b"\n")
    with pytest.raises(DataError, match="ends early"), open_array(tmp_path / "s.npy"):
        pass
    (tmp_path / "s.toml").write_text("a = " + "[" * 5000)
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(tmp_path / "s.toml", ScanConfig)
