"""Smooth lenses fitted to cutouts, as those of a network's training were: what they leave is one of its bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

from lenspipe.errors import ModelError
from lenspipe.image.resample import cubic_matrix
from lenspipe.nn.card import ModelCard
from lenspipe.nn.fitted import SmoothFit
from lenspipe.nn.point_mass import N_MAP, point_mass_maps
from lenspipe.nn.preprocess import resamples
from lenspipe.nn.sersic_image import CENTRE, NAMES
from lenspipe.nn.sersic_lens import Priors, SersicFit

BATCH = 16
"""Stamps that are fitted together; the last are filled up, so that a fit does not depend on what it is made with."""
CENTRE_PX = 0.5
"""Least width of the prior of where a lens lies, in pixels: a stamp is cut around a whole one."""
REACH = 0.4
"""How far from the middle of a cutout the lens galaxy is looked for, over the Einstein radius that is expected: arcs
pull the centroid of a source."""
NO_DATA = 1e15
"""Noise of a pixel that is not there, in units of the sky's."""
BAD_PART = 0.1
"""Part of the weight of a resampled pixel that may come from pixels that are not there."""
MOST_KEPT = 32
"""Fits that are kept ready, by pixel scale and PSF."""
Images = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Cutouts on a network's pixels, with what their smooth lenses leave."""

    stamps_njy: Images
    """``(n, band, y, x)`` in the order of `bands`; 0 in the residual of a stamp that has no fit."""
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    values: Images
    """``(n, parameter)`` in the order of `lenspipe.nn.sersic_image.NAMES`; lengths from the middle of the stamp."""
    chi2: NDArray[np.float64]
    """Mean square left ``(n,)``, in units of the noise; NaN where the fit is not finite."""

    def value(self, name: str) -> Images:
        """One parameter ``(n,)``."""
        return self.values[:, NAMES.index(name)]


class _Grid(NamedTuple):
    """Cutouts on the pixels that are fitted."""

    stamps_njy: Images
    """``(n, band, y, x)``"""
    bad: NDArray[np.bool_]
    """``(n, y, x)``: there are no data in the fitted band."""
    noise: Images
    """Noise of a pixel ``(y, x)`` over that of the data's."""
    area: float
    """Of a pixel, over that of the data's."""
    pixel_scale_arcsec: float
    shift_px: float
    """Of the middle pixel of the cutouts from the middle of the stamps."""


def priors_of_fit(fit: SmoothFit) -> Priors:
    """
    Priors as a card keeps them.

    Raises
    ------
    ModelError
        The card was written for other parameters than there are.
    """
    if set(fit.priors) != set(NAMES):
        raise ModelError(
            "the model's fits have other parameters than those of this version: fit its stamps and train it again",
            differ=",".join(sorted(set(fit.priors) ^ set(NAMES))),
        )
    mean, width = (torch.tensor([fit.priors[name][k] for name in NAMES], dtype=torch.float32) for k in (0, 1))
    return Priors(mean, width, fit.light)


def anywhere_in_a_pixel(priors: Priors, pixel_scale_arcsec: float, *, shift_px: float = 0.0) -> Priors:
    """Priors of lenses of stamps that are cut around whole pixels, whose middle lies by ``shift_px`` from them."""
    mean, width = priors.mean.clone(), priors.width.clone()
    mean[CENTRE] += shift_px * pixel_scale_arcsec
    width[CENTRE] = width[CENTRE].clamp(min=CENTRE_PX * pixel_scale_arcsec)
    return Priors(mean, width, priors.light)


class LensFitter:
    """
    Fits smooth lenses to cutouts of any pixel scale that a card takes, many at a time, on the CPU.

    A lens that shines is cut out again around the brightest pixel near the middle. Pixels are taken as they are within
    the card's tolerance, an even stamp half a pixel off; else they are resampled, with their noise. Where the lens lies
    in its pixel is fitted, too.

    Parameters
    ----------
    card : ModelCard
        With `fitted`.

    Raises
    ------
    ModelError
        As of `priors_of_fit`; later, stamps that would be resampled for a map of point masses.
    """

    def __init__(self, card: ModelCard) -> None:
        assert card.fitted is not None
        self.card, self.fit = card, card.fitted
        self.bands = (*card.data_bands, *self.fit.made)
        self._fits: dict[tuple[float, float, float], SersicFit] = {}
        priors_of_fit(self.fit)

    def __call__(
        self,
        cutouts_njy: Images,
        *,
        bands: Sequence[str],
        pixel_scale_arcsec: float,
        fwhm_arcsec: float,
        sky_rms_njy: float,
        njy_per_electron: float = 0.0,
    ) -> Fitted:
        """
        Fit cutouts ``(n, band, y, x)``, exactly 0 where there are no data.

        Parameters
        ----------
        cutouts_njy : array
            As wide as card and fits need, and by `reach_px` more on each side.
        bands : sequence of str
            Names along the band axis.
        pixel_scale_arcsec : float
        fwhm_arcsec : float
            Of the Gaussian PSF, without the pixel's own width.
        sky_rms_njy : float
            Noise of a pixel of empty sky in the fitted band.
        njy_per_electron : float
            For the noise of photons; 0: the sky's alone.
        """
        if resamples(self.card, pixel_scale_arcsec):
            if self.fit.point_masses:
                raise ModelError(
                    "a map of point masses is not made of resampled stamps, whose noise is correlated",
                    model=self.card.name,
                    got_arcsec=pixel_scale_arcsec,
                    want_arcsec=self.card.pixel_scale_arcsec,
                )
            # pixels of the data are in the PSF of what is resampled, and those of the card are not yet
            own = self.card.pixel_scale_arcsec
            fwhm_arcsec = without_pixel(with_pixel(fwhm_arcsec, pixel_scale_arcsec), own)
        chosen = cutouts_njy[:, [list(bands).index(band) for band in self.card.data_bands]]
        own_band = self.card.data_bands.index(self.fit.band)
        if self.fit.light:
            chosen = around_peaks(chosen, own_band, reach_px(self.fit, pixel_scale_arcsec))
        grid = self._on_grid(chosen, chosen[:, own_band] == 0, pixel_scale_arcsec)
        one, scale = np.ascontiguousarray(grid.stamps_njy[:, own_band]), grid.pixel_scale_arcsec
        bright = brightness(torch.from_numpy(one), torch.from_numpy(grid.bad)).numpy()
        sigma = np.sqrt(sky_rms_njy**2 + njy_per_electron * bright / grid.area) * grid.noise
        sigma[grid.bad] = NO_DATA * sky_rms_njy
        solve = self._solver(scale, fwhm_arcsec, grid.shift_px)
        values, made = _in_batches(solve, one, sigma.astype(np.float32), masses=self.fit.point_masses)
        counted = (solve.fine.kept.numpy() > 0) & ~grid.bad
        with np.errstate(all="ignore"):
            chi2 = np.square(made[:, 0], dtype=np.float64).sum(axis=(1, 2)) / counted.sum(axis=(1, 2))
        ok = np.isfinite(chi2) & np.isfinite(values).all(axis=1) & np.isfinite(made).all(axis=(1, 2, 3))
        made = np.where(ok[:, None, None, None] & ~grid.bad[:, None], made, 0).astype(np.float32)
        # what is made is in units of the noise, whatever the pixels: as bright as on those of the training
        made *= np.float32((scale / self.fit.pixel_scale_arcsec) ** 2)
        shown = np.concatenate([grid.stamps_njy, made], axis=1)
        return Fitted(shown, self.bands, scale, values, np.where(ok, chi2, np.nan))

    def _on_grid(self, cutouts: Images, missing: NDArray[np.bool_], scale: float) -> _Grid:
        size, side = self.fit.size_px, cutouts.shape[-1]
        if not resamples(self.card, scale):
            edge = (side - size) // 2
            inner = np.s_[..., edge : edge + size, edge : edge + size]
            one = np.ones((size, size), np.float32)
            return _Grid(cutouts[inner].astype(np.float32), missing[inner], one, 1.0, scale, (side - size) / 2 - edge)
        own = self.card.pixel_scale_arcsec
        matrix, area = cubic_matrix(side, scale, size, own), (own / scale) ** 2
        stamps = np.matmul(np.matmul(matrix, cutouts), matrix.T) * np.float32(area)
        share, spread = np.abs(matrix), np.square(matrix).sum(axis=1)
        bad = np.matmul(np.matmul(share, missing.astype(np.float32)), share.T) > BAD_PART
        noise = np.sqrt(np.outer(spread, spread)).astype(np.float32) * np.float32(area)
        return _Grid(stamps.astype(np.float32), bad, noise, area, own, 0.0)

    def _solver(self, scale: float, fwhm: float, shift_px: float) -> SersicFit:
        key = (scale, fwhm, shift_px)
        if key not in self._fits:
            if len(self._fits) >= MOST_KEPT:
                self._fits.clear()
            priors = anywhere_in_a_pixel(priors_of_fit(self.fit), scale, shift_px=shift_px)
            self._fits[key] = SersicFit.of(
                self.fit.size_px,
                scale,
                fwhm,
                priors,
                finer=self.fit.finer,
                clumps=self.fit.clumps,
                rounds=self.fit.rounds,
                lit_beyond=True,
            )
        return self._fits[key]


def brightness(stamps: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
    """Mean of the pixels ``(n, y, x)`` that there are among each one's 3 x 3, from 0 on: what its photons are of."""
    good = (~bad).float()
    total, known = (avg_pool2d(one[:, None], 3, 1, 1, count_include_pad=False)[:, 0] for one in (stamps * good, good))
    return (total / known.clamp(min=0.1)).clamp(min=0)


def reach_px(fit: SmoothFit, pixel_scale_arcsec: float) -> int:
    """How far from the middle of a cutout the lens galaxy is looked for, in its pixels; 0 where it does not shine."""
    return int(np.ceil(REACH * fit.priors["theta_e_arcsec"][0] / pixel_scale_arcsec)) if fit.light else 0


def around_peaks(cutouts: Images, band: int, reach: int) -> Images:
    """
    Cutouts ``(n, band, y, x)`` around the brightest pixel within ``reach`` of the middle, by so much narrower.

    Brightest in the mean over 3 x 3 pixels of the band with that number.
    """
    side = cutouts.shape[-1]
    middle, n = side // 2, side - 2 * reach
    smooth = avg_pool2d(torch.from_numpy(np.ascontiguousarray(cutouts[:, band])[:, None]), 3, 1, 1)[:, 0].numpy()
    axis = np.arange(-reach, reach + 1)
    near = np.hypot(axis, axis[:, None]) <= reach
    box = slice(middle - reach, middle + reach + 1)
    at = np.where(near, smooth[:, box, box], -np.inf).reshape(len(cutouts), -1).argmax(axis=1)
    found = [cutout[:, y : y + n, x : x + n] for cutout, y, x in zip(cutouts, *divmod(at, len(axis)), strict=True)]
    return np.stack(found) if found else cutouts[:, :, :n, :n]


def _in_batches(solve: SersicFit, stamps: Images, sigma: Images, *, masses: bool) -> tuple[Images, Images]:
    """Values ``(n, parameter)`` and the bands that are made ``(n, band, y, x)``; every batch has one size."""
    values = np.empty((len(stamps), len(NAMES)), np.float32)
    made = np.empty((len(stamps), 1 + masses * N_MAP, *stamps.shape[1:]), np.float32)
    for start in range(0, len(stamps), BATCH):
        rows = np.minimum(np.arange(start, start + BATCH), len(stamps) - 1)
        some, noise = torch.from_numpy(stamps[rows]), torch.from_numpy(sigma[rows])
        own = slice(start, start + BATCH)
        n = len(values[own])
        with torch.inference_mode():
            found, left = solve(some, noise)
            values[own], made[own, 0] = found[:n, : len(NAMES)].numpy(), left[:n].numpy()
            if masses:
                made[own, 1:] = point_mass_maps(solve, some, noise, found)[:n].numpy()
    return values, made


def with_pixel(fwhm_arcsec: float, pixel_scale_arcsec: float) -> float:
    """FWHM of the images of a PSF, which pixels have averaged: what `without_pixel` takes off, put back."""
    return float(np.sqrt(fwhm_arcsec**2 + 8 * np.log(2) / 12 * pixel_scale_arcsec**2))


def without_pixel(fwhm_arcsec: float, pixel_scale_arcsec: float) -> float:
    """
    FWHM of a PSF before pixels average it, from that of its images; at least half a pixel.

    As of Gaussians: the variance of a pixel, a twelfth of its side squared, is taken off.

    Examples
    --------
    >>> round(without_pixel(0.7, 0.2), 4)
    0.6867
    """
    own = 8 * np.log(2) / 12 * pixel_scale_arcsec**2
    return float(np.sqrt(max(fwhm_arcsec**2 - own, (0.5 * pixel_scale_arcsec) ** 2)))
