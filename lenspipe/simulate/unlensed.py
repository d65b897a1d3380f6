"""Unlensed things as an instrument sees them: the one drawer of non-lenses, for stamps and for painted hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.instrument import moffat_star
from lenspipe.simulate.light import Component
from lenspipe.simulate.negatives import Scaled, Sky
from lenspipe.simulate.render import add_stamp, convolve, paint_galaxy

FAINTEST_SIGMA = 0.05
"""Galaxies are drawn out to where they fall below this part of the sky noise of a pixel."""
_BEAM_PX = 100.0


@dataclass(frozen=True, eq=False)
class View:
    """Pixels that unlensed things are drawn on."""

    size_px: int
    """Side, pixels."""
    pixel_scale_arcsec: float
    """Pixel scale."""
    kernels: Sequence[NDArray[np.float64]]
    """PSF of each band, ``sampling`` times finer than the pixels."""
    sky_rms_njy: NDArray[np.float64]
    """Noise of a pixel ``(band,)``."""
    supersampling: int = 4
    """Points per pixel and axis."""
    sampling: int = 1
    """PSF samples per pixel and axis."""
    moffat: tuple[NDArray[np.float64], float] | None = None
    """FWHM of each band, arcsec, and exponent, where the PSF is a Moffat function: stars are then exact."""


def draw_unlensed(sky: Sky, view: View, bands: slice = slice(None)) -> NDArray[np.float64]:
    """
    Galaxies and stars of a sky, PSF applied, noise-free: ``(band, y, x)`` in nJy.

    Parameters
    ----------
    sky : Sky
        Without `Scaled` parts (`shine` makes galaxies of them).
    view : View
    bands : slice
        Bands of the sky's fluxes that are drawn; as many as the view has kernels.
    """
    n_band, s = len(view.kernels), view.sampling
    scale = view.pixel_scale_arcsec / s
    sharp = np.zeros((n_band, view.size_px * s, view.size_px * s))
    middle = (view.size_px * s - 1) / 2
    faintest = FAINTEST_SIGMA * view.sky_rms_njy / s**2
    for component in sky.galaxies:
        seen = Component(component.profile, component.flux_njy[bands])
        paint_galaxy(sharp, [seen], middle, middle, scale, faintest, supersampling=max(1, view.supersampling // s))
    exact = view.moffat if s == 1 else None
    for x, y, flux in () if exact else sky.stars:
        _add_point(sharp, flux[bands], x / scale + middle, y / scale + middle)
    blurred = convolve(sharp, view.kernels, sampling=s)
    if exact:
        fwhms, beta = exact
        for x, y, flux in sky.stars:
            column, row = x / scale + middle, y / scale + middle
            for b, fwhm in enumerate(fwhms):
                star = moffat_star(float(fwhm), scale, column, row, beta=beta)
                add_stamp(blurred[b : b + 1], star[None] * flux[bands][b], round(column), round(row))
    return blurred


def shine(part: Scaled, view: View, bands: slice = slice(None)) -> list[Component]:
    """The components of a part, as bright together as its signal-to-noise asks for in this view."""
    total = np.sum([component.flux_njy[bands] for component in part.components], axis=0)
    guess = part.snr * np.sqrt(_BEAM_PX) / np.sqrt(np.sum((total / view.sky_rms_njy) ** 2))
    trial = [Component(component.profile, component.flux_njy * guess) for component in part.components]
    image = draw_unlensed(Sky(trial), view, bands)
    seen = np.sqrt(np.sum((image / view.sky_rms_njy[:, None, None]) ** 2))
    return [Component(component.profile, component.flux_njy * (part.snr / seen)) for component in trial]


def _add_point(image: NDArray[np.float64], flux: NDArray[np.float64], x_px: float, y_px: float) -> None:
    """Flux of a point shared by its four nearest samples."""
    column, row = int(np.floor(x_px)), int(np.floor(y_px))
    share_x, share_y = x_px - column, y_px - row
    share = np.outer([1 - share_y, share_y], [1 - share_x, share_x])
    if 0 <= column < image.shape[2] - 1 and 0 <= row < image.shape[1] - 1:
        image[:, row : row + 2, column : column + 2] += flux[:, None, None] * share
