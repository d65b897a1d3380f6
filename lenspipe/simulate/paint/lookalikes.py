"""What is not a lens and looks like one: painted on hosts, or done to their pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.galaxies import Ring, SpiralArms
from lenspipe.simulate.instrument import kernels_of
from lenspipe.simulate.light import Component, Profile, Sersic
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.photometry import njy_of_magnitude
from lenspipe.simulate.population import SourcePopulation, draw_colours, draw_source
from lenspipe.simulate.render import Grid, convolve, render

Array = NDArray[np.float64]
BANDS = ("g", "r", "i")


def paint_companions(host: Host, rng: np.random.Generator) -> NDArray[np.float32]:
    """Host with one to four unlensed neighbours at arc-like radii, each of its own colour and direction."""
    population = SourcePopulation(red_fraction=0.35)
    parts = []
    for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.4, 0.3, 0.2, 0.1]))):
        r, turn = rng.uniform(0.9, 5.0), rng.uniform(0, 2 * np.pi)
        source = draw_source(rng, population, BANDS, x_arcsec=r * np.cos(turn), y_arcsec=r * np.sin(turn))
        size = 10 ** rng.uniform(0.0, 0.5)
        grown = [_grown(component, size) for component in source.components]
        parts.append((grown, 10 ** rng.uniform(1.1, 2.0)))
    return _paint(host, parts)


def paint_ring(host: Host, rng: np.random.Generator) -> NDArray[np.float32]:
    """Host with a ring of young stars around it; wide or inclined enough to differ from an Einstein ring."""
    radius = rng.uniform(1.2, 4.5)
    ring = Ring(
        radius_arcsec=radius,
        width_arcsec=radius * rng.uniform(0.2, 0.45),
        axis_ratio=rng.uniform(0.35, 0.95),
        angle_rad=rng.uniform(0, np.pi),
    )
    return _paint(host, [([Component(ring, _disc_flux(rng))], 10 ** rng.uniform(1.3, 2.2))])


def paint_spiral(host: Host, rng: np.random.Generator) -> NDArray[np.float32]:
    """Host as the bulge of a disc with spiral arms, seen at any inclination up to 70 degrees."""
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
    flux = _disc_flux(rng)
    parts = [Component(arms, flux), Component(disc, flux * rng.uniform(0.0, 1.0) * np.array([0.8, 1.0, 1.05]))]
    return _paint(host, [(parts, 10 ** rng.uniform(1.4, 2.4))])


def spoil_pixels(
    pixels_njy: NDArray[np.float32], scale_arcsec: float, rng: np.random.Generator, *, clear_arcsec: float = 0.0
) -> None:
    """
    Do to pixels, in place, what detectors do: a saturated star with its bleed and spikes, or pixels that are gone.

    ``pixels_njy`` is ``(band, y, x)``. Pixels that are gone read zero, as cutouts fill masked pixels. Star, trail and
    edge stay ``clear_arcsec`` away from the centre in x.
    """
    n_band, size, _ = pixels_njy.shape
    y, x = np.indices((size, size)) * scale_arcsec
    middle = (size - 1) / 2 * scale_arcsec
    x0 = middle + rng.choice([-1, 1]) * rng.uniform(clear_arcsec, max(0.6 * middle, clear_arcsec + 1.5))
    y0 = middle + rng.choice([-1, 1]) * rng.uniform(0, 0.6 * middle)
    kind = rng.choice(["star", "bleed", "edge", "band"], p=[0.4, 0.3, 0.2, 0.1])
    if kind in ("star", "bleed"):
        r2 = (x - x0) ** 2 + (y - y0) ** 2
        peak = 10 ** rng.uniform(4.5, 7) * scale_arcsec**2
        colour = np.power(10.0, rng.normal(0, 0.25, n_band))
        wings: Array = (1 + r2 / 0.36) ** -rng.uniform(1.6, 2.6)
        for dx, dy in ((x - x0, y - y0), (y - y0, x - x0)):
            wings += 0.003 * np.exp(-np.abs(dx) / 0.35) / (1 + np.abs(dy))
        pixels_njy += (peak * colour)[:, None, None].astype(np.float32) * wings.astype(np.float32)
        saturation = 10 ** rng.uniform(4.3, 5.5) * scale_arcsec**2
        np.minimum(pixels_njy, np.float32(saturation), out=pixels_njy)
        if kind == "bleed":
            half, reach = rng.uniform(0.1, 0.5), rng.uniform(2, 12)
            trail = (np.abs(x - x0) < half) & (np.abs(y - y0) < reach)
            for plane in pixels_njy:
                if rng.uniform() < 0.7:
                    plane[trail] = saturation * rng.choice([0.0, rng.uniform(0.1, 1.0), -0.02])
    elif kind == "edge":
        gone = (x > x0) if x0 > middle else (x < x0)
        if rng.uniform() < 0.5:
            gone = gone.T
        pixels_njy[:, gone] = 0
    else:
        gone = np.abs(x - x0) < rng.uniform(0.3, 1.5)
        pixels_njy[rng.integers(n_band)][gone] = 0


def _paint(host: Host, parts: list[tuple[list[Component], float]]) -> NDArray[np.float32]:
    grid = Grid(host.pixels_njy.shape[-1], host.pixel_scale_arcsec, 2)
    kernels = kernels_of(tuple(host.psf_fwhm_arcsec), host.pixel_scale_arcsec)
    out = host.pixels_njy.astype(np.float64)
    for components, snr in parts:
        image = convolve(render(components, grid.rays(), grid, len(out)), kernels)
        seen = np.sqrt(np.sum((image / host.sky_rms_njy[:, None, None]) ** 2))
        out += image * (snr / seen)
    return out.astype(np.float32)


def _disc_flux(rng: np.random.Generator) -> Array:
    colours = draw_colours(rng, SourcePopulation(), 1.0, red=bool(rng.uniform() < 0.3))
    mags = np.array([colours["g_r"] + rng.normal(0.1, 0.15), 0.0, -colours["r_i"]])
    return np.asarray(njy_of_magnitude(mags), float)


def _grown(component: Component, factor: float) -> Component:
    profile: Profile = component.profile
    if isinstance(profile, Sersic):
        profile = Sersic(**(vars(profile) | {"radius_arcsec": profile.radius_arcsec * factor}))
    return Component(profile, component.flux_njy)
