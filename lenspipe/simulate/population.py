"""Who lenses and who is lensed: velocity dispersions, redshifts, light of early-type galaxies, faint blue sources."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer

from lenspipe.errors import ConfigError
from lenspipe.simulate.cosmology import ARCSEC_PER_RADIAN, default_cosmology, einstein_radius_arcsec
from lenspipe.simulate.light import Component, GalaxyImage, Sersic
from lenspipe.simulate.photometry import COLOURS, band_fluxes_njy, early_type_colours
from lenspipe.toml import Table

Range = tuple[float, float]
EVEN_BINS = 20
"""Stretches of a range of Einstein radii that are drawn alike where they are asked to be even."""


class SourcePopulation(Table):
    """Faint, mostly blue, star-forming galaxies behind the lens, as they would look unlensed."""

    mag_r: Range = (21.5, 25.5)
    """r magnitude, AB, between these; counts rise as ``10^(mag_slope m)``."""
    mag_slope: float = 0.30
    """Logarithmic slope of the counts per magnitude."""
    redshift: Range = (1.0, 3.5)
    """Redshift, drawn from ``z^2 exp(-z / 0.6)`` between these."""
    radius_arcsec_at_24: float = Field(0.22, gt=0)
    """Median half-light radius at r = 24, arcsec; it shrinks by 0.09 dex a magnitude."""
    radius_scatter_dex: float = Field(0.18, ge=0)
    """Scatter of the radius."""
    sersic_n: Range = (0.5, 2.0)
    """Sersic index, uniform."""
    clumpy_fraction: float = Field(0.4, ge=0, le=1)
    """Part of the sources with one to four star-forming clumps, which are bluer than the disc."""
    red_fraction: float = Field(0.08, ge=0, le=1)
    """Part of the sources that are red: dusty or passive."""
    blue_g_r: Range = (0.25, 0.20)
    """Mean and scatter of g - r of blue sources; above z = 2.8 the Lyman forest adds 0.5 (z - 2.8)."""
    blue_r_i: Range = (0.18, 0.14)
    """Mean and scatter of r - i of blue sources."""
    image_fraction: float = Field(0.5, ge=0, le=1)
    """Part of the sources that are real galaxy images, where images are given."""


@dataclass(frozen=True)
class SourceImage:
    """A real galaxy to be lensed: pixels ``(y, x)`` of unit sum, free of sky, and their scale on the sky, arcsec."""

    name: str
    pixels: NDArray[np.float32]
    pixel_scale_arcsec: float


@dataclass(frozen=True)
class Source:
    """A drawn source: its components with flux for r = 0 mag (scale it), and the facts that drew it."""

    components: tuple[Component, ...]
    facts: dict[str, float | str]


def draw_redshift(rng: np.random.Generator, low: float, high: float) -> float:
    """Source redshift from ``z^2 exp(-z / 0.6)``; without bounds the median is 1.6, as of galaxies with r < 25.5."""
    z = np.linspace(low, high, 256)
    cumulative = np.cumsum(z**2 * np.exp(-z / 0.6))
    return float(np.interp(rng.uniform(cumulative[0], cumulative[-1]), cumulative, z))


def draw_magnitude(rng: np.random.Generator, bright: float, faint: float, slope: float) -> float:
    """Magnitude from counts that rise as ``10^(slope m)`` between two bounds."""
    if not faint > bright:
        raise ConfigError("the faint limit must be fainter than the bright one", bright=bright, faint=faint)
    u = rng.uniform()
    if abs(slope) < 1e-6:
        return bright + u * (faint - bright)
    low, high = 10 ** (slope * bright), 10 ** (slope * faint)
    return float(np.log10(low + u * (high - low)) / slope)


def draw_colours(rng: np.random.Generator, population: SourcePopulation, z: float, red: bool) -> dict[str, float]:
    """Colours of a source, AB mag: blue star-forming, or red (dusty or passive); independent of every deflector."""
    if red:
        g_r, r_i = rng.normal(1.0, 0.3), rng.normal(0.55, 0.2)
    else:
        g_r, r_i = rng.normal(*population.blue_g_r), rng.normal(*population.blue_r_i)
        g_r += 0.5 * max(0.0, z - 2.8)
    forest = 0.4 + max(0.0, 1.2 * (z - 2.0))
    return {
        "u_g": float(rng.normal(forest, 0.25)),
        "g_r": float(g_r),
        "r_i": float(r_i),
        "i_z": float(rng.normal(0.12 + 0.4 * red, 0.1)),
        "z_Y": float(rng.normal(0.08 + 0.2 * red, 0.08)),
        "Y_J": float(rng.normal(0.12 + 0.2 * red, 0.1)),
        "J_H": float(rng.normal(0.15 + 0.2 * red, 0.1)),
    }


def draw_source(
    rng: np.random.Generator,
    population: SourcePopulation,
    bands: Sequence[str],
    *,
    x_arcsec: float,
    y_arcsec: float,
    images: Sequence[SourceImage] = (),
    z: float | None = None,
) -> Source:
    """
    Draw shape and colours of a source at a source-plane position; its flux is for r = 0 mag, to be scaled.

    Sizes follow a magnitude drawn for them from the population's counts: the flux may be set later by the S/N that is
    wanted without changing the shape.
    """
    z = draw_redshift(rng, *population.redshift) if z is None else z
    red = bool(rng.uniform() < population.red_fraction)
    flux = band_fluxes_njy(0.0, draw_colours(rng, population, z, red), bands)
    size_mag = draw_magnitude(rng, *population.mag_r, population.mag_slope)
    median = population.radius_arcsec_at_24 * 10 ** (-0.09 * (size_mag - 24))
    radius = float(np.clip(median * 10 ** rng.normal(0, population.radius_scatter_dex), 0.04, 1.0))
    angle, q, n = rng.uniform(0, np.pi), rng.uniform(0.3, 1.0), rng.uniform(*population.sersic_n)
    facts: dict[str, float | str] = {"source_z": z, "source_red": float(red), "source_image": ""}
    if images and rng.uniform() < population.image_fraction:
        chosen = images[int(rng.integers(len(images)))]
        extent = half_light_radius_px(chosen.pixels)
        scale = radius / extent
        profile = GalaxyImage(
            pixels=chosen.pixels, pixel_scale_arcsec=scale, angle_rad=angle, x_arcsec=x_arcsec, y_arcsec=y_arcsec
        )
        facts |= {"source_image": chosen.name, "source_radius_arcsec": radius, "source_n": 0.0, "source_n_clump": 0.0}
        return Source((Component(profile, flux),), facts)
    n_clump = int(rng.integers(1, 5)) if rng.uniform() < population.clumpy_fraction else 0
    share = rng.uniform(0.05, 0.2, n_clump)
    disc = Sersic(radius_arcsec=radius, n=n, axis_ratio=q, angle_rad=angle, x_arcsec=x_arcsec, y_arcsec=y_arcsec)
    components = [Component(disc, flux * (1 - share.sum()))]
    for part in share:
        r, turn = radius * rng.uniform(0.3, 1.4), rng.uniform(0, 2 * np.pi)
        clump = Sersic(
            radius_arcsec=radius * rng.uniform(0.08, 0.25),
            x_arcsec=x_arcsec + r * np.cos(turn),
            y_arcsec=y_arcsec + r * np.sin(turn),
        )
        bluer = band_fluxes_njy(0.0, dict.fromkeys(COLOURS, 0.0) | {"g_r": -0.15, "r_i": -0.1}, bands)
        components.append(
            Component(clump, flux * bluer / band_fluxes_njy(0.0, dict.fromkeys(COLOURS, 0.0), bands) * part)
        )
    facts |= {"source_radius_arcsec": radius, "source_n": n, "source_n_clump": float(n_clump)}
    return Source(tuple(components), facts)


def half_light_radius_px(pixels: NDArray[np.floating]) -> float:
    """Radius (pixels) of the circle around the image's centroid that holds half of the flux."""
    y, x = np.indices(pixels.shape)
    weight = np.clip(pixels, 0, None)
    weight = weight / weight.sum()
    r = np.hypot(x - (weight * x).sum(), y - (weight * y).sum()).ravel()
    order = np.argsort(r)
    inside = np.cumsum(weight.ravel()[order])
    return max(0.5, float(r[order][np.searchsorted(inside, 0.5)]))


class DeflectorPopulation(Table):
    """Early-type galaxies, weighted by how many lenses they make."""

    redshift: Range = (0.15, 0.9)
    """Redshift of the lens, uniform in comoving volume between these before the lensing weight."""
    velocity_dispersion_km_s: Range = (160.0, 400.0)
    """Velocity dispersions between these, from the modified Schechter function of Choi, Park & Vogeley 2007."""
    theta_e_arcsec: Range = (0.7, 3.0)
    """Only lenses with Einstein radii between these."""
    theta_e_even: bool = False
    """Whether Einstein radii are uniform between these two, in place of the population's; who has one of a given size
    is the population's all the same."""
    axis_ratio: Range = (0.78, 0.13)
    """Mean and scatter of the axis ratio of mass and light, cut to 0.35-1."""
    shear_scatter: float = Field(0.05, ge=0)
    """External shear: both components normal with this scatter over sqrt(2)."""
    slope: Range = (2.0, 0.0)
    """Mean and scatter of the density slope; SLACS gives 2.08 +- 0.16 (Auger et al. 2010)."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON what came later is left out where it is off, so that older requests stay the same."""
        whole: dict[str, Any] = handler(self)
        return {k: v for k, v in whole.items() if not (info.mode == "json" and k == "theta_e_even" and not v)}


def draw_deflector(
    rng: np.random.Generator, population: DeflectorPopulation, source_redshift: Range
) -> dict[str, float]:
    """
    Redshifts, velocity dispersion and Einstein radius of a lens.

    Proposals follow ``dN/dsigma`` of Choi, Park & Vogeley 2007 (sigma* = 161 km/s, alpha = 2.32, beta = 2.67) and
    comoving volume, and are weighted by the cross-section ``pi theta_E^2`` (Oguri & Marshall 2010).

    Raises
    ------
    ConfigError
        None of 4096 proposals lies in the asked range of Einstein radii.
    """
    n = 4096
    z_grid, cumulative = _volume_of_redshift(*population.redshift)
    z_lens = np.interp(rng.uniform(0, 1, n), cumulative, z_grid)
    z_axis = np.linspace(source_redshift[0], source_redshift[1], 256)
    cumulative = np.cumsum(z_axis**2 * np.exp(-z_axis / 0.6))
    z_s = np.interp(rng.uniform(cumulative[0], cumulative[-1], n), cumulative, z_axis)
    sigma_grid = np.linspace(*population.velocity_dispersion_km_s, 256)
    schechter = (sigma_grid / 161) ** 2.32 * np.exp(-((sigma_grid / 161) ** 2.67)) / sigma_grid
    if population.theta_e_even:  # the heaviest are too rare to be met by chance: drawn alike, and weighted
        sigma = rng.uniform(*population.velocity_dispersion_km_s, n)
    else:
        sigma = np.interp(rng.uniform(0, 1, n), np.cumsum(schechter) / schechter.sum(), sigma_grid)
    behind = z_s > z_lens + 0.1
    theta = np.zeros(n)
    theta[behind] = _sis_radius(sigma[behind], z_lens[behind], z_s[behind])
    low, high = population.theta_e_arcsec
    weight = np.where((theta >= low) & (theta <= high), theta**2, 0)
    if not weight.sum() > 0:
        raise ConfigError(
            "no galaxy of this population has an Einstein radius in the asked range: widen it",
            theta_e_arcsec=str(population.theta_e_arcsec),
        )
    if population.theta_e_even:
        weight = _even(weight * np.interp(sigma, sigma_grid, schechter), theta, low, high)
    k = int(rng.choice(n, p=weight / weight.sum()))
    shear_x, shear_y = rng.normal(0, population.shear_scatter / np.sqrt(2), 2)
    return {
        "z_lens": float(z_lens[k]),
        "z_source": float(z_s[k]),
        "velocity_dispersion_km_s": float(sigma[k]),
        "theta_e_arcsec": float(einstein_radius_arcsec(sigma[k], z_lens[k], z_s[k])),
        "axis_ratio": draw_axis_ratio(rng, population.axis_ratio),
        "angle_rad": float(rng.uniform(0, np.pi)),
        "slope": float(np.clip(rng.normal(*population.slope), 1.5, 2.5))
        if population.slope[1]
        else population.slope[0],
        "shear": float(np.hypot(shear_x, shear_y)),
        "shear_angle_rad": float(0.5 * np.arctan2(shear_y, shear_x)),
    }


def _even(weight: NDArray[np.float64], theta: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Weights of the proposals with those in each twentieth of the range scaled to one sum; empty ones stay empty."""
    edges = np.linspace(low, high, EVEN_BINS + 1)
    part = np.clip(np.searchsorted(edges, theta, side="right") - 1, 0, EVEN_BINS - 1)
    total = np.bincount(part, weight, EVEN_BINS)[part]
    scaled: NDArray[np.float64] = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    return scaled


def _sis_radius(
    sigma: NDArray[np.float64], z_lens: NDArray[np.float64], z_source: NDArray[np.float64]
) -> NDArray[np.float64]:
    # flat universe, distances interpolated to 1e-5: proposals only, the chosen one is computed exactly
    z, comoving = _comoving_mpc()
    ratio = 1 - np.interp(z_lens, z, comoving) / np.interp(z_source, z, comoving)
    theta: NDArray[np.float64] = 4 * np.pi * (sigma / 299792.458) ** 2 * ratio * ARCSEC_PER_RADIAN
    return theta


@functools.cache
def _comoving_mpc() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    z = np.linspace(0, 10, 4096)
    return z, np.asarray(default_cosmology().comoving_distance(z).to_value("Mpc"))


@functools.cache
def _volume_of_redshift(low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    z = np.linspace(low, high, 64)
    cumulative = np.cumsum(default_cosmology().differential_comoving_volume(z).value)
    return z, (cumulative - cumulative[0]) / (cumulative[-1] - cumulative[0])


def draw_axis_ratio(rng: np.random.Generator, mean_scatter: Range) -> float:
    """Axis ratio, normal, cut to 0.35-1 by drawing again."""
    while True:
        q = float(rng.normal(*mean_scatter))
        if 0.35 <= q <= 0.999:
            return q


def early_type_components(
    rng: np.random.Generator,
    bands: Sequence[str],
    *,
    z: float,
    velocity_dispersion_km_s: float,
    axis_ratio: float,
    angle_rad: float,
    x_arcsec: float = 0.0,
    y_arcsec: float = 0.0,
) -> tuple[list[Component], dict[str, float]]:
    """
    Light of a massive early-type galaxy: one Sersic component in every band, and the facts that drew it.

    Absolute magnitude ``M_r = -22.3 - 2.5 * 4 * log10(sigma / 220)`` with 0.3 mag scatter (Faber & Jackson 1976, with
    the zero-point of luminous red galaxies) and ``log R_e/kpc = 0.85 + 0.62 (-22.5 - M_r) / 2.5`` with 0.12 dex scatter
    (Hyde & Bernardi 2009). The K-correction is ``2.5 log10(1 + z) + z``, an evolving old population in r to 0.2 mag.
    """
    absolute = -22.3 - 10 * np.log10(velocity_dispersion_km_s / 220) + rng.normal(0, 0.3)
    universe = default_cosmology()
    modulus = float(universe.distmod(z).value)
    mag_r = absolute + modulus + 2.5 * np.log10(1 + z) + z
    radius_kpc = 10 ** (0.85 + 0.62 * (-22.5 - absolute) / 2.5 + rng.normal(0, 0.12))
    radius = radius_kpc / 1000 / float(universe.angular_diameter_distance(z).to_value("Mpc")) * ARCSEC_PER_RADIAN
    radius = float(np.clip(radius, 0.25, 4.0))
    n = float(np.clip(rng.normal(4.3, 0.8), 2.5, 6.5))
    colours = {name: value + rng.normal(0, 0.05) for name, value in early_type_colours(z).items()}
    flux = band_fluxes_njy(float(mag_r), colours, bands)
    light = Sersic(
        radius_arcsec=radius, n=n, axis_ratio=axis_ratio, angle_rad=angle_rad, x_arcsec=x_arcsec, y_arcsec=y_arcsec
    )
    facts = {"lens_mag_r": float(mag_r), "lens_radius_arcsec": radius, "lens_n": n}
    return [Component(light, flux)], facts


def deflector_light(
    rng: np.random.Generator, bands: Sequence[str], drawn: Mapping[str, float]
) -> tuple[list[Component], dict[str, float]]:
    """Light of what `draw_deflector` drew (`early_type_components`), at the origin, and the facts that drew it."""
    shape = {name: drawn[name] for name in ("velocity_dispersion_km_s", "axis_ratio", "angle_rad")}
    return early_type_components(rng, bands, z=drawn["z_lens"], **shape)
