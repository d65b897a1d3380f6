"""Smooth fractions against sklearn, against the truth, and there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit

from lenspipe.stats.smooth import Axis, SmoothFit, design, fit_smooth, logistic

AXES = (Axis("t", 0.5, 3.0, log=True), Axis("m", 16.0, 21.0))


def planted(t: np.ndarray, m: np.ndarray) -> np.ndarray:
    return expit(2.5 * np.tanh(2 * np.log(t)) - 0.6 * (m - 18.5))


def draw(rng: np.random.Generator, n: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    group = rng.integers(0, n // 5, n)
    values = {"t": np.exp(rng.uniform(np.log(0.5), np.log(3), n)), "m": rng.uniform(16, 21, n // 5)[group]}
    return values, rng.uniform(size=n) < planted(values["t"], values["m"]), group


def test_coefficients_are_those_of_sklearn(rng: np.random.Generator) -> None:
    from sklearn.linear_model import LogisticRegression

    values, passed, _ = draw(rng, 300)
    x = design(AXES, [("t", "m")], values)
    ours = logistic(x, passed.astype(float), 0.5 * np.eye(x.shape[1]))
    theirs = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, passed)
    np.testing.assert_allclose(ours, theirs.coef_[0], atol=2e-4)


def test_intervals_hold_a_planted_function_as_often_as_they_say(rng: np.random.Generator) -> None:
    at = {"t": np.exp(rng.uniform(np.log(0.5), np.log(3), 40)), "m": rng.uniform(16, 21, 40)}
    truth, held = planted(at["t"], at["m"]), []
    for _ in range(15):
        values, passed, group = draw(rng, 600)
        fit = fit_smooth(passed, values, AXES, products=[("t", "m")], groups=group, n_bootstrap=30, rng=rng)
        _, low, high = fit.fraction(at)
        held.append(((low <= truth) & (truth <= high)).mean())
    assert 0.88 < np.mean(held) <= 1.0  # 95 % of 15 fits, whose 40 places are not independent: 3 sigma


def test_an_average_over_rows_is_the_mean_of_the_fractions(rng: np.random.Generator) -> None:
    values, passed, group = draw(rng, 300)
    fit = fit_smooth(passed, values, AXES, groups=group, n_bootstrap=20, rng=rng)
    mean, low, high = fit.mean_fraction({"t": np.array([1.0, 2.0])}, {"m": values["m"]})
    each = [fit.fraction({"t": np.full(300, t), "m": values["m"]})[0].mean() for t in (1.0, 2.0)]
    np.testing.assert_allclose(mean, each, rtol=1e-12)
    assert (low < mean).all() and (mean < high).all()


def test_a_fit_comes_back_from_json(rng: np.random.Generator) -> None:
    values, passed, group = draw(rng, 200)
    fit = fit_smooth(passed, values, AXES, products=[("t", "m")], groups=group, n_bootstrap=20, rng=rng)
    again = SmoothFit.from_json(json.loads(json.dumps(fit.to_json())))
    for one, other in zip(fit.fraction(values), again.fraction(values), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", ["low", "high"])
def test_a_basis_sums_to_one_with_its_last_function_left_out(name: str) -> None:
    basis = AXES[0].basis([getattr(AXES[0], name)])
    assert basis.shape == (1, 4)
    assert basis.sum() == pytest.approx(1.0 if name == "low" else 0.0)


def test_a_quantity_of_two_values_acts_as_a_step(rng: np.random.Generator) -> None:
    axis = Axis("kind", 0.0, 1.0, n_spline=2)
    np.testing.assert_array_equal(axis.basis([0.0, 1.0]), [[1.0], [0.0]])
    kind = rng.integers(0, 2, 4000).astype(float)
    passed = rng.uniform(size=4000) < np.where(kind, 0.2, 0.7)
    fit = fit_smooth(passed, {"kind": kind}, [axis], groups=np.arange(4000), n_bootstrap=20, rng=rng)
    np.testing.assert_allclose(fit.fraction({"kind": [0, 1]})[0], [passed[kind == k].mean() for k in (0, 1)], atol=1e-3)
