"""
Non-lenses made of images of real galaxies, irregular as no profile is: alone, and beside an early type.

A galaxy stands for others of all magnitudes, at the size that these have: its own PSF and noise grow with it. Where
that makes them wider than the stamp's, it looks softer and more mottled than a galaxy would.
"""

from __future__ import annotations

import numpy as np

from lenspipe.simulate.galaxies import field_size_and_redshift
from lenspipe.simulate.light import Component, GalaxyImage
from lenspipe.simulate.negatives.contract import Bands, Place, Sky, non_lens
from lenspipe.simulate.negatives.galaxies import early_type
from lenspipe.simulate.photometry import band_fluxes_njy, early_type_colours
from lenspipe.simulate.population import SourceImage, half_light_radius_px

MAG_R_ALONE = (19.0, 26.0)
MAG_R_BESIDE = (20.5, 25.0)


@non_lens("alone", of_images=True)
def galaxy_image(rng: np.random.Generator, place: Place) -> Sky:
    """One real galaxy at the centre; r = 19 to 26, all magnitudes alike, as the faint ones are the most irregular."""
    image = place.images[int(rng.integers(len(place.images)))]
    light = _placed(rng, place.bands, image, float(rng.uniform(*MAG_R_ALONE)), 0.0, 0.0)
    return Sky([light], facts={"galaxy_image": image.name})


@non_lens("around", of_images=True)
def satellite_images(rng: np.random.Generator, place: Place) -> Sky:
    """An early type with one to three real galaxies at arc-like radii."""
    sky, names = early_type(rng, place), []
    for _ in range(int(rng.integers(1, 4))):
        image = place.images[int(rng.integers(len(place.images)))]
        names.append(image.name)
        r, turn = rng.uniform(0.9, 3.2), rng.uniform(0, 2 * np.pi)
        mag = float(rng.uniform(*MAG_R_BESIDE))
        sky.galaxies.append(_placed(rng, place.bands, image, mag, r * np.cos(turn), r * np.sin(turn)))
    sky.facts["galaxy_image"] = ",".join(names)
    return sky


def _placed(
    rng: np.random.Generator, bands: Bands, image: SourceImage, mag_r: float, x_arcsec: float, y_arcsec: float
) -> Component:
    radius, z = field_size_and_redshift(rng, mag_r)
    radius = min(radius, 3.0)
    youth = rng.uniform(0.35, 0.75)
    colours = {name: value * (1 - youth) + rng.normal(0, 0.08) for name, value in early_type_colours(z).items()}
    profile = GalaxyImage(
        pixels=image.pixels,
        pixel_scale_arcsec=radius / half_light_radius_px(image.pixels),
        angle_rad=float(rng.uniform(0, 2 * np.pi)),
        x_arcsec=x_arcsec,
        y_arcsec=y_arcsec,
    )
    return Component(profile, band_fluxes_njy(mag_r, colours, bands))
