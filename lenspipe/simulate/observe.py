"""A drawn sky as an instrument sees it: every pixel grid of a recipe, with PSF, noise and artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.artefacts import add_artefact
from lenspipe.simulate.instrument import add_noise, gaussian_kernel, moffat_kernel, moffat_star, sky_rms_of_depth_njy
from lenspipe.simulate.light import Component
from lenspipe.simulate.negatives import Sky
from lenspipe.simulate.recipe import ImageTable, Recipe, SurveyTable
from lenspipe.simulate.render import Deflector, Grid, add_stamp, convolve, paint_galaxy, render, shoot_rays


@dataclass(frozen=True)
class Conditions:
    """How one stamp was taken: values per band of the recipe, in order."""

    survey: SurveyTable
    """The survey."""
    seeing_fwhm_arcsec: NDArray[np.float64]
    """FWHM of the PSF."""
    sky_rms_njy: NDArray[np.float64]
    """Noise of a pixel from the sky and read-out."""
    njy_per_electron: NDArray[np.float64]
    """Flux of a photo-electron."""

    def kernels(self, image: ImageTable, bands: slice) -> list[NDArray[np.float64]]:
        """PSFs of the bands of an image on its finest sampling."""
        scale = image.pixel_scale_arcsec / image.psf_sampling
        if self.survey.psf == "gaussian":
            return [gaussian_kernel(float(f), scale) for f in self.seeing_fwhm_arcsec[bands]]
        return [moffat_kernel(float(f), scale, beta=self.survey.moffat_beta) for f in self.seeing_fwhm_arcsec[bands]]


def draw_conditions(rng: np.random.Generator, recipe: Recipe) -> Conditions:
    """Draw survey, seeing and depth of one stamp. Seeing varies in step in all bands, by half of its scatter."""
    weight = np.array([survey.weight for survey in recipe.survey])
    survey = recipe.survey[int(rng.choice(len(weight), p=weight / weight.sum()))]
    night = rng.normal()
    seeing, rms, gain = [], [], []
    for image in recipe.image:
        for band in image.bands:
            table = survey.band[band]
            mean, scatter = table.seeing_fwhm_arcsec
            deviation = np.sqrt(0.5) * (night + rng.normal())
            seeing.append(mean * np.exp(deviation * scatter / mean))
            depth = rng.normal(*table.depth_mag)
            rms.append(float(sky_rms_of_depth_njy(depth, image.pixel_scale_arcsec)))
            gain.append(table.njy_per_electron)
    return Conditions(survey, np.array(seeing), np.array(rms), np.array(gain))


def band_slices(recipe: Recipe) -> list[slice]:
    """Where the bands of each image lie among the bands of the recipe."""
    edges = np.cumsum([0, *(len(image.bands) for image in recipe.image)])
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def grid_of(image: ImageTable) -> Grid:
    """Pixels and rays of an image."""
    return Grid(image.size_px, image.pixel_scale_arcsec, image.supersampling)


def observe(
    sky: Sky,
    recipe: Recipe,
    conditions: Conditions,
    rng: np.random.Generator,
    *,
    deflectors: Sequence[Deflector] = (),
    source: Sequence[Component] = (),
    arcs_njy: NDArray[np.float64] | None = None,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float64]]:
    """
    All images of a recipe, noisy, and the noise-free model of the first.

    Parameters
    ----------
    sky : Sky
        What is not lensed.
    deflectors, source
        The lens and the source behind it, for the images after the first.
    arcs_njy : array ``(band, y, x)``, optional
        The lensed source in the first image, after the PSF.

    Returns
    -------
    images : dict of name to float32 array ``(band, y, x)``, nJy
    foreground : array ``(band, y, x)``
        The first image without arcs, PSF applied, noise-free.
    """
    images: dict[str, NDArray[np.float32]] = {}
    first = np.zeros(0)
    for k, (image, bands) in enumerate(zip(recipe.image, band_slices(recipe), strict=True)):
        model = _foreground(sky, image, bands, conditions)
        if k == 0:
            first = model
            model = model if arcs_njy is None else model + arcs_njy
        elif source:
            grid = grid_of(image)
            lensed = [Component(c.profile, c.flux_njy[bands]) for c in source]
            sharp = render(
                lensed, shoot_rays(deflectors, grid), grid, bands.stop - bands.start, sampling=image.psf_sampling
            )
            model = model + convolve(sharp, conditions.kernels(image, bands), sampling=image.psf_sampling)
        rms = conditions.sky_rms_njy[bands]
        noisy = add_noise(model, sky_rms_njy=rms, njy_per_electron=conditions.njy_per_electron[bands], rng=rng)
        if sky.artefact:
            add_artefact(sky.artefact, noisy, rng, rms)
        images[image.name] = noisy
    return images, first


def _foreground(sky: Sky, image: ImageTable, bands: slice, conditions: Conditions) -> NDArray[np.float64]:
    n_band, s = bands.stop - bands.start, image.psf_sampling
    scale = image.pixel_scale_arcsec / s
    sharp = np.zeros((n_band, image.size_px * s, image.size_px * s))
    middle = (image.size_px * s - 1) / 2
    faintest = 0.05 * conditions.sky_rms_njy[bands] / s**2
    for component in sky.galaxies:
        seen = Component(component.profile, component.flux_njy[bands])
        paint_galaxy(sharp, [seen], middle, middle, scale, faintest, supersampling=max(1, image.supersampling // s))
    exact = conditions.survey.psf == "moffat" and s == 1
    for x, y, flux in () if exact else sky.stars:
        _add_point(sharp, flux[bands], x / scale + middle, y / scale + middle)
    blurred = convolve(sharp, conditions.kernels(image, bands), sampling=s)
    for x, y, flux in sky.stars if exact else ():
        column, row = x / scale + middle, y / scale + middle
        for b, fwhm in enumerate(conditions.seeing_fwhm_arcsec[bands]):
            star = moffat_star(float(fwhm), scale, column, row, beta=conditions.survey.moffat_beta)
            add_stamp(blurred[b : b + 1], star[None] * flux[bands][b], round(column), round(row))
    return blurred


def _add_point(image: NDArray[np.float64], flux: NDArray[np.float64], x_px: float, y_px: float) -> None:
    """Flux of a point shared by its four nearest samples."""
    column, row = int(np.floor(x_px)), int(np.floor(y_px))
    share_x, share_y = x_px - column, y_px - row
    share = np.outer([1 - share_y, share_y], [1 - share_x, share_x])
    if 0 <= column < image.shape[2] - 1 and 0 <= row < image.shape[1] - 1:
        image[:, row : row + 2, column : column + 2] += flux[:, None, None] * share
