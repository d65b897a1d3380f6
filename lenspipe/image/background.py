"""Sky background and its noise on a mesh, by SEP (Barbary 2016, JOSS 1, 58; Bertin & Arnouts 1996)."""

from __future__ import annotations

import dataclasses

import numpy as np
import sep
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class Background:
    """Level and noise of the sky at each pixel, in the image's unit; ``median_rms`` is over the meshes with data."""

    level: NDArray[np.float32]
    rms: NDArray[np.float32]
    median_rms: float


def estimate_background(
    image: NDArray[np.float32], mask: NDArray[np.bool_], *, mesh_px: int, filter_mesh: int
) -> Background | None:
    """
    Sigma-clipped mode of the sky on a mesh, median-filtered and interpolated by a bicubic spline.

    Parameters
    ----------
    image : array (y, x), float32
    mask : array (y, x), bool
        True where a pixel is bad.
    mesh_px : int
        Size of a mesh cell.
    filter_mesh : int
        Width of the median filter, in mesh cells.

    Returns
    -------
    Background or None
        None where the image has no noise to measure: all masked, or constant.
    """
    if mask.all():
        return None
    background = sep.Background(image, mask=mask, bw=mesh_px, bh=mesh_px, fw=filter_mesh, fh=filter_mesh)
    level, rms = background.back(dtype=np.float32), background.rms(dtype=np.float32)
    positive = rms[(rms > 0) & ~mask]
    if positive.size == 0:
        return None
    median_rms = float(np.median(positive[:: max(1, positive.size // 100_000)]))
    # A mesh cell without data has rms 0 and would let every pixel through as a detection.
    np.maximum(rms, 0.1 * median_rms, out=rms)
    return Background(level, rms, median_rms)
