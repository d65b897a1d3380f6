"""Galaxies and stars of known brightness: early types, spirals, rings, mergers, satellites, groups, stars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lenspipe.simulate.galaxies import Ring, SpiralArms, draw_field_galaxy, draw_star_njy
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.negatives.contract import Bands, Place, Sky, non_lens
from lenspipe.simulate.photometry import COLOURS, band_fluxes_njy, early_type_colours
from lenspipe.simulate.population import (
    SourcePopulation,
    deflector_light,
    draw_axis_ratio,
    draw_colours,
    draw_deflector,
    draw_magnitude,
    draw_redshift,
)


@non_lens("around")
def early_type(rng: np.random.Generator, place: Place) -> Sky:
    """A galaxy of the population that lenses, without a source behind it; or the real one that is there already."""
    if place.galaxy is not None:
        real = place.galaxy()
        return Sky(facts={"z_lens": real.z, "lens_mag_r": real.mag_r})
    drawn = draw_deflector(rng, place.deflectors, (1.0, 3.5))
    light, facts = deflector_light(rng, place.bands, drawn)
    shape = {name: drawn[name] for name in ("velocity_dispersion_km_s", "axis_ratio", "angle_rad")}
    return Sky(light, facts=facts | {"z_lens": drawn["z_lens"], **shape})


@non_lens("alone")
def spiral(rng: np.random.Generator, place: Place) -> Sky:
    """A red bulge with blue arms, often nearly face-on: arms at arc-like radii."""
    z, mag = rng.uniform(0.08, 0.45), draw_magnitude(rng, 17.8, 21.5, 0.3)
    old, young = early_type_colours(z), _young_colours(rng, z)
    scale, q, angle = rng.uniform(0.6, 1.8), rng.uniform(0.35, 1.0), rng.uniform(0, np.pi)
    bulge, arms = rng.uniform(0.15, 0.55), rng.uniform(0.4, 0.75)
    shape = SpiralArms(
        scale_arcsec=scale,
        n_arm=int(rng.choice([2, 2, 3, 4])),
        pitch_rad=rng.uniform(0.2, 0.6),
        contrast=rng.uniform(1.5, 6.0),
        axis_ratio=q,
        angle_rad=angle,
        phase_rad=rng.uniform(0, 2 * np.pi),
    )
    disc = Sersic(radius_arcsec=1.678 * scale * np.sqrt(q), n=1.0, axis_ratio=q, angle_rad=angle)
    core = Sersic(radius_arcsec=rng.uniform(0.2, 0.5), n=rng.uniform(1.5, 4), axis_ratio=max(q, 0.7), angle_rad=angle)
    mixed = {name: 0.5 * (old[name] + young[name]) for name in COLOURS}
    return Sky(
        [
            Component(core, band_fluxes_njy(mag, old, place.bands) * bulge),
            Component(disc, band_fluxes_njy(mag, mixed, place.bands) * (1 - bulge) * (1 - arms)),
            Component(shape, band_fluxes_njy(mag, young, place.bands) * (1 - bulge) * arms),
        ]
    )


@non_lens("around")
def ring(rng: np.random.Generator, place: Place) -> Sky:
    """A blue ring around a red core: ring galaxies are the hardest false positives of the Bologna challenge."""
    sky = early_type(rng, place)
    z, q = sky.facts["z_lens"], rng.uniform(0.45, 1.0)
    share = rng.uniform(0.08, 0.6)
    width = rng.uniform(0.12, 0.5)
    shape = Ring(radius_arcsec=rng.uniform(1.0, 3.0), width_arcsec=width, axis_ratio=q, angle_rad=rng.uniform(0, np.pi))
    flux = band_fluxes_njy(sky.facts["lens_mag_r"], _young_colours(rng, z), place.bands)
    sky.galaxies.append(Component(shape, flux * share))
    for _ in range(int(rng.integers(0, 6))):  # star-forming knots on the ring
        turn = rng.uniform(0, 2 * np.pi)
        along, across = shape.radius_arcsec * np.cos(turn), shape.radius_arcsec * np.sin(turn) * q
        cos, sin = np.cos(shape.angle_rad), np.sin(shape.angle_rad)
        knot = Sersic(
            radius_arcsec=0.5 * width, x_arcsec=cos * along - sin * across, y_arcsec=sin * along + cos * across
        )
        sky.galaxies.append(Component(knot, flux * share * rng.uniform(0.03, 0.15)))
    return sky


@non_lens("around")
def merger(rng: np.random.Generator, place: Place) -> Sky:
    """Two galaxies and tidal tails, arc-like segments in the colours of one of them."""
    sky = early_type(rng, place)
    z, mag = sky.facts["z_lens"], sky.facts["lens_mag_r"]
    r, turn = rng.uniform(0.8, 3.0), rng.uniform(0, 2 * np.pi)
    partner = Sersic(
        radius_arcsec=rng.uniform(0.3, 1.0),
        n=rng.uniform(1, 4),
        axis_ratio=draw_axis_ratio(rng, (0.7, 0.15)),
        angle_rad=rng.uniform(0, np.pi),
        x_arcsec=r * np.cos(turn),
        y_arcsec=r * np.sin(turn),
    )
    colours = _mix(early_type_colours(z), _young_colours(rng, z), rng.uniform(0, 1))
    flux = band_fluxes_njy(mag + rng.uniform(0.3, 2.0), colours, place.bands)
    sky.galaxies.append(Component(partner, flux))
    for _ in range(int(rng.integers(1, 3))):
        tail = Ring(
            radius_arcsec=rng.uniform(1.5, 4.0),
            width_arcsec=rng.uniform(0.2, 0.5),
            axis_ratio=rng.uniform(0.6, 1.0),
            angle_rad=rng.uniform(-np.pi, np.pi),
            extent_rad=rng.uniform(0.3, 0.9),
        )
        sky.galaxies.append(Component(tail, flux * rng.uniform(0.05, 0.3)))
    return sky


@non_lens("around")
def satellites(rng: np.random.Generator, place: Place) -> Sky:
    """One to four small neighbours at arc-like radii, each of its own colour; some are edge-on and tangential."""
    sky = early_type(rng, place)
    population = SourcePopulation()
    for _ in range(int(rng.integers(1, 5))):
        r, turn = rng.uniform(0.9, 3.2), rng.uniform(0, 2 * np.pi)
        z = draw_redshift(rng, 0.3, 2.5)
        colours = draw_colours(rng, population, z, bool(rng.uniform() < 0.35))
        tangential = rng.uniform() < 0.4
        shape = Sersic(
            radius_arcsec=rng.uniform(0.12, 0.5),
            n=rng.uniform(0.6, 2),
            axis_ratio=rng.uniform(0.2, 0.45) if tangential else rng.uniform(0.4, 1.0),
            angle_rad=turn + np.pi / 2 if tangential else rng.uniform(0, np.pi),
            x_arcsec=r * np.cos(turn),
            y_arcsec=r * np.sin(turn),
        )
        sky.galaxies.append(
            Component(shape, band_fluxes_njy(draw_magnitude(rng, 20.5, 24.0, 0.3), colours, place.bands))
        )
    return sky


@non_lens("around")
def group(rng: np.random.Generator, place: Place) -> Sky:
    """The centre of a group: two to five more red galaxies of the same redshift, and its blue members."""
    sky = early_type(rng, place)
    z, mag = sky.facts["z_lens"], sky.facts["lens_mag_r"]
    for _ in range(int(rng.integers(2, 6))):
        r, turn = rng.uniform(1.2, 8.0), rng.uniform(0, 2 * np.pi)
        red = rng.uniform() < 0.8
        colours = {name: value + rng.normal(0, 0.05) for name, value in early_type_colours(z).items()}
        shape = Sersic(
            radius_arcsec=rng.uniform(0.25, 0.8),
            n=rng.uniform(2, 4.5) if red else 1.0,
            axis_ratio=draw_axis_ratio(rng, (0.75, 0.15)),
            angle_rad=rng.uniform(0, np.pi),
            x_arcsec=r * np.cos(turn),
            y_arcsec=r * np.sin(turn),
        )
        flux = band_fluxes_njy(mag + rng.uniform(0.5, 3.0), colours if red else _young_colours(rng, z), place.bands)
        sky.galaxies.append(Component(shape, flux))
    return sky


@non_lens("alone")
def star(rng: np.random.Generator, place: Place) -> Sky:
    """A star, sometimes with a second one close by."""
    sky = Sky(stars=[(0.0, 0.0, draw_star_njy(rng, place.bands, mag_r=(16.0, 21.0)))])
    if rng.uniform() < 0.3:
        r, turn = rng.uniform(0.7, 3.0), rng.uniform(0, 2 * np.pi)
        sky.stars.append((r * np.cos(turn), r * np.sin(turn), draw_star_njy(rng, place.bands, mag_r=(17.0, 22.0))))
    return sky


def field_galaxies(
    rng: np.random.Generator, bands: Bands, *, density_arcmin2: float, half_width_arcsec: float, clear_arcsec: float
) -> list[Component]:
    """Galaxies of the field in a square around the centre, Poisson, none nearer to it than ``clear_arcsec``."""
    found: list[Component] = []
    for _ in range(int(rng.poisson(density_arcmin2 * (2 * half_width_arcsec / 60) ** 2))):
        x, y = rng.uniform(-half_width_arcsec, half_width_arcsec, 2)
        light = draw_field_galaxy(rng, bands, mag_r=(19.5, 25.0))
        if np.hypot(x, y) > clear_arcsec:
            found += [
                Component(replace(c.profile, x_arcsec=float(x), y_arcsec=float(y)), c.flux_njy)  # type: ignore[type-var]
                for c in light
            ]
    return found


def _young_colours(rng: np.random.Generator, z: float) -> dict[str, float]:
    old, youth = early_type_colours(z), rng.uniform(0.4, 0.8)
    return {name: value * (1 - youth) + rng.normal(0, 0.1) for name, value in old.items()}


def _mix(a: dict[str, float], b: dict[str, float], share: float) -> dict[str, float]:
    return {name: (1 - share) * a[name] + share * b[name] for name in COLOURS}
