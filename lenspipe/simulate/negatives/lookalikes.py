"""Look-alikes as bright against the noise as arcs are: companions, a ring, arms around the galaxy at the centre."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.galaxies import Ring, SpiralArms
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.negatives.contract import Bands, Place, Scaled, Sky, non_lens
from lenspipe.simulate.negatives.galaxies import early_type
from lenspipe.simulate.photometry import band_fluxes_njy
from lenspipe.simulate.population import SourcePopulation, draw_colours, draw_source

REDDER_DISC = {"g_r": 2.5 * np.log10(1 / 0.8), "r_i": 2.5 * np.log10(1.05)}
"""A disc beside its young arms: 0.8 of the flux in g and 1.05 in i."""


@non_lens("around")
def companions(rng: np.random.Generator, place: Place) -> Sky:
    """One to four unlensed neighbours at arc-like radii, each of its own colour and direction."""
    sky = early_type(rng, place)
    population = SourcePopulation(red_fraction=0.35)
    for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.4, 0.3, 0.2, 0.1]))):
        r, turn = rng.uniform(0.9, 5.0), rng.uniform(0, 2 * np.pi)
        source = draw_source(rng, population, place.bands, x_arcsec=r * np.cos(turn), y_arcsec=r * np.sin(turn))
        size = 10 ** rng.uniform(0.0, 0.5)
        grown = [_grown(component, size) for component in source.components]
        sky.scaled.append(Scaled(grown, 10 ** rng.uniform(1.1, 2.0)))
    return sky


@non_lens("around")
def young_ring(rng: np.random.Generator, place: Place) -> Sky:
    """A ring of young stars, wide or inclined enough to differ from an Einstein ring."""
    sky = early_type(rng, place)
    radius = rng.uniform(1.2, 4.5)
    shape = Ring(
        radius_arcsec=radius,
        width_arcsec=radius * rng.uniform(0.2, 0.45),
        axis_ratio=rng.uniform(0.35, 0.95),
        angle_rad=rng.uniform(0, np.pi),
    )
    flux = band_fluxes_njy(0.0, _disc_colours(rng), place.bands)
    sky.scaled.append(Scaled([Component(shape, flux)], 10 ** rng.uniform(1.3, 2.2)))
    return sky


@non_lens("around")
def spiral_disc(rng: np.random.Generator, place: Place) -> Sky:
    """A disc with spiral arms whose bulge is the galaxy at the centre, at any inclination up to 70 degrees."""
    sky = early_type(rng, place)
    radius, q, angle = rng.uniform(0.8, 2.5), rng.uniform(0.35, 1.0), rng.uniform(0, np.pi)
    arms = SpiralArms(
        n_arm=int(rng.choice([2, 3, 4], p=[0.7, 0.15, 0.15])),
        scale_arcsec=radius,
        pitch_rad=float(rng.choice([-1, 1]) * np.radians(rng.uniform(10, 35))),
        contrast=rng.uniform(1, 5),
        axis_ratio=q,
        angle_rad=angle,
        phase_rad=rng.uniform(0, 2 * np.pi),
    )
    disc = Sersic(radius_arcsec=1.7 * radius, axis_ratio=q, angle_rad=angle)
    colours = _disc_colours(rng)
    parts = [
        Component(arms, band_fluxes_njy(0.0, colours, place.bands)),
        Component(disc, _redder(colours, place.bands) * rng.uniform(0.0, 1.0)),
    ]
    sky.scaled.append(Scaled(parts, 10 ** rng.uniform(1.4, 2.4)))
    return sky


def _disc_colours(rng: np.random.Generator) -> dict[str, float]:
    colours = draw_colours(rng, SourcePopulation(), 1.0, red=bool(rng.uniform() < 0.3))
    return colours | {"g_r": colours["g_r"] + rng.normal(0.1, 0.15)}


def _redder(colours: dict[str, float], bands: Bands) -> NDArray[np.float64]:
    return band_fluxes_njy(0.0, colours | {name: colours[name] + more for name, more in REDDER_DISC.items()}, bands)


def _grown(component: Component, factor: float) -> Component:
    profile = component.profile
    if isinstance(profile, Sersic):
        profile = replace(profile, radius_arcsec=profile.radius_arcsec * factor)
    return Component(profile, component.flux_njy)
