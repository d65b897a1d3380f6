"""The table of detected sources that both detectors return."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

FLAG_BLENDED = 1
"""Was deblended from a neighbour."""
FLAG_EDGE = 2
"""Touches the edge of the image that was searched."""
FLAG_MASKED = 4
"""Has masked pixels within its Kron ellipse."""
FLAG_PHOTOMETRY = 8
"""No flux could be measured: the fluxes are NaN."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sources:
    """
    Detected sources, ordered by (y, x).

    Attributes
    ----------
    x_px, y_px : float64 arrays (n,)
        Centroid, 0-based in the image that was searched.
    a_px, b_px : float64 arrays (n,)
        Second-moment semi-axes, pixels; never below the moments of one pixel, sqrt(1/12).
    theta_rad : float64 array (n,)
        Angle of the major axis from +x towards +y, in [-pi/2, pi/2).
    n_px : int64 array (n,)
        Pixels above the threshold.
    label : int32 array (n,)
        Value of the source's pixels in the segmentation map.
    flags : int32 array (n,)
        Sum of FLAG_BLENDED and FLAG_EDGE here; photometry adds the others.
    """

    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    a_px: NDArray[np.float64]
    b_px: NDArray[np.float64]
    theta_rad: NDArray[np.float64]
    n_px: NDArray[np.int64]
    label: NDArray[np.int32]
    flags: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.x_px)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Sources:
        """The sources at ``rows``, in that order."""
        return Sources(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})


def make_sources(
    *,
    x_px: NDArray[np.floating],
    y_px: NDArray[np.floating],
    a_px: NDArray[np.floating],
    b_px: NDArray[np.floating],
    theta_rad: NDArray[np.floating],
    n_px: NDArray[np.integer],
    label: NDArray[np.integer],
    flags: NDArray[np.integer],
) -> Sources:
    """Build `Sources` in their order, dropping the ones whose centroid or moments are not finite."""
    smallest = np.sqrt(1 / 12)
    sources = Sources(
        x_px=np.asarray(x_px, np.float64),
        y_px=np.asarray(y_px, np.float64),
        a_px=np.maximum(np.asarray(a_px, np.float64), smallest),
        b_px=np.maximum(np.asarray(b_px, np.float64), smallest),
        theta_rad=(np.asarray(theta_rad, np.float64) + np.pi / 2) % np.pi - np.pi / 2,
        n_px=np.asarray(n_px, np.int64),
        label=np.asarray(label, np.int32),
        flags=np.asarray(flags, np.int32),
    )
    shape = np.array([sources.x_px, sources.y_px, sources.a_px, sources.b_px, sources.theta_rad])
    sources = sources.take(np.isfinite(shape).all(axis=0))
    return sources.take(np.lexsort((sources.x_px, sources.y_px)))
