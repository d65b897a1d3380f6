"""Noise that a few bright pixels or wild values do not raise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAD_TO_SIGMA = 1.4826
"""Sigma of a normal distribution in units of its median absolute deviation, 1 / 0.67449."""


def robust_sigma(
    values: NDArray[np.floating],
    axis: int | tuple[int, ...] | None = None,
    *,
    around: float | NDArray[np.floating] | None = None,
    keepdims: bool = False,
) -> Any:
    """
    1.4826 times the median absolute deviation: sigma of normal noise, whatever lies in its wings.

    `astropy.stats.mad_std` is the same to the fifth digit of the factor; the rounded factor is kept because scales in
    model cards and the sky's noise in simulated stamps were measured with it.

    Parameters
    ----------
    values : array
        Without NaN.
    axis : int, tuple of int or None
        Axes that are measured over; None: all.
    around : float or array, optional
        Where deviations are counted from; their median over ``axis`` unless it is given.
    keepdims : bool
        Keep the axes with length 1.

    Returns
    -------
    float or array
        In the values' type and unit.

    Examples
    --------
    >>> round(float(robust_sigma(np.array([1.0, 2.0, 3.0, 4.0, 1e9]))), 4)
    1.4826
    """
    if around is None:
        around = np.median(values, axis=axis, keepdims=True)
    return MAD_TO_SIGMA * np.median(np.abs(values - around), axis=axis, keepdims=keepdims)
