"""Recall at a rate: no more others pass than it says, every row is in one bin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenspipe.stats.recall import recall_in_bins, threshold_passed_by


@pytest.mark.parametrize("part", [0.01, 0.05])
def test_a_threshold_lets_no_more_galaxies_pass_than_it_says(part: float) -> None:
    scores = np.random.default_rng(0).normal(size=220).round(1)
    at = threshold_passed_by(scores, part)
    assert (scores > at).mean() <= part
    assert (scores > at - 0.11).mean() > part


@given(st.lists(st.tuples(st.floats(0, 10, exclude_max=True), st.booleans()), min_size=1))
def test_every_row_is_counted_in_one_bin(rows: list[tuple[float, bool]]) -> None:
    values, passed = (np.array(column) for column in zip(*rows, strict=True))
    bins = recall_in_bins(passed, values, (0, 1, 5, np.inf))
    assert sum(b["n"] for b in bins) == len(rows)
    assert sum(b["k"] for b in bins) == passed.sum()
    assert [b["n"] for b in bins[:1]] == [(values < 1).sum()]
    assert bins[-1]["high"] is None
