import sys

import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from lenspipe.scan.readers.contract import CutoutKey
from lenspipe.scan.rows import nested, one_row, pack_cutouts, set_columns, unpack_cutouts, wire_fields
from lenspipe.schema import measured_fields, part_schema

BANDS = ("g", "r", "i")
SCHEMA = pa.schema([*part_schema(BANDS), *wire_fields(2)])
NARROW, WIDE = CutoutKey(BANDS, 7), CutoutKey(("i",), 11)


def row_with(n):
    fields = pa.schema(measured_fields(BANDS))
    arrays = [
        pa.array([f"s_n{i}" for i in range(n)]) if f.name == "candidate_id" else pa.nulls(n, f.type) for f in fields
    ]
    return one_row({"shard_id": f"s{n}", "candidates": nested(pa.table(arrays, schema=fields))}, SCHEMA)


def test_cutouts_come_back_bit_for_bit_under_their_bands_and_side(rng):
    narrow, wide = (
        rng.normal(size=(5, len(key.bands), key.side_px, key.side_px)).astype("f4") for key in (NARROW, WIDE)
    )
    sent = [{NARROW: narrow}, {WIDE: wide[:0], NARROW: narrow[:0]}, {NARROW: narrow[1:3], WIDE: wide[1:3]}, {}]
    table = pa.concat_tables([one_row(pack_cutouts(cutouts), SCHEMA) for cutouts in sent])
    for row, cutouts in enumerate(sent):
        got = unpack_cutouts(table, row)
        assert got.keys() == cutouts.keys()
        for key in got:
            assert got[key].shape == cutouts[key].shape
            assert_array_equal(got[key], cutouts[key])


def test_a_row_lets_go_of_its_cutouts(rng):
    cutouts = rng.normal(size=(5, 3, 7, 7)).astype("f4")
    before = sys.getrefcount(cutouts)
    table = one_row(pack_cutouts({NARROW: cutouts}), SCHEMA)
    del table
    assert sys.getrefcount(cutouts) == before


def test_columns_go_to_the_candidates_of_their_shard():
    table = pa.concat_tables([row_with(2), row_with(0), row_with(3)])
    scored = set_columns(table, {"score": pa.array([0.1, 0.2, 0.3, 0.4, 0.5])})
    got = [[c["score"] for c in row] for row in scored["candidates"].to_pylist()]
    assert got == [[0.1, 0.2], [], [0.3, 0.4, 0.5]]
    assert scored.schema == table.schema
    last = set_columns(table.slice(2, 1), {"score": pa.array([0.3, 0.4, 0.5])})
    assert [c["score"] for c in last["candidates"].to_pylist()[0]] == [0.3, 0.4, 0.5]
    untouched = set_columns(table, {})
    assert [c["score"] for c in untouched["candidates"].to_pylist()[0]] == [None, None]


def test_a_column_that_is_not_in_the_schema_is_refused():
    with pytest.raises(KeyError, match="no such columns: \\['shard'\\]"):
        one_row({"shard": "x"}, SCHEMA)
