"""Repeated frames of one field on one grid, as skies to draw pairs from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage

from lenspipe.errors import DataError
from lenspipe.learn.denoise.pairs import Image, Sky
from lenspipe.learn.denoise.skies import real_sky
from lenspipe.sky.wcs import celestial_wcs

GRID_STEP_PX = 16


def read_frames(files: Sequence[Path]) -> list[tuple[Image, WCS]]:
    """
    Frames ``(y, x)`` in nJy with their WCS, from HDU 1 of compressed files with MAGZPT.

    Raises
    ------
    DataError
        A frame has no MAGZPT.
    TileError
        It has no celestial WCS.
    """
    frames = []
    for file in files:
        with fits.open(file) as hdus:
            header = hdus[1].header
            if "MAGZPT" not in header:
                raise DataError("the frame has no zero-point MAGZPT", file=str(file))
            scale = 10 ** (0.4 * (31.4 - float(header["MAGZPT"])))
            frames.append(((hdus[1].data * scale).astype(np.float32), celestial_wcs(header, file=str(file))))
    return frames


def resample(image: Image, wcs: WCS, to_wcs: WCS, shape: tuple[int, int]) -> Image:
    """
    An image on the grid of another by cubic spline, NaN where it has no data.

    Positions are exact every 16 pixels and linear between: a distorted frame is off by less than 0.01 pixels there.
    The frames have one pixel scale: surface brightness is kept, and with it flux.
    """
    y, x = np.mgrid[0 : shape[0] + GRID_STEP_PX : GRID_STEP_PX, 0 : shape[1] + GRID_STEP_PX : GRID_STEP_PX]
    ra, dec = to_wcs.all_pix2world(x.ravel(), y.ravel(), 0)
    there = np.stack(wcs.all_world2pix(ra, dec, 0)[::-1]).reshape(2, *x.shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / GRID_STEP_PX
    at = [ndimage.map_coordinates(plane, [rows, columns], order=1) for plane in there]
    bad = ~np.isfinite(image)
    out: NDArray[np.float32] = ndimage.map_coordinates(np.where(bad, 0, image), at, order=3, cval=np.nan)
    lost = ndimage.map_coordinates(bad.astype(np.float32), at, order=1, cval=1.0) > 0
    return np.where(lost, np.nan, out).astype(np.float32)


def frame_skies(frames: Sequence[tuple[Image, WCS]]) -> list[Sky]:
    """
    Each frame as the short exposure, on its own pixels, and the mean of the others on its grid.

    What is resampled is never the network's input, so the noise that it learns is that of a frame. Where the short
    frame is 20 sigma off the mean of at least two others that agree, it is a bad pixel or a cosmic ray, and no data.

    Raises
    ------
    DataError
        Fewer than two frames, or one without data.
    """
    if len(frames) < 2:
        raise DataError("repeated exposures are at least two", n=len(frames))
    flat = [(real_sky(image[None], name=str(k)), wcs) for k, (image, wcs) in enumerate(frames)]
    skies = []
    for k, (sky, wcs) in enumerate(flat):
        shape = sky.image_njy.shape[-2:]
        others = np.stack([resample(o.image_njy[0], w, wcs, shape) for j, (o, w) in enumerate(flat) if j != k])
        rest = others.mean(axis=0)  # NaN where a frame is missing: the ratio would be another
        image = sky.image_njy[0].copy()
        rms = float(sky.sky_rms_njy[0])
        spread = 20 * rms + 0.5 * np.abs(rest) + np.ptp(others, axis=0)
        image[np.abs(image - rest) > spread] = np.nan
        skies.append(Sky("frames", image[None], sky.sky_rms_njy, None, rest[None], len(others)))
    return skies
