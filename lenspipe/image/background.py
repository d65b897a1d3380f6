"""Sky background and its noise on a mesh, by SEP (Barbary 2016, JOSS 1, 58; Bertin & Arnouts 1996)."""

from __future__ import annotations

import dataclasses

import numpy as np
import sep
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class Background:
    """Noise of the sky at each pixel, its median over the meshes with data, and the sky itself, in the image's unit."""

    rms: NDArray[np.float32]
    median_rms: float
    _mesh: sep.Background

    def level(self) -> NDArray[np.float32]:
        """The sky at each pixel."""
        return self._mesh.back(dtype=np.float32)

    def subtract_from(self, image: NDArray[np.float32]) -> None:
        """Subtract the sky in place: a map of the sky is never made."""
        self._mesh.subfrom(image)


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
        None where the image has no noise to measure: constant, or masked so far that no mesh cell is half clear
        (SEP would then report a sky of 0 and a noise of 1).
    """
    if not _some_mesh_is_half_clear(mask, mesh_px):
        return None
    mesh = sep.Background(
        image, mask=mask if mask.any() else None, bw=mesh_px, bh=mesh_px, fw=filter_mesh, fh=filter_mesh
    )
    rms = mesh.rms(dtype=np.float32)
    step = max(1, mesh_px // 4)  # the map is smooth: sixteen values a mesh cell say all
    sampled = rms[step // 2 :: step, step // 2 :: step]
    positive = sampled[(sampled > 0) & ~mask[step // 2 :: step, step // 2 :: step]]
    if positive.size == 0:  # a sliver of data that the steps missed
        positive = rms[(rms > 0) & ~mask]
    if positive.size == 0:
        return None
    median_rms = float(np.median(positive))
    # A mesh cell without data has rms 0 and would let every pixel through as a detection.
    floor = np.float32(0.1 * median_rms)
    if sampled.size == 0 or sampled.min() < floor:
        np.maximum(rms, floor, out=rms)
    return Background(rms, median_rms, mesh)


def _some_mesh_is_half_clear(mask: NDArray[np.bool_], mesh_px: int) -> bool:
    if not mask.any():
        return True
    rows, columns = (range(0, n, mesh_px) for n in mask.shape)
    cells = (mask[y : y + mesh_px, x : x + mesh_px] for y in rows for x in columns)
    return any(2 * np.count_nonzero(cell) < cell.size for cell in cells)
