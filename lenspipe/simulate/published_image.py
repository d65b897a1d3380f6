"""A drawn lens of a published set as its instrument sees it, with and without noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.arcs import lensed_source
from lenspipe.simulate.negatives import Sky
from lenspipe.simulate.observe import Conditions, band_slices, draw_conditions, grid_of
from lenspipe.simulate.photometry import magnitude_of_njy
from lenspipe.simulate.published import PublishedLens, PublishedTable, draw_published, published_noise
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.render import Deflector, convolve
from lenspipe.simulate.unlensed import draw_unlensed


@dataclass(frozen=True, eq=False)
class PublishedScene:
    """A lens of a published set under the conditions of one exposure."""

    recipe: Recipe
    """Its recipe."""
    table: PublishedTable
    """The recipe's table."""
    lens: PublishedLens
    """What was drawn."""
    conditions: Conditions
    """PSF and noise."""

    def arcs_njy(self, deflectors: Sequence[Deflector]) -> NDArray[np.float64]:
        """The source behind deflectors, PSF applied, noise-free ``(band, y, x)``."""
        optics = self.conditions.optics(self.recipe)
        sharp = lensed_source([self.lens.source], deflectors, optics, grid_of(self.recipe.image[0]))
        return convolve(sharp, optics.kernels, sampling=optics.sampling)

    def light_njy(self) -> NDArray[np.float64]:
        """The lens galaxy, PSF applied, noise-free ``(band, y, x)``."""
        view = self.conditions.view(self.recipe.image[0], band_slices(self.recipe)[0])
        return draw_unlensed(Sky([self.lens.light] if self.lens.light else []), view)

    @property
    def njy_per_electron(self) -> NDArray[np.float64]:
        """Flux of a photo-electron by the noise that it makes: photons that are drawn twice have twice the variance."""
        return self.conditions.njy_per_electron * (2 if self.table.noise == "doubled" else 1)

    def variance(self, model_njy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance of the noise of each pixel, photons of the model included, nJy^2."""
        sky, gain = self.conditions.sky_rms_njy, self.njy_per_electron
        return sky[:, None, None] ** 2 + gain[:, None, None] * model_njy.clip(0)


def draw_scene(
    rng: np.random.Generator, recipe: Recipe, kind: str, conditions: Conditions, *, seed: int
) -> PublishedScene:
    """Draw exposure and lens of one stamp of a published recipe; ``seed`` is that of the run."""
    table = recipe.published
    assert table is not None
    exposure = float(np.exp(rng.uniform(*np.log(table.exposure))))
    counted = np.sqrt(exposure) if table.background == "counted" else 1.0
    conditions = replace(
        conditions,
        njy_per_electron=conditions.njy_per_electron / exposure,
        sky_rms_njy=conditions.sky_rms_njy / counted,
    )
    scale = recipe.image[0].pixel_scale_arcsec
    lens = draw_published(rng, table, kind, pixel_scale_arcsec=scale, bands=recipe.bands, seed=seed)
    return PublishedScene(recipe, table, lens, conditions)


def published_stamp(
    rng: np.random.Generator, recipe: Recipe, kind: str, *, seed: int
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Image ``(band, y, x)`` in nJy and true parameters of one stamp of a published recipe."""
    scene = draw_scene(rng, recipe, kind, draw_conditions(rng, recipe), seed=seed)
    conditions, lens = scene.conditions, scene.lens
    smooth = scene.arcs_njy([lens.smooth])
    arcs = smooth if lens.perturber is None else scene.arcs_njy(lens.deflectors)
    model = arcs + scene.light_njy()
    facts = dict(lens.facts)
    facts |= conditions.facts(recipe.bands)
    for band, gain in zip(recipe.bands, scene.njy_per_electron, strict=True):
        facts[f"njy_per_electron_{band}"] = None if scene.table.noise == "absent" else float(gain)
    facts |= {
        f"arc_mag_{band}": float(magnitude_of_njy(flux))
        for band, flux in zip(recipe.bands, arcs.clip(0).sum(axis=(1, 2)), strict=True)
    }
    rms = conditions.sky_rms_njy[:, None, None]
    facts["arc_snr"] = float(np.sqrt(np.sum((arcs / rms) ** 2)))
    facts["magnification"] = float(arcs[0].sum() / lens.source.flux_njy[0])
    if lens.perturber is not None:
        facts["perturbation_snr"] = float(np.sqrt(np.sum((arcs - smooth) ** 2 / scene.variance(model))))
    pixels = published_noise(
        model,
        scene.table.noise,
        sky_rms_njy=conditions.sky_rms_njy,
        njy_per_electron=conditions.njy_per_electron,
        rng=rng,
    )
    return pixels, facts
