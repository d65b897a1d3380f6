"""Real skies to draw pairs from: a survey tile, galaxy cutouts, and repeated frames of one field on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage

from lenspipe.errors import DataError
from lenspipe.image.background import estimate_background
from lenspipe.learn.denoise.colour import noise_correlation
from lenspipe.learn.denoise.pairs import Image, Sky
from lenspipe.robust import robust_sigma
from lenspipe.sky.wcs import celestial_wcs

GRID_STEP_PX = 16
N_CORRELATION = 100


def real_sky(image_njy: Image, *, name: str, mesh_px: int = 128) -> Sky:
    """
    A real image ``(band, y, x)``, sky-subtracted, with the noise of its bands; pixels without data are NaN.

    Raises
    ------
    DataError
        A band holds no data.
    """
    clean = np.empty_like(image_njy)
    rms = []
    for band, image in enumerate(image_njy):
        mask = ~np.isfinite(image)
        clean[band] = np.where(mask, 0, image)
        background = estimate_background(clean[band], mask, mesh_px=mesh_px, filter_mesh=3)
        if background is None:
            raise DataError("a band of the image holds no data", image=name, band=band)
        background.subtract_from(clean[band])
        clean[band][mask] = np.nan
        rms.append(background.median_rms)
    return Sky("image", clean, np.array(rms), correlation=noise_correlation([clean], [rms]))


def cutout_skies(cutouts_njy: Sequence[Image], *, correlation: NDArray[np.float64] | None = None) -> list[Sky]:
    """
    Cutouts of galaxies ``(band, y, x)``: sky and noise are the median and the robust scatter of each band.

    A cutout that a galaxy fills looks noisier than it is. The ``correlation`` of the noise is one for all, measured on
    the first hundred where it is not given.
    """
    images, noise = [], []
    for cutout in cutouts_njy:
        sky = np.median(cutout, axis=(1, 2), keepdims=True)
        images.append((cutout - sky).astype(np.float32))
        noise.append(robust_sigma(cutout, (1, 2)).astype(np.float64))
    if correlation is None:
        some = [k for k in range(min(len(images), N_CORRELATION)) if (noise[k] > 0).all()]
        correlation = noise_correlation([images[k] for k in some], [noise[k] for k in some])
    return [Sky("image", image, rms, correlation=correlation) for image, rms in zip(images, noise, strict=True)]


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
