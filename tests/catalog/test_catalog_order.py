import numpy as np
import pyarrow as pa
from catalog_rows import candidates, on_sphere

from lenspipe.catalog.order import best_first


def test_scores_come_first_then_the_brightest_and_what_an_edge_cuts_comes_last(rng):
    rows = candidates(*on_sphere(8, rng), rng=rng)
    score = [0.1, None, None, 0.9, float("nan"), None, None, 0.1]
    flags, mag = [2, 2, 0, 0, 1, 6, 0, 0], [30.0, 15, 21, 25, 19, 14, float("nan"), 18]
    for name, values in (("score", score), ("flags", flags), ("mag_i", mag)):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    want = [3, 0, 7, 4, 2, 6, 5, 1]
    assert best_first(rows).to_pylist() == want
    turned = rows.take(pa.array(np.arange(8)[::-1]))
    assert [7 - i for i in best_first(turned).to_pylist()] == want  # equal scores by identifier


def test_a_table_without_flags_and_magnitudes_has_an_order():
    rows = pa.table({"candidate_id": ["b", "a", "c"], "score": pa.array([None, None, 0.5], pa.float64())})
    assert best_first(rows).to_pylist() == [2, 1, 0]
