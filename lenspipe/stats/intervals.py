"""Fractions with intervals that hold for small numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrik, betaincinv  # scipy.stats takes two seconds to import


def clopper_pearson(k: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """
    Exact central interval of a binomial fraction (Clopper & Pearson 1934, Biometrika 26, 404).

    Parameters
    ----------
    k, n : int
        Successes and trials; without trials the interval is (0, 1).
    level : float
        Coverage, at least this.

    Examples
    --------
    >>> tuple(round(bound, 4) for bound in clopper_pearson(0, 10))
    (0.0, 0.3085)
    """
    tail = (1 - level) / 2
    low = 0.0 if k == 0 or n == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def fraction(k: int, n: int) -> dict[str, Any]:
    """``k`` of ``n`` with its 95 % Clopper-Pearson interval; the value is null where n is 0."""
    low, high = clopper_pearson(k, n)
    return {"value": k / n if n else None, "interval95": [low, high], "k": k, "n": n}


def median_interval(values: NDArray[np.floating]) -> tuple[float, float] | None:
    """
    95 % interval of the median of independent values, from their order alone.

    Two of the sorted values, the sign test's (Thompson 1936, Ann. Math. Statist. 7, 122): it holds for any distribution
    in at least 95 % of all samples. None with fewer than six values, of which no two enclose the median so often.

    Examples
    --------
    >>> median_interval(np.arange(9.0)), median_interval(np.arange(5.0))
    ((1.0, 7.0), None)
    """
    ranked = np.sort(np.asarray(values, np.float64))
    n = len(ranked)
    rank = max(0, int(np.ceil(bdtrik(0.025, n, 0.5)))) if n else 0
    while rank > 0 and bdtr(rank - 1, n, 0.5) > 0.025:
        rank -= 1
    return (float(ranked[rank - 1]), float(ranked[n - rank])) if rank > 0 else None


def unless_a_point(bounds: Sequence[float] | NDArray[np.floating], n: int) -> tuple[float, float]:
    """
    An interval of a mean of ``n`` values from -1 to 1 by bootstrap, widened where it is a point.

    Values that are all equal say nothing to a bootstrap; of ``n``, a part as large as the Clopper-Pearson bound of none
    may yet differ.
    """
    low, high = float(bounds[0]), float(bounds[1])
    if high > low:
        return low, high
    most = clopper_pearson(0, n)[1]
    return max(-1.0, low - most), min(1.0, high + most)


def is_measurable(rate: float, n: int) -> bool:
    """
    Whether ``n`` trials can show a rate: 3 / n or more.

    None in n bounds a rate to below 3/n at 95 % (the rule of three, Hanley & Lippman-Hand 1983, JAMA 249, 1743).
    """
    return n > 0 and rate * n >= 3 * (1 - 1e-12)
