"""Recall at a rate: the threshold that a given part of the others pass, and what passes it, bin by bin."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.stats.intervals import fraction


def threshold_passed_by(others: NDArray[np.floating], part: float) -> float:
    """
    Score that at most a fraction ``part`` of the others exceed; what is equal to it does not pass.

    Examples
    --------
    >>> threshold_passed_by(np.array([0.1, 0.4, 0.2, 0.9]), 0.25)
    0.4
    """
    return float(np.sort(others)[::-1][int(np.floor(part * len(others)))])


def recall_in_bins(
    passed: NDArray[np.bool_], values: NDArray[np.floating], edges: Sequence[float]
) -> list[dict[str, Any]]:
    """
    Part of the rows that passed, in bins of a value, each with its 95 % interval.

    Parameters
    ----------
    passed : array (n,)
        Whether a row is above the threshold; what was never detected is not.
    values : array (n,)
        What the bins are of.
    edges : sequence of float
        Edges of the bins, the lower one included; the last may be infinite.

    Returns
    -------
    list of dict
        ``low``, ``high`` (None for no upper edge), ``k``, ``n``, ``value``, ``interval95`` of each bin.
    """
    bins = []
    for low, high in pairwise(edges):
        inside = (values >= low) & (values < high)
        part = fraction(int(passed[inside].sum()), int(inside.sum()))
        bins.append({"low": low, "high": None if np.isinf(high) else high, **part})
    return bins
