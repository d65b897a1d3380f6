"""A window of several bands without its sky, and what is left of it: noise and masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import TileError
from lenspipe.image.background import estimate_background


@dataclasses.dataclass(frozen=True, eq=False)
class Flat:
    """A window without its sky: images (band, y, x) in nJy, 0 where masked; noise; masks."""

    image: NDArray[np.float32]
    rms: list[NDArray[np.float32]]
    mask: NDArray[np.bool_]
    median_rms: list[float | None]
    """Of each band; None where it is masked throughout."""


def subtract_sky(
    image: NDArray[np.float32], mask: NDArray[np.bool_], *, bands: Sequence[str], mesh_px: int, filter_mesh: int
) -> Flat:
    """
    Subtract the background of each band, in place.

    A band that is masked throughout, or so far that no sky can be measured, stays, with zeros and infinite noise.

    Parameters
    ----------
    image : array (band, y, x), float32
    mask : array (band, y, x), bool
        True where a pixel is bad.
    bands : sequence of str
        Names, for the error.
    mesh_px, filter_mesh : int
        As in `lenspipe.image.background.estimate_background`.

    Raises
    ------
    TileError
        Most pixels of a band have one value where it is not masked: there is no noise to detect anything against.
    """
    noise: list[NDArray[np.float32]] = []
    medians: list[float | None] = []
    for plane, bad, band in zip(image, mask, bands, strict=True):
        background = None
        if not bad.all():
            background = estimate_background(plane, bad, mesh_px=mesh_px, filter_mesh=filter_mesh)
            if background is None and (part := _of_one_value(plane[~bad])) > 0.5:
                what = "the image is constant" if part == 1 else f"{part:.0%} of the pixels have one value"
                raise TileError(
                    f"{what}: there is no noise to detect sources against; leave the tile out",
                    band=band,
                    value_njy=float(np.median(plane[~bad])),
                )
        if background is None:
            bad[:] = True
            plane[:] = 0
            noise.append(np.full(plane.shape, np.inf, np.float32))
            medians.append(None)
            continue
        background.subtract_from(plane)
        if bad.any():
            plane[bad] = 0
        noise.append(background.rms)
        medians.append(background.median_rms)
    return Flat(image, noise, mask, medians)


def _of_one_value(values: NDArray[np.float32]) -> float:
    """Part of the values that are the median; 0 of none. A band without a sky whose values differ is masked too far."""
    return float((values == np.median(values)).mean()) if len(values) else 0.0
