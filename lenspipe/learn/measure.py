"""Numbers with their intervals, as a training watches them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.stats.curves import Z95

Array = NDArray[np.float64]


def bounded(name: str, value: float | None, interval: Sequence[float] | None) -> dict[str, float | None]:
    """
    A number with the ends of its 95 % interval, as columns of the history.

    Examples
    --------
    >>> bounded("auc", 0.75, (0.5, 1))
    {'auc': 0.75, 'auc_low': 0.5, 'auc_high': 1.0}
    """
    low, high = (None, None) if interval is None else (float(edge) for edge in interval)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def mean_interval(values: Array) -> tuple[float, float] | None:
    """95 % normal interval of the mean of numbers that are not negative, cut at 0; None for a single one."""
    if len(values) < 2:
        return None
    mean, half = float(values.mean()), Z95 * float(values.std(ddof=1)) / len(values) ** 0.5
    return max(0.0, mean - half), mean + half
