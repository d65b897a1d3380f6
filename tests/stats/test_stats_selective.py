"""What silence buys: the curve of a brute count, and thresholds that keep their word."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.selective import LEAST_KEPT, accuracy_of_kept, confidence_for, hopeless_below

ROWS = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=25, max_size=120)


def arrays(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([k / 20 for k, _ in rows]), np.array([right for _, right in rows])


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_accuracies_are_those_of_all_stamps_from_the_stated_confidence_on(rows: list[tuple[int, bool]]) -> None:
    confidence, right = arrays(rows)
    for row in accuracy_of_kept(ScoreCounts.of(confidence, right)):
        kept = confidence >= row["confidence"] - 1e-12
        assert (row["accuracy"]["k"], row["accuracy"]["n"]) == (right[kept].sum(), kept.sum())
        assert row["kept"] >= row["asked"] - 1e-12
        fewer = confidence > row["confidence"] + 1e-12
        assert fewer.mean() < row["asked"]


@given(ROWS, st.sampled_from([0.5, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_the_threshold_is_the_lowest_that_gives_the_accuracy(rows: list[tuple[int, bool]], accuracy: float) -> None:
    confidence, right = arrays(rows)
    found = confidence_for(confidence, right, accuracy)
    good = [
        limit
        for limit in np.unique(confidence)
        if (confidence >= limit).sum() >= LEAST_KEPT and right[confidence >= limit].mean() >= accuracy
    ]
    assert found is None if not good else abs(found - min(good)) < 1e-8


def test_values_at_which_a_guess_is_as_good_are_given_up_and_others_kept() -> None:
    rng = np.random.default_rng(4)
    value = rng.uniform(0, 10, 4000)
    right = rng.uniform(size=4000) < np.where(value < 3, 1 / 3, 0.9)
    assert 2.5 < hopeless_below(value, right, 1 / 3) < 3.5
    assert hopeless_below(value, np.ones(4000, bool), 1 / 3) == value.min()
    half = hopeless_below(value, rng.uniform(size=4000) < 1 / 3, 1 / 3)  # never more than half of the stamps
    assert abs((value < half).mean() - 0.5) < 0.01
