"""A drawn sky as an instrument sees it: every pixel grid of a recipe, with PSF, noise and artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.arcs import Optics, lensed_source
from lenspipe.simulate.artefacts import add_artefact
from lenspipe.simulate.instrument import add_noise, gaussian_kernel, moffat_kernel, sky_rms_of_depth_njy
from lenspipe.simulate.light import Component
from lenspipe.simulate.negatives import Sky
from lenspipe.simulate.recipe import ImageTable, Recipe, SurveyTable
from lenspipe.simulate.render import Deflector, Grid, convolve
from lenspipe.simulate.unlensed import View, draw_unlensed


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

    def view(self, image: ImageTable, bands: slice) -> View:
        """Pixels of an image for what is not lensed."""
        moffat = (self.seeing_fwhm_arcsec[bands], self.survey.moffat_beta) if self.survey.psf == "moffat" else None
        return View(
            image.size_px,
            image.pixel_scale_arcsec,
            self.kernels(image, bands),
            self.sky_rms_njy[bands],
            image.supersampling,
            image.psf_sampling,
            moffat,
        )

    def facts(self, bands: Sequence[str]) -> dict[str, float]:
        """Columns of a stamp that say how it was taken, of the bands of the recipe."""
        told = {"seeing_{}_arcsec": self.seeing_fwhm_arcsec, "sky_rms_{}_njy": self.sky_rms_njy}
        told["njy_per_electron_{}"] = self.njy_per_electron
        return {
            name.format(band): float(value)
            for name, values in told.items()
            for band, value in zip(bands, values, strict=True)
        }

    def optics(self, recipe: Recipe, number: int = 0) -> Optics:
        """Pixels of an image of a recipe, the first unless another is asked for, for what is lensed."""
        image, bands = recipe.image[number], band_slices(recipe)[number]
        return Optics(
            recipe.bands if number == 0 else image.bands,
            image.pixel_scale_arcsec,
            self.kernels(image, bands),
            self.sky_rms_njy[bands],
            grid_of(image),
            image.psf_sampling,
        )


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
        model = draw_unlensed(sky, conditions.view(image, bands), bands)
        if k == 0:
            first = model
            model = model if arcs_njy is None else model + arcs_njy
        elif source:
            optics = conditions.optics(recipe, k)
            here = [Component(c.profile, c.flux_njy[bands]) for c in source]
            sharp = lensed_source(here, deflectors, optics, grid_of(image))
            model = model + convolve(sharp, optics.kernels, sampling=optics.sampling)
        rms = conditions.sky_rms_njy[bands]
        noisy = add_noise(model, sky_rms_njy=rms, njy_per_electron=conditions.njy_per_electron[bands], rng=rng)
        if sky.artefact:
            add_artefact(sky.artefact, noisy, rng, rms, pixel_scale_arcsec=image.pixel_scale_arcsec)
        images[image.name] = noisy
    return images, first
