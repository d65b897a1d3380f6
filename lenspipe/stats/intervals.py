"""Fractions with intervals that hold for small numbers."""

from __future__ import annotations

from typing import Any

from scipy.stats import beta


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
    low = 0.0 if k == 0 or n == 0 else float(beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(1 - tail, k + 1, n - k))
    return low, high


def fraction(k: int, n: int) -> dict[str, Any]:
    """``k`` of ``n`` with its 95 % Clopper-Pearson interval; the value is null where n is 0."""
    low, high = clopper_pearson(k, n)
    return {"value": k / n if n else None, "interval95": [low, high], "k": k, "n": n}


def is_measurable(rate: float, n: int) -> bool:
    """
    Whether ``n`` trials can show a rate: 3 / n or more.

    None in n bounds a rate to below 3/n at 95 % (the rule of three, Hanley & Lippman-Hand 1983, JAMA 249, 1743).
    """
    return n > 0 and rate * n >= 3 * (1 - 1e-12)
