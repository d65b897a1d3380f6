"""Errors of values and groups of sources against plain numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import DataError
from lenspipe.stats.groups import EDGES, Groups
from lenspipe.stats.regression import ErrorSums


def _drawn(seed: int, n: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = 1e6 + rng.normal(0, 2, n)
    sigma = rng.uniform(0.3, 1.0, n)
    return truth + rng.normal(0, sigma), truth, sigma


def test_errors_are_numpys_and_intervals_of_honest_sigmas_hold() -> None:
    value, truth, sigma = _drawn(0, 4000)
    found = ErrorSums.of(value, truth, sigma).metrics()
    assert found["mae"] == pytest.approx(np.abs(value - truth).mean())
    assert found["mse"] == pytest.approx(((value - truth) ** 2).mean())
    assert found["rmse_of_mean_predictor"] == pytest.approx(truth.std())
    assert found["mean_rmse_over_rmse"] == pytest.approx(truth.std() / found["rmse"])
    low, high = found["coverage"]["1sigma"]["interval95"]
    assert low < 0.6827 < high
    assert found["coverage"]["2sigma"]["value"] == pytest.approx(0.9545, abs=0.012)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 500), max_size=4), st.booleans())
def test_errors_of_any_split_add_up(cuts: list[int], stated: bool) -> None:
    value, truth, sigma = _drawn(1)
    edges = [0, *sorted(cuts), 500]
    total = ErrorSums()
    for a, b in itertools.pairwise(edges):
        total = total + ErrorSums.of(value[a:b], truth[a:b], sigma[a:b] if stated else None)
    got, want = total.metrics(), ErrorSums.of(value, truth, sigma if stated else None).metrics()
    assert got.pop("coverage") == want.pop("coverage")
    assert got == pytest.approx(want, rel=1e-9)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        ErrorSums.of([1.0, np.nan], [1.0, 1.0])
    with pytest.raises(DataError, match="no values"):
        ErrorSums().metrics()


def test_recall_by_bins_and_by_kind_is_counted_over_batches() -> None:
    rng = np.random.default_rng(2)
    n = 600
    theta, score, is_lens = rng.uniform(0, 5, n), rng.uniform(size=n), rng.uniform(size=n) < 0.5
    theta[~is_lens] = np.nan
    kind = np.where(is_lens, "lens", np.where(rng.uniform(size=n) < 0.5, "ring", "spiral"))
    groups = Groups({"theta_e_arcsec": "theta_e_arcsec"})
    for rows in np.array_split(np.arange(n), 5):
        groups.add(score[rows], is_lens[rows], kind[rows], {"theta_e_arcsec": theta[rows]})
    rows = groups.recall_by({"at": 0.7, "never": None})["theta_e_arcsec"]
    assert sum(row["n"] for row in rows) == is_lens.sum()
    for row in rows:
        inside = is_lens & (theta >= row["low"]) & (theta < row["high"])
        assert row["at"]["value"] == pytest.approx((score[inside] >= 0.7).mean())
        assert row["never"]["k"] == 0
    kinds = groups.by_kind({"at": 0.7})
    assert kinds["ring"]["class"] == "other" and kinds["lens"]["class"] == "lens"
    assert kinds["ring"]["at"]["k"] == ((kind == "ring") & (score >= 0.7)).sum()
    assert all(list(edges) == sorted(edges) for edges in EDGES.values())
