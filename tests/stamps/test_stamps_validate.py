from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lenspipe.stamps.duplicates import canonical_digest, copied_bands, eight_views, fingerprints
from lenspipe.stamps.format import StampSet, image_array, write_part
from lenspipe.stamps.validate import validate


def check(folder):
    return {problem.check: problem for problem in validate(StampSet.open(folder), radius_arcsec=2.0)}


def test_a_sound_data_set_has_no_problems(tmp_path, make_table):
    write_part(make_table(40), tmp_path, "a")
    write_part(make_table(40, first=40, host=[None] * 40), tmp_path, "b")
    assert check(tmp_path) == {}


@pytest.mark.parametrize("view", range(8))
def test_a_planted_duplicate_is_found_in_any_orientation(view, tmp_path, make_table):
    table = make_table(300)
    stamps = image_array(table, "image")
    stamps[290] = list(eight_views(stamps[3]))[view]
    write_part(make_table(300, stamps=stamps), tmp_path, "a")
    found = check(tmp_path)
    same = found.pop("image: same pixels as an earlier stamp (in any of 8 orientations)")
    assert (same.n, same.examples) == (1, ("stamp-3 = stamp-290",))
    assert found.pop("image: same pixels in two splits").n == 1  # 3 is train, 290 is test
    assert found == {}


def test_a_duplicate_inside_one_split_is_no_leak(tmp_path, make_table):
    stamps = image_array(make_table(12), "image")
    stamps[9] = stamps[3]  # both train
    write_part(make_table(12, stamps=stamps), tmp_path, "a")
    assert list(check(tmp_path)) == ["image: same pixels as an earlier stamp (in any of 8 orientations)"]


def test_a_planted_nan_stamp_is_found(tmp_path, make_table):
    table = make_table(30)
    stamps = image_array(table, "image")
    stamps[17, 2, 5, 5] = np.nan
    flat = pa.FixedSizeListArray.from_arrays(pa.array(stamps.ravel()), stamps[0].size)
    broken = table.set_column(table.schema.get_field_index("image"), table.schema.field("image"), flat)
    pq.write_table(broken, tmp_path / "a.parquet")  # as a foreign tool would: write_part refuses it
    found = check(tmp_path)
    assert [(p.n, p.examples) for p in found.values()] == [(1, ("stamp-17",))]
    assert "image: not finite (NaN or infinite pixels)" in found


def test_a_planted_host_in_two_splits_is_found(tmp_path, make_table):
    hosts = [f"galaxy-{k}" for k in range(30)]
    hosts[4] = hosts[0]  # validation and train
    hosts[6] = hosts[3]  # train both: no leak
    write_part(make_table(30, host=hosts), tmp_path, "a")
    found = check(tmp_path)
    assert [(p.n, p.examples) for p in found.values()] == [(1, ("galaxy-0: train, validation",))]


def test_a_planted_position_in_two_splits_is_found_across_ra_zero_and_at_the_pole(tmp_path, make_table):
    ra_deg, dec_deg = np.linspace(10, 300, 30), np.linspace(-60, 60, 30)
    ra_deg[[0, 1]], dec_deg[[0, 1]] = [359.9999, 0.0001], 0.0  # 0.72 arcsec apart, train and validation
    ra_deg[[2, 3]], dec_deg[[2, 3]] = [0.0, 180.0], 90 - 0.5 / 3600  # 1 arcsec apart over the pole, test and train
    ra_deg[[4, 7]], dec_deg[[4, 7]] = 50.0, 10.0  # the same place, both validation: no leak
    ra_deg[[5, 6]], dec_deg[[5, 6]] = 70.0, [20.0, 20.0 + 3 / 3600]  # 3 arcsec apart: not within 2
    ra_deg[[8, 9]], dec_deg[[8, 9]] = [180.0, 180.0 + 3 / 3600], 60.0  # 1.5 arcsec apart, test and train
    write_part(make_table(30, ra_deg=ra_deg, dec_deg=dec_deg), tmp_path, "a")
    (problem,) = check(tmp_path).values()
    assert problem.n == 3
    assert set(problem.examples) == {
        "stamp-0 (train) and stamp-1 (validation)",
        "stamp-3 (train) and stamp-2 (test)",
        "stamp-9 (train) and stamp-8 (test)",
    }


def test_repeated_names_and_unknown_splits_are_found(tmp_path, make_table):
    table = make_table(
        6, stamp_id=["a", "b", "c", "a", "d", "e"], split=["train", "val", None, "train", "test", "test"]
    )
    write_part(table, tmp_path, "a")
    found = check(tmp_path)
    assert found["stamp_id occurs more than once"].examples == ("a",)
    assert found["split is none of train, validation, test"].examples == ("b: 'val'",)


def test_a_band_that_is_a_copy_of_another_is_found_but_two_masked_bands_are_not(rng):
    stamps = rng.normal(size=(5, 3, 8, 8)).astype(np.float32)
    stamps[1, 2] = stamps[1, 0]
    stamps[2, :2] = 0.0  # masked whole, twice
    stamps[3, 1, 0] = stamps[3, 0, 0]  # only the first row is the same
    assert copied_bands(stamps).tolist() == [False, True, False, False, False]


PIXELS = st.sampled_from([0.0, -0.0, 1.0, 2.0, -1.0])


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float32, (2, 3, 3), elements=PIXELS), arrays(np.float32, (2, 3, 3), elements=PIXELS), st.integers(0, 7)
)
def test_stamps_share_a_digest_exactly_when_one_is_a_view_of_the_other(one, other, view):
    turned = list(eight_views(one))[view]
    assert canonical_digest(turned) == canonical_digest(one)
    assert fingerprints(turned[None])[0] == fingerprints(one[None])[0]
    alike = any(np.array_equal(one, seen) for seen in eight_views(other))
    assert (canonical_digest(one) == canonical_digest(other)) == alike


def test_the_eight_views_are_those_of_the_square():
    square = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    views = {view.tobytes() for view in map(np.ascontiguousarray, eight_views(square))}
    want = set()
    for plane in (square[0], square[0].T):
        for flip in (plane, plane[::-1], plane[:, ::-1], plane[::-1, ::-1]):
            want.add(np.ascontiguousarray(flip).tobytes())
    assert views == want
    assert len(want) == 8
