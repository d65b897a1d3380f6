"""The queue of looks: what is chosen, and what it finds against score alone and chance, with a grader who knows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lenspipe.stats.queue import TOP, UNCERTAIN, UNLIKE, learning_queue, parting


@settings(max_examples=25)
@given(st.integers(0, 40), st.integers(1, 50), st.integers(0, 9))
def test_nothing_graded_comes_again_and_nothing_twice(n_graded, n, seed):
    rng = np.random.default_rng(seed)
    label = np.full(40, np.nan)
    label[rng.permutation(40)[:n_graded]] = rng.choice([0, 0.5, 1], n_graded)
    odds = np.where(rng.uniform(size=40) < 0.2, np.nan, rng.normal(size=40))
    rows, why = learning_queue(odds, rng.normal(size=(40, 3)), label, n)
    assert len(rows) == len(why) == min(n, 40 - n_graded) == len(set(rows.tolist()))
    assert np.isnan(label[rows]).all()
    # what has no score is neither best nor uncertain
    assert all(kind == UNLIKE for row, kind in zip(rows, why, strict=True) if np.isnan(odds[row]))


def test_half_are_the_best_a_quarter_where_grades_part_and_a_quarter_unlike():
    rng = np.random.default_rng(1)
    odds, features = np.linspace(-5, 5, 401), rng.normal(size=(401, 2))
    features[7] = 30.0
    label = np.full(401, np.nan)
    label[[400, 380, 360, 340, 300]], label[[200, 220, 240, 260, 280]] = 1, 0
    rows, why = learning_queue(odds, features, label, 40)
    kinds = {kind: rows[np.array(why) == kind] for kind in (TOP, UNCERTAIN, UNLIKE)}
    assert [len(kinds[kind]) for kind in (TOP, UNCERTAIN, UNLIKE)] == [20, 10, 10]
    assert kinds[TOP].min() > 370
    assert np.abs(odds[kinds[UNCERTAIN]] - parting(odds, label)).max() < 0.3
    assert kinds[UNLIKE][0] == 7


def test_grades_part_where_a_logistic_fit_of_scikit_learn_crosses_a_half():
    rng = np.random.default_rng(3)
    odds = rng.normal(size=400)
    label = (rng.uniform(size=400) < 1 / (1 + np.exp(-(1.5 * odds - 1.0)))).astype(float)
    fit = LogisticRegression(C=1e3, class_weight="balanced", tol=1e-10).fit(odds[:, None], label)
    assert parting(odds, label) == pytest.approx(-fit.intercept_[0] / fit.coef_[0, 0], abs=0.02)
    assert parting(odds[:4], np.array([1, 1, 1, 0.0])) is None


def lenses_found(choose, seed, *, n_round=4, n_look=40):
    """Lenses that a grader who knows has found after each round; the finder learns from the grades between rounds."""
    rng = np.random.default_rng(seed)
    n, n_kind = 2000, 30
    features = rng.normal(size=(n, 4))
    truth = np.zeros(n)
    # two kinds of lens: what the first finder knows, and one that lies elsewhere and that it scores as galaxies
    features[:n_kind] += (3.5, 0, 0, 0)
    features[n_kind : 2 * n_kind] += (0, 3.5, 0, 3)
    truth[: 2 * n_kind] = 1
    odds, label = features[:, 0] - 3 + rng.normal(0, 0.3, n), np.full(n, np.nan)
    found = []
    for _ in range(n_round):
        rows = choose(odds, features, label, n_look, rng)
        label[rows] = truth[rows]
        found.append(int(np.nansum(label)))
        known = np.isfinite(label)
        if 0 < label[known].sum() < known.sum():
            odds = (
                LogisticRegression(class_weight="balanced")
                .fit(features[known], label[known])
                .decision_function(features)
            )
    return found


def by_score(odds, features, label, n, rng):
    return np.argsort(np.where(np.isnan(label), -odds, np.inf))[:n]


def at_random(odds, features, label, n, rng):
    return rng.choice(np.flatnonzero(np.isnan(label)), n, replace=False)


def by_queue(odds, features, label, n, rng):
    return learning_queue(odds, features, label, n)[0]


def test_with_a_grader_who_knows_the_queue_finds_lenses_that_scores_alone_do_not():
    found = {
        rule.__name__: np.mean([lenses_found(rule, seed) for seed in range(3)], axis=0)
        for rule in (by_queue, by_score, at_random)
    }
    assert found["by_queue"][-1] > 1.2 * found["by_score"][-1]
    assert found["by_score"][-1] > 3 * found["at_random"][-1]
