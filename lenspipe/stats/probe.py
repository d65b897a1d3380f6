"""How well a simple classifier tells two kinds of rows apart: chance where they are alike."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

N_FOLD, N_COMPONENT, N_BOOTSTRAP = 5, 20, 200
LEAST_GROUPS = 8
"""Groups of each kind below which nothing is said."""


def tell_apart(
    features: NDArray[np.floating], is_first: NDArray[np.bool_], groups: NDArray[Any], rng: np.random.Generator
) -> dict[str, Any]:
    """
    Area under the ROC curve of a logistic regression, cross-validated group by group, with its interval.

    Features are standardised and, where there are more than 20, turned to their first 20 principal components; folds
    share no group. The area is the mean over folds, each against itself: scores of two fits cannot be compared. The
    interval is that of a bootstrap over groups, which leaves out how much the fits themselves vary.

    Parameters
    ----------
    features : array (n, k)
        Finite.
    is_first : array (n,)
        Which of the two kinds a row is of.
    groups : array (n,)
        Rows of one host belong together.
    rng : numpy Generator

    Returns
    -------
    dict
        ``auc``, ``interval95``, ``n`` (rows of both kinds) and ``n_group``; the first two null, and ``why``, where
        there are too few.
    """
    _, number = np.unique(groups, return_inverse=True)
    n = [int(is_first.sum()), int((~is_first).sum())]
    n_group = [len(np.unique(number[is_first])), len(np.unique(number[~is_first]))]
    said: dict[str, Any] = {"n": n, "n_group": n_group}
    if min(n_group) < LEAST_GROUPS:
        why = f"a kind has fewer than {LEAST_GROUPS} hosts"
        return {"auc": None, "interval95": None, "why": why, **said}
    fold = np.full(len(is_first), -1)
    score = np.zeros(len(is_first))
    for k, (train, test) in enumerate(_folds(is_first, number, rng)):
        fold[test], score[test] = k, _fit(features[train], is_first[train], features[test])
    draws = []
    for _ in range(N_BOOTSTRAP):
        times = np.bincount(rng.integers(number.max() + 1, size=number.max() + 1), minlength=number.max() + 1)[number]
        draws.append(_mean_area(score, is_first, fold, times))
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return {
        "auc": _mean_area(score, is_first, fold, np.ones(len(score), int)),
        "interval95": [float(low), float(high)],
        **said,
    }


def _folds(
    is_first: NDArray[np.bool_], number: NDArray[np.intp], rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(N_FOLD, shuffle=True, random_state=int(rng.integers(2**31)))
    yield from folds.split(np.zeros((len(number), 1)), is_first, number)


def _fit(train: NDArray[np.floating], is_first: NDArray[np.bool_], test: NDArray[np.floating]) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    varies = train.std(axis=0) > 1e-9
    if not varies.any() or is_first.all() or not is_first.any():
        return np.zeros(len(test))
    steps = [StandardScaler(), LogisticRegression(C=0.3, max_iter=2000, class_weight="balanced")]
    n_component = min(N_COMPONENT, len(train) // 5)
    if varies.sum() > n_component:
        steps.insert(1, PCA(n_component, svd_solver="full"))
    model = make_pipeline(*steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model.fit(train[:, varies], is_first).decision_function(test[:, varies]))


def _mean_area(
    score: NDArray[np.float64], is_first: NDArray[np.bool_], fold: NDArray[np.intp], times: NDArray[np.intp]
) -> float:
    """Mean over folds of the area, rows counted some times, weighted by the pairs in each."""
    total = weight = 0.0
    for k in np.unique(fold):
        rows = np.repeat(np.flatnonzero(fold == k), times[fold == k])
        first = is_first[rows]
        pairs = float(first.sum()) * float((~first).sum())
        if pairs:
            ranks = rankdata(score[rows])
            total += float(ranks[first].sum()) - first.sum() * (first.sum() + 1) / 2
            weight += pairs
    return total / weight if weight else float("nan")
