"""Calibration against scikit-learn and against populations whose probability is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from lenspipe.errors import ConfigError, DataError
from lenspipe.nn.outputs import Calibration
from lenspipe.stats.calibrate import fit_calibration, log_odds, probability
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.reliability import reliability

METHODS = ("platt", "temperature", "isotonic")


def overconfident(seed: int, n: int, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose log odds are three times too far out: true log odds are a third of them, plus the prior's."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=n) < prior
    likelihood = rng.normal(np.where(truth, 1.0, -1.0), 2**0.5)  # its log likelihood ratio is itself
    return 1 / (1 + np.exp(-3 * likelihood)), truth


def test_platt_is_the_logistic_regression_of_scikit_learn_on_smoothed_targets() -> None:
    score, truth = overconfident(0, 3000, 0.3)
    counts = ScoreCounts.of(score, truth)
    fitted = fit_calibration(counts, "platt", data="made")
    n_lens, n_other = counts.n_lens, counts.n_other
    high, low = (n_lens + 1) / (n_lens + 2), 1 / (n_other + 2)
    target = np.where(truth, high, low)
    x = np.tile(log_odds(score)[:, None], (2, 1))
    both = LogisticRegression(C=np.inf, tol=1e-10, max_iter=500).fit(
        x, np.repeat([1, 0], len(score)), sample_weight=np.r_[target, 1 - target]
    )
    assert fitted.slope == pytest.approx(both.coef_[0, 0], rel=1e-4)
    assert fitted.intercept == pytest.approx(both.intercept_[0], abs=1e-4)


def test_isotonic_is_scikit_learns_within_the_bounds_of_a_finite_sample() -> None:
    score, truth = overconfident(1, 800, 0.4)
    score = np.round(score, 2)
    counts = ScoreCounts.of(score, truth)
    fitted = fit_calibration(counts, "isotonic", data="made")
    want = IsotonicRegression(out_of_bounds="clip").fit(score, truth).predict(score)
    got = np.interp(score, fitted.scores, fitted.probabilities)
    np.testing.assert_allclose(got, want.clip(1 / (counts.n_other + 2), (counts.n_lens + 1) / (counts.n_lens + 2)))
    assert (np.diff(fitted.scores) > 0).all() and (np.diff(fitted.probabilities) >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_probabilities_of_new_stamps_hold(method: str) -> None:
    prior = 0.5 if method == "temperature" else 0.2
    fitted = fit_calibration(ScoreCounts.of(*overconfident(2, 20_000, prior)), method, data="made")
    counts = ScoreCounts.of(*overconfident(3, 20_000, prior))
    before = reliability(counts)["ece"]
    after = reliability(counts, probability(counts.scores, fitted))["ece"]
    assert before > 0.05 and after < 0.02


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_another_prior_gives_the_probability_of_a_population_with_that_prior(method: str) -> None:
    fitted = fit_calibration(ScoreCounts.of(*overconfident(4, 40_000, 0.5)), method, data="made")
    rare = ScoreCounts.of(*overconfident(5, 400_000, 0.01))
    stated = probability(rare.scores, fitted, 0.01)
    assert reliability(rare, stated)["ece"] < 0.002
    assert reliability(rare, probability(rare.scores, fitted))["ece"] > 0.1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(1e-6, 0.999), st.sampled_from(METHODS))
def test_probabilities_rise_with_the_score_and_stay_fractions(scores: list[float], prior: float, method: str) -> None:
    knots = {"scores": (0.1, 0.5, 0.9), "probabilities": (0.01, 0.2, 0.95)} if method == "isotonic" else {}
    fitted = Calibration(
        method=method, slope=0.4, intercept=-1.0, prior=0.3, n_lens=9, n_other=21, data="made", **knots
    )
    p = probability(np.sort(scores), fitted, prior)
    assert (np.diff(p) >= 0).all() and ((p >= 0) & (p <= 1)).all()
    own = probability(scores, fitted)
    np.testing.assert_allclose(probability(scores, fitted, 0.3), own, rtol=1e-9)


def test_separated_scores_give_no_certainty() -> None:
    counts = ScoreCounts.of(np.r_[np.full(20, 0.1), np.full(20, 0.9)], np.arange(40) >= 20)
    for method in METHODS:
        p = probability([0.1, 0.9], fit_calibration(counts, method, data="made"))
        assert 0.01 < p[0] < 0.06 and 0.94 < p[1] < 0.99, method


def test_bad_requests_are_refused() -> None:
    with pytest.raises(DataError, match="lenses and others"):
        fit_calibration(ScoreCounts.of([0.1], [True]), "platt", data="made")
    with pytest.raises(ConfigError, match="does not rise"):
        fit_calibration(ScoreCounts.of([0.1, 0.2, 0.8, 0.9], [True, True, False, False]), "platt", data="made")
    fitted = Calibration(method="platt", prior=0.5, n_lens=1, n_other=1, data="made")
    for prior in (0.0, 1.0, -1.0, np.nan):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            probability([0.5], fitted, prior)


def test_reliability_counts_the_edges_once() -> None:
    found = reliability(ScoreCounts.of([0.0, 0.2, 1.0, 1.0], [False, True, True, False]), n_bin=5)
    assert [b["n"] for b in found["bins"]] == [1, 1, 2]
    assert found["ece"] == pytest.approx((0 + 0.8 + 1.0) / 4)
    assert found["brier"] == pytest.approx((0.8**2 + 1) / 4)


@pytest.mark.parametrize("prior", [1e-3, 1e-4])
def test_lenses_among_the_first_n_are_as_many_as_their_probabilities_say(prior: float) -> None:
    """Fitted with 10^5 others, moved to a survey's prior, and held against 20 skies of 10^5 sources."""
    fitted = fit_calibration(ScoreCounts.of(*overconfident(3, 102_000, 0.02)), "platt", data="made")
    said, found, at_its_own = 0.0, 0, 0.0
    for sky in range(20):
        score, truth = overconfident(100 + sky, 100_000, prior)
        first = np.argsort(-score, kind="stable")[:100]
        said += probability(score[first], fitted, prior).sum()
        at_its_own += probability(score[first], fitted).sum()
        found += truth[first].sum()
    assert abs(said - found) < 2 * found**0.5
    assert at_its_own > 5 * found
