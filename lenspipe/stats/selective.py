"""A classifier that may abstain: what accuracy is bought by how many silences, and where to be silent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.stats.counts import ScoreCounts, scores_of_keys
from lenspipe.stats.intervals import clopper_pearson, fraction

KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Parts of the stamps for which the accuracy is given."""
MOST_DROPPED = 0.5
LEAST_KEPT = 20
Array = NDArray[np.float64]


def accuracy_of_kept(top: ScoreCounts) -> list[dict[str, Any]]:
    """
    Accuracy among the most confident part of the stamps, for each of `KEPT`: the risk-coverage curve.

    El-Yaniv & Wiener 2010 (JMLR 11, 1605) plot the risk, one minus ours. Equal confidences are kept together, so a
    little more can be kept than was asked.

    Parameters
    ----------
    top : ScoreCounts
        Highest class probability of each stamp, and whether that class was right.

    Examples
    --------
    >>> top = ScoreCounts.of([0.9, 0.8, 0.6, 0.4], [True, True, False, False])
    >>> [(row["kept"], row["accuracy"]["value"]) for row in accuracy_of_kept(top) if row["asked"] in (1.0, 0.5)]
    [(1.0, 0.5), (0.5, 1.0)]
    """
    n = (top.lens + top.other)[::-1].cumsum()
    right = top.lens[::-1].cumsum()
    confidence = scores_of_keys(top.keys << top.level)[::-1]
    rows = []
    for asked in KEPT:
        k = int(np.searchsorted(n, np.ceil(asked * n[-1] - 1e-9)))
        rows.append(
            {
                "asked": asked,
                "kept": float(n[k] / n[-1]),
                "confidence": float(confidence[k]),
                "accuracy": fraction(int(right[k]), int(n[k])),
            }
        )
    return rows


def hopeless_below(value: Array, right: NDArray[np.bool_], chance: float) -> float:
    """
    Value below which a classifier is no better than chance.

    The stamps with the lowest values are left out as long as the 95 % interval of the accuracy among them reaches down
    to chance, in steps of a twentieth of the stamps, at most half of them. Where even the first step is better than
    chance the least value is given: below it nothing was seen.

    Parameters
    ----------
    value : array (n,)
        What is known of the stamps, finite.
    right : array (n,)
        Whether the most probable class was right.
    chance : float
        Accuracy of a guess.

    Examples
    --------
    >>> value = np.arange(200.0)
    >>> hopeless_below(value, np.where(value < 60, value % 3 == 0, True), 1 / 3)  # 30 of 70 are not yet better
    70.0
    """
    order = np.argsort(value, kind="stable")
    sorted_right = right[order].cumsum()
    n = len(value)
    limit = float(value[order[0]])
    for part in np.arange(0.05, MOST_DROPPED + 1e-9, 0.05):
        k = round(part * n)
        if k and clopper_pearson(int(sorted_right[k - 1]), k)[0] <= chance:
            limit = float(value[order[k]])
    return limit


def confidence_for(confidence: Array, right: NDArray[np.bool_], accuracy: float) -> float | None:
    """
    Lowest confidence from which on a classifier is right as often as asked; None where there is none.

    At least 20 stamps must be kept: the accuracy of fewer says nothing.

    Examples
    --------
    >>> confidence = np.linspace(0.4, 1.0, 61)
    >>> confidence_for(confidence, confidence > 0.695, 0.9), confidence_for(confidence, confidence < 0, 0.9)
    (0.67, None)
    """
    order = np.argsort(-confidence, kind="stable")
    n = np.arange(1, len(order) + 1)
    rate = right[order].cumsum() / n
    last_of_tie = np.append(np.diff(confidence[order]) != 0, True)
    good = np.flatnonzero((rate >= accuracy) & (n >= LEAST_KEPT) & last_of_tie)
    return float(round(confidence[order[good[-1]]], 9)) if len(good) else None
