"""One simulated lens with everything that another tool is told of it: pixels, noise, PSF and the model behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.rundir import atomic_path
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.stamp import draw_stamp
from lenspipe.simulate.unlensed import draw_unlensed

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Light:
    """A Sersic profile in one band."""

    profile: Sersic
    flux_njy: float
    """Its total flux."""

    @property
    def brightness_njy(self) -> float:
        """Surface brightness at the half-light radius, nJy / arcsec^2."""
        p, along = self.profile, 1 / np.sqrt(self.profile.axis_ratio)
        x = p.x_arcsec + p.radius_arcsec * along * np.cos(p.angle_rad)
        y = p.y_arcsec + p.radius_arcsec * along * np.sin(p.angle_rad)
        return self.flux_njy * float(p.brightness(np.array([x]), np.array([y]))[0])


@dataclass(frozen=True, eq=False)
class Scene:
    """A lens in all bands; positions are arcsec from the centre of the image, +x along columns, +y along rows."""

    name: str
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    supersampling: int
    """Points per pixel and axis that the light was drawn on."""
    image_njy: NDArray[np.float32]
    """``(band, y, x)``."""
    noise_njy: NDArray[np.float32]
    """Standard deviation of each pixel: of the sky, and of the photons of the noise-free image."""
    psf: tuple[Array, ...]
    """Of each band, ``psf_sampling`` times finer than the pixels, of unit sum."""
    psf_sampling: int
    lens: MacroLens
    source: tuple[Component, ...]
    galaxies: tuple[Component, ...]
    """What is not lensed: the lens galaxy, and those around it."""
    z_lens: float
    z_source: float
    facts: dict[str, Any]
    """All true parameters that the simulation keeps."""

    def lights(self, components: Sequence[Component], band: int) -> list[Light]:
        """Components in a band."""
        return [Light(_sersic(c), float(c.flux_njy[band])) for c in components]


def draw_scenes(recipe: Recipe, *, seed: int, count: int) -> Iterator[Scene]:
    """
    The first ``count`` smooth lenses of a recipe and a seed, without artefacts.

    Raises
    ------
    ConfigError
        The recipe has no smooth lenses whose model is known, or several images.
    """
    kind = "lens" if recipe.kind == "finder" else "no_substructure"
    if recipe.published is not None or not recipe.classes.get(kind):
        raise ConfigError(
            "other tools are told of smooth lenses: choose a recipe with the class lens or no_substructure, and "
            "without a table [published]",
            recipe=recipe.name,
        )
    if len(recipe.image) > 1:
        raise ConfigError("other tools are told of recipes with one image", recipe=recipe.name)
    alone = recipe.model_copy(update={"classes": {kind: 1.0}, "artefact_fraction": 0.0})
    for item in range(count):
        yield _scene(alone, seed, item)


def _scene(recipe: Recipe, seed: int, item: int) -> Scene:
    stamp = draw_stamp(recipe, seed=seed, item=item)
    lensed, conditions, image = stamp.lensed, stamp.conditions, recipe.image[0]
    assert lensed is not None and conditions is not None
    (lens,) = lensed.deflectors
    assert isinstance(lens, MacroLens)
    view = conditions.view(image, slice(None))
    model = lensed.arcs.image + draw_unlensed(lensed.sky, view)
    gain = conditions.njy_per_electron[:, None, None]
    variance = conditions.sky_rms_njy[:, None, None] ** 2 + model.clip(0) * gain
    return Scene(
        name=f"lens-{item:05d}",
        bands=image.bands,
        pixel_scale_arcsec=image.pixel_scale_arcsec,
        supersampling=image.supersampling,
        image_njy=stamp.images[image.name],
        noise_njy=np.sqrt(variance).astype(np.float32),
        psf=tuple(view.kernels),
        psf_sampling=image.psf_sampling,
        lens=lens,
        source=lensed.arcs.components,
        galaxies=tuple(lensed.sky.galaxies),
        z_lens=float(stamp.facts["z_lens"]),
        z_source=float(stamp.facts["z_source"]),
        facts=stamp.facts,
    )


def write_image(path: Path, pixels: NDArray[np.floating], scale_arcsec: float, unit: str) -> None:
    """A FITS image with its pixel scale and unit; the first row is the lowest, as FITS has it."""
    hdu = fits.PrimaryHDU(np.ascontiguousarray(pixels, np.float32))
    hdu.header["PIXSCALE"] = (scale_arcsec, "arcsec")
    if unit:
        hdu.header["BUNIT"] = unit
    with atomic_path(path) as partial, partial.open("wb") as stream:
        hdu.writeto(stream)


def write_pixels(scene: Scene, band: int, names: tuple[str, str, str], folder: Path) -> None:
    """Image and noise map, nJy, and PSF of a band as FITS files."""
    image, noise, psf = names
    scale = scene.pixel_scale_arcsec
    write_image(folder / image, scene.image_njy[band], scale, "nJy")
    write_image(folder / noise, scene.noise_njy[band], scale, "nJy")
    write_image(folder / psf, scene.psf[band], scale / scene.psf_sampling, "")


def _sersic(component: Component) -> Sersic:
    if not isinstance(component.profile, Sersic):
        raise ConfigError("only Sersic profiles have a form in other tools", got=type(component.profile).__name__)
    return component.profile
