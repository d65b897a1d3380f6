from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lenspipe.errors import DataError
from lenspipe.stamps.convert import convert
from lenspipe.stamps.format import ImageSpec, StampSet
from lenspipe.stamps.readers import stream as stream_module
from lenspipe.stamps.readers.stream import LabelledStamp, stream_stamps
from lenspipe.stamps.splits import splits_by_key, splits_by_position
from lenspipe.stamps.validate import validate

SPEC = ImageSpec(("r",), 8, 0.2)
HALF = {"train": 0.5, "test": 0.5}
SKY = [pa.field("ra_deg", pa.float64()), pa.field("dec_deg", pa.float64())]


def stamps(n, *, split=None, fail_at=None, **values):
    def read(k):
        if k == fail_at:
            raise ZeroDivisionError("a bug")
        pixels = np.random.default_rng(k).normal(size=SPEC.shape)
        return LabelledStamp(
            f"s{k}", {"image": pixels}, "lens", f"h{k // 2}", {c: v[k] for c, v in values.items()}, split
        )

    return stream_stamps("made", {"image": SPEC}, SKY if values else [], range(n), read, n=n)


def written(stream, out):
    convert(stream, out, seed=4, fractions=HALF, margin_arcsec=5.0)
    return StampSet.open(out)


def test_hosts_decide_the_split_where_there_is_no_position(tmp_path):
    found = written(stamps(60), tmp_path / "out")
    want = splits_by_key([f"h{k // 2}" for k in range(60)], seed=4, fractions=HALF)
    assert list(found.column("split")) == list(want)
    assert validate(found, radius_arcsec=2.0) == []


def test_the_sky_decides_where_there_is_a_position_and_the_host_elsewhere(tmp_path):
    ra_deg, dec_deg = np.linspace(0, 350, 60), np.linspace(-80, 80, 60)
    ra_deg[::3] = np.nan
    found = written(stamps(60, ra_deg=ra_deg, dec_deg=dec_deg), tmp_path / "out")
    by_host = splits_by_key([f"h{k // 2}" for k in range(60)], seed=4, fractions=HALF)
    known = np.isfinite(ra_deg)
    by_host[known] = splits_by_position(ra_deg[known], dec_deg[known], seed=4, margin_arcsec=5.0, fractions=HALF)
    assert list(found.column("split")) == list(by_host)


def test_splits_that_the_data_assign_are_kept(tmp_path):
    assert set(written(stamps(20, split="validation"), tmp_path / "out").column("split")) == {"validation"}


def test_parts_are_bounded_and_hold_every_stamp_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "TABLE_BYTES", 7 * 8 * 8 * 4)
    found = written(stamps(30), tmp_path / "out")
    assert len(found.parts) == 5
    assert list(found.column("stamp_id")) == [f"s{k}" for k in range(30)]


@pytest.mark.parametrize("fail_at", [0, 29])
def test_a_bug_while_reading_leaves_no_data_set_that_looks_complete(fail_at, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "TABLE_BYTES", 7 * 8 * 8 * 4)
    with pytest.raises(ZeroDivisionError):
        written(stamps(30, fail_at=fail_at), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_of_which_nothing_can_be_read_is_an_error(tmp_path):
    def read(k):
        raise DataError("it is torn", stamp=k)

    stream = stream_stamps("made", {"image": SPEC}, [], range(3), read, n=3)
    with pytest.raises(DataError, match=r"not one stamp could be read: it is torn.*dropped=3"):
        written(stream, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
