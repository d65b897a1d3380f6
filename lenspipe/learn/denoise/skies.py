"""Real skies to draw pairs from: a survey tile and cutouts of galaxies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.image.background import estimate_background
from lenspipe.learn.denoise.colour import noise_correlation
from lenspipe.learn.denoise.pairs import Image, Sky
from lenspipe.robust import robust_sigma

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
