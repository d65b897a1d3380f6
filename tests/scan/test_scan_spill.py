import numpy as np
import pyarrow as pa
import pytest

from lenspipe.scan.spill import Spill

SCHEMA = pa.schema([("x", pa.int64()), ("v", pa.list_(pa.float32(), 3))])


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_items_come_in_the_order_asked_for_whatever_the_batches(tmp_path, seed):
    rng = np.random.default_rng(seed)
    rows, all_counts = [], []
    with Spill(tmp_path / "s.arrow", SCHEMA) as spill:
        for _ in range(12):
            counts = rng.integers(0, 3, rng.integers(0, 5))
            x = rng.integers(0, 1000, counts.sum())
            vectors = pa.array([[k, k, k] for k in x.tolist()], SCHEMA.field("v").type)
            spill.add(pa.table([pa.array(x), vectors], schema=SCHEMA), counts)
            rows += np.split(x, np.cumsum(counts)[:-1]) if len(counts) else []
            all_counts += counts.tolist()
        assert spill.num_rows == sum(all_counts)
        order = rng.permutation(len(rows))
        for some in (order, order[:3], order[:0]):
            found = spill.of_items(some)
            want = np.concatenate([np.zeros(0, int), *(rows[i] for i in some)])
            assert found["x"].to_pylist() == want.tolist()
            assert [v[0] for v in found["v"].to_pylist()] == want.tolist()
        assert pa.concat_tables([SCHEMA.empty_table(), *spill.tables()])["x"].to_pylist() == [
            k for one in rows for k in one.tolist()
        ]
