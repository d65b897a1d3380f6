"""Which candidates to look at next, so that a look teaches most: the top, the uncertain, the unlike what was graded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

TOP, UNCERTAIN, UNLIKE = "top", "uncertain", "unlike"
SHARES = {TOP: 0.5, UNCERTAIN: 0.25, UNLIKE: 0.25}
"""Parts of a queue."""
LEAST_OF_EACH = 3
"""Graded lenses, and graded others, from which on it is known where the finder is uncertain."""


def learning_queue(
    log_odds: NDArray[np.floating], features: NDArray[np.floating], label: NDArray[np.floating], n: int
) -> tuple[NDArray[np.int64], list[str]]:
    """
    The next ``n`` candidates to look at, and why each is among them.

    Half are the best scored. A quarter are those whose score lies nearest to where people's grades part: the crossing
    of a logistic fit of labels on scores; while there are fewer than three of each label nothing is known of it, and
    the top has that quarter. A quarter are unlike all that was graded or chosen before: farthest first in the features,
    each divided by its scatter (Gonzalez 1985, Theor. Comput. Sci. 38, 293). The three kinds take turns, so that any
    beginning of the queue is a queue.

    Parameters
    ----------
    log_odds : array (n_row,)
        Of the scores; rows where it is NaN are never at the top nor uncertain.
    features : array (n_row, k)
        What candidates are compared by; NaN counts as the median.
    label : array (n_row,)
        1 graded a lens, 0 graded none, 0.5 graded and undecided, NaN not graded.
    n : int
        Looks.

    Returns
    -------
    rows : int array, at most (n,)
        None of them is graded.
    why : list of str
        `TOP`, `UNCERTAIN` or `UNLIKE` of each.

    Examples
    --------
    >>> rows, why = learning_queue(np.array([3.0, 2.0, 1.0, 0.0]), np.array([[0.0], [0.1], [0.2], [9.0]]),
    ...                            np.array([1.0, np.nan, np.nan, np.nan]), 3)
    >>> rows.tolist(), why
    ([1, 2, 3], ['top', 'top', 'unlike'])
    """
    log_odds, label = np.asarray(log_odds, float), np.asarray(label, float)
    open_rows = np.isnan(label)
    crossing = parting(log_odds, label)
    best = np.argsort(np.where(np.isnan(log_odds), np.inf, -log_odds), kind="stable")
    orders: dict[str, Iterator[int]] = {TOP: iter(best[open_rows[best] & np.isfinite(log_odds[best])].tolist())}
    shares = dict(SHARES)
    if crossing is None:
        shares[TOP] += shares.pop(UNCERTAIN)
    else:
        near = np.argsort(np.where(np.isnan(log_odds), np.inf, np.abs(log_odds - crossing)), kind="stable")
        orders[UNCERTAIN] = iter(near[open_rows[near] & np.isfinite(log_odds[near])].tolist())
    space = scaled(features)
    distance = np.full(len(label), np.inf)
    for seen in np.flatnonzero(~open_rows):
        distance = _nearer(distance, space, int(seen))
    left = open_rows.copy()
    rows: list[int] = []
    why: list[str] = []
    given = dict.fromkeys(shares, 0)
    while len(rows) < n and left.any():
        kind = max(shares, key=lambda k: shares[k] * (len(rows) + 1) - given[k])
        given[kind] += 1
        best_left = None if kind == UNLIKE else next((int(r) for r in orders[kind] if left[r]), None)
        if best_left is None:  # asked for, or no row with a score is left
            kind = UNLIKE
        row = _farthest(distance, left) if best_left is None else best_left
        left[row] = False
        distance = _nearer(distance, space, row)
        rows.append(row)
        why.append(kind)
    return np.array(rows, np.int64), why


def parting(log_odds: NDArray[np.floating], label: NDArray[np.floating]) -> float | None:
    """
    Log odds at which graded lenses and graded others are as likely as one another; None while too few are known.

    A logistic fit by Newton's method with a weak prior on its slope, each label weighing the same in all, so that the
    crossing does not follow what was chosen to be looked at; kept within the scores that were graded.
    """
    use = np.isfinite(log_odds) & np.isin(label, [0.0, 1.0])
    x, y = np.asarray(log_odds, float)[use], np.asarray(label, float)[use]
    if min((y == 1).sum(), (y == 0).sum()) < LEAST_OF_EACH:
        return None
    weight = np.where(y == 1, 0.5 / (y == 1).mean(), 0.5 / (y == 0).mean())
    middle, spread = x.mean(), x.std() or 1.0
    design = np.stack([np.ones_like(x), (x - middle) / spread], axis=1)
    prior = np.array([1e-3, 1.0])
    theta = np.zeros(2)
    for _ in range(50):
        p = expit(design @ theta)
        gradient = design.T @ (weight * (p - y)) + prior * theta
        curvature = (design.T * (weight * p * (1 - p))) @ design + np.diag(prior)
        step = np.linalg.solve(curvature, gradient)
        theta -= step
        if np.abs(step).max() < 1e-8:
            break
    if theta[1] <= 0:  # grades do not follow the score: the middle of what was graded
        return float(np.median(x))
    return float(np.clip(middle - spread * theta[0] / theta[1], x.min(), x.max()))


def scaled(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Features less their median over their scatter (half of the range that holds the middle 68 %), kept within 5."""
    values = np.asarray(features, float)
    columns = []
    for column in values.T:
        known = column[np.isfinite(column)]
        if not len(known):
            continue
        low, middle, high = np.percentile(known, [16, 50, 84])
        if high > low:
            columns.append(
                np.clip((np.where(np.isfinite(column), column, middle) - middle) / ((high - low) / 2), -5, 5)
            )
    return np.stack(columns, axis=1) if columns else np.zeros((len(values), 1))


def _nearer(distance: NDArray[np.float64], space: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    return np.minimum(distance, np.linalg.norm(space - space[row], axis=1))


def _farthest(distance: NDArray[np.float64], left: NDArray[np.bool_]) -> int:
    return int(np.where(left, distance, -1.0).argmax())
