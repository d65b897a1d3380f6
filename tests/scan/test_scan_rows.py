import sys

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from lenspipe.scan.rows import one_row, pack_cutouts, set_scores, unpack_cutouts, wire_schema

SCHEMA = wire_schema(("g", "r", "i"))


def row_with(n):
    from lenspipe.scan.rows import nested
    from lenspipe.schema import measured_fields

    fields = pa.schema(measured_fields(("g", "r", "i")))
    arrays = [
        pa.array([f"s_n{i}" for i in range(n)]) if f.name == "candidate_id" else pa.nulls(n, f.type) for f in fields
    ]
    return one_row({"shard_id": f"s{n}", "candidates": nested(pa.table(arrays, schema=fields))}, SCHEMA)


def test_cutouts_come_back_bit_for_bit(rng):
    cutouts = rng.normal(size=(5, 3, 7, 7)).astype("f4")
    table = pa.concat_tables([one_row(pack_cutouts(c), SCHEMA) for c in (cutouts, cutouts[:0], cutouts[1:3])])
    assert_array_equal(unpack_cutouts(table, 0), cutouts)
    assert unpack_cutouts(table, 1).shape == (0, 3, 7, 7)
    assert_array_equal(unpack_cutouts(table, 2), cutouts[1:3])
    assert unpack_cutouts(one_row({}, SCHEMA), 0) is None


def test_a_row_lets_go_of_its_cutouts(rng):
    cutouts = rng.normal(size=(5, 3, 7, 7)).astype("f4")
    before = sys.getrefcount(cutouts)
    table = one_row(pack_cutouts(cutouts), SCHEMA)
    del table
    assert sys.getrefcount(cutouts) == before


def test_scores_go_to_the_candidates_of_their_shard():
    table = pa.concat_tables([row_with(2), row_with(0), row_with(3)])
    scored = set_scores(table, [np.array([0.1, 0.2]), None, np.array([0.3, 0.4, 0.5])])
    got = [[c["score"] for c in row] for row in scored["candidates"].to_pylist()]
    assert got == [[0.1, 0.2], [], [0.3, 0.4, 0.5]]
    assert scored.schema == table.schema
    unscored = set_scores(table, [None, None, np.array([0.3, 0.4, 0.5])])
    assert [c["score"] for c in unscored["candidates"].to_pylist()[0]] == [None, None]


def test_a_column_that_is_not_in_the_schema_is_refused():
    with pytest.raises(KeyError, match="no such columns: \\['shard'\\]"):
        one_row({"shard": "x"}, SCHEMA)
