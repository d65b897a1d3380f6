"""What is left of a stamp without its smooth galaxy, without a model of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_RATIO = 0.1


def elliptical_residual(
    stamp: NDArray[np.floating], covered: NDArray[np.bool_], *, axis_ratio: float, angle_deg: float
) -> NDArray[np.float32]:
    """
    A stamp less the median along ellipses of the source's own shape around its middle, each band for itself.

    Ellipses are a pixel apart in the geometric mean of their axes, and the median is linear between them. An arc that
    covers less than half of its ellipse stays; a ring that covers more of it goes, and so does a round galaxy. Nothing
    is fitted: position angle and axis ratio are those of the second moments, the same at all radii.

    Parameters
    ----------
    stamp : array (channel, y, x)
        Any unit.
    covered : array (channel, y, x), bool
        False where there are no data: such pixels have no say, and are 0 in the result.
    axis_ratio, angle_deg : float
        Minor over major axis, and the major axis from +x towards +y; a circle where either is not finite.

    Returns
    -------
    array (channel, y, x), float32

    Examples
    --------
    >>> y, x = np.mgrid[:9, :9] - 4.0
    >>> galaxy = np.exp(-np.hypot(x, y))[None]
    >>> bool(np.abs(elliptical_residual(galaxy, galaxy > 0, axis_ratio=1.0, angle_deg=0.0)).max() < 0.15)
    True
    """
    n_y, n_x = stamp.shape[1:]
    radius = _radius(n_y, n_x, axis_ratio, angle_deg)
    ring = np.rint(radius).astype(np.int64)
    n_ring = int(ring.max()) + 1
    low = np.floor(radius).astype(np.int64)
    part, high = radius - low, np.minimum(low + 1, n_ring - 1)
    left = np.zeros(stamp.shape, np.float32)
    for plane, there, out in zip(stamp, covered, left, strict=True):
        profile = _medians(plane[there], ring[there], n_ring)
        smooth = profile[np.minimum(low, n_ring - 1)] * (1 - part) + profile[high] * part
        out[there] = (plane - smooth)[there]
    return left


def _radius(n_y: int, n_x: int, axis_ratio: float, angle_deg: float) -> NDArray[np.float64]:
    """Geometric mean of the axes of the ellipse through each pixel, pixels."""
    round_one = not (np.isfinite(axis_ratio) and np.isfinite(angle_deg))
    ratio, angle = (1.0, 0.0) if round_one else (min(1.0, max(LEAST_RATIO, axis_ratio)), np.radians(angle_deg))
    y, x = np.indices((n_y, n_x), float)
    y, x = y - (n_y - 1) / 2, x - (n_x - 1) / 2
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray(np.hypot(along, across / ratio) * np.sqrt(ratio))


def _medians(values: NDArray[np.floating], ring: NDArray[np.int64], n_ring: int) -> NDArray[np.float64]:
    """Median of the values of each ring ``(n_ring,)``; of one without values, that of the nearest one that has some."""
    if not len(values):
        return np.zeros(n_ring)
    order = np.lexsort((values, ring))
    count = np.bincount(ring, minlength=n_ring)
    begun = np.cumsum(count) - count
    known = np.flatnonzero(count)
    ordered = values[order].astype(np.float64)
    middle = (ordered[begun[known] + (count[known] - 1) // 2] + ordered[begun[known] + count[known] // 2]) / 2
    return np.asarray(np.interp(np.arange(n_ring), known, middle))
