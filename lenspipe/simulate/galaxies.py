"""Galaxies and stars that lens nothing: the field, spiral arms, rings, tails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.photometry import band_fluxes_njy, early_type_colours
from lenspipe.simulate.population import draw_axis_ratio, draw_magnitude

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SpiralArms:
    """Logarithmic spiral arms on an exponential disc, unit flux; the arms carry no light inside half a scale length."""

    scale_arcsec: float
    """Scale length of the disc."""
    n_arm: int = 2
    """Number of arms."""
    pitch_rad: float = 0.35
    """Pitch angle."""
    contrast: float = 4.0
    """How sharply the arms stand out."""
    axis_ratio: float = 1.0
    """Cosine of the inclination."""
    angle_rad: float = 0.0
    """Direction of the major axis, from +x towards +y."""
    phase_rad: float = 0.0
    """Turns the arms."""
    x_arcsec: float = 0.0
    """Centre."""
    y_arcsec: float = 0.0
    """Centre."""

    def brightness(self, x_arcsec: Array, y_arcsec: Array) -> Array:
        """Surface brightness for about unit flux, per square arcsec."""
        r, turn = _disc_plane(x_arcsec, y_arcsec, self)
        phase = self.n_arm * (turn - np.log(np.maximum(r, 1e-3)) / np.tan(self.pitch_rad)) + self.phase_rad
        arms = np.exp(self.contrast * (np.cos(phase) - 1)) / np.exp(-self.contrast) / _bessel_i0(self.contrast)
        inner = r**2 / (r**2 + (0.5 * self.scale_arcsec) ** 2)
        # the inner cut leaves 0.83 of the disc's flux; the mean of the arms over angle is 1
        area = 0.83 * 2 * np.pi * self.scale_arcsec**2 * self.axis_ratio
        bright: Array = np.exp(-r / self.scale_arcsec) * inner * arms / area
        return bright


def _bessel_i0(x: float) -> float:
    return float(np.i0(x))


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A ring, or a segment of one: a tidal tail, an arc-like shell. Gaussian across, unit flux for a full ring."""

    radius_arcsec: float
    """Radius of the crest along the major axis."""
    width_arcsec: float
    """Standard deviation across."""
    axis_ratio: float = 1.0
    """Minor over major axis."""
    angle_rad: float = 0.0
    """Direction of the major axis, from +x towards +y."""
    extent_rad: float = 0.0
    """Standard deviation along the ring, for a segment around the direction of the major axis; 0 is a full ring."""
    x_arcsec: float = 0.0
    """Centre."""
    y_arcsec: float = 0.0
    """Centre."""

    def brightness(self, x_arcsec: Array, y_arcsec: Array) -> Array:
        """Surface brightness for about unit flux, per square arcsec."""
        r, turn = _disc_plane(x_arcsec, y_arcsec, self)
        across = np.exp(-0.5 * ((r - self.radius_arcsec) / self.width_arcsec) ** 2)
        length = 2 * np.pi * self.radius_arcsec * self.axis_ratio
        if self.extent_rad > 0:
            across = across * np.exp(-0.5 * (turn / self.extent_rad) ** 2)
            length *= min(1.0, self.extent_rad / np.sqrt(2 * np.pi))
        bright: Array = across / (length * self.width_arcsec * np.sqrt(2 * np.pi))
        return bright


def _disc_plane(x_arcsec: Array, y_arcsec: Array, disc: SpiralArms | Ring) -> tuple[Array, Array]:
    x, y = x_arcsec - disc.x_arcsec, y_arcsec - disc.y_arcsec
    cos, sin = np.cos(disc.angle_rad), np.sin(disc.angle_rad)
    along, across = cos * x + sin * y, (cos * y - sin * x) / disc.axis_ratio
    return np.hypot(along, across), np.arctan2(across, along)


def draw_field_galaxy(
    rng: np.random.Generator, bands: Sequence[str], *, mag_r: tuple[float, float] = (17.5, 25.0)
) -> list[Component]:
    """
    A galaxy of the field at the origin: a quarter early types, the others a blue disc with a redder bulge.

    Counts rise as ``10^(0.33 m)`` in r (Yasuda et al. 2001, Capak et al. 2007); sizes shrink by 0.11 dex a magnitude
    from 0.9 arcsec at r = 20.5, with 0.2 dex scatter; colours are drawn for the galaxy alone.
    """
    mag = draw_magnitude(rng, *mag_r, 0.33)
    q, angle = draw_axis_ratio(rng, (0.65, 0.2)), float(rng.uniform(0, np.pi))
    radius, z = field_size_and_redshift(rng, mag)
    old = early_type_colours(z)
    if rng.uniform() < 0.25:  # early type
        colours = {name: value + rng.normal(0, 0.06) for name, value in old.items()}
        light = Sersic(radius_arcsec=radius, n=float(rng.uniform(2.5, 5)), axis_ratio=max(q, 0.5), angle_rad=angle)
        return [Component(light, band_fluxes_njy(mag, colours, bands))]
    youth = rng.uniform(0.35, 0.75)
    young = {name: value * (1 - youth) + rng.normal(0, 0.08) for name, value in old.items()}
    bulge = rng.uniform(0, 0.4)
    disc_light = Sersic(radius_arcsec=radius, n=1.0, axis_ratio=q, angle_rad=angle)
    bulge_light = Sersic(radius_arcsec=max(0.08, 0.25 * radius), n=3.0, axis_ratio=max(q, 0.6), angle_rad=angle)
    return [
        Component(disc_light, band_fluxes_njy(mag, young, bands) * (1 - bulge)),
        Component(bulge_light, band_fluxes_njy(mag, old, bands) * bulge),
    ]


def field_size_and_redshift(rng: np.random.Generator, mag_r: float) -> tuple[float, float]:
    """Half-light radius (arcsec) and redshift of a galaxy of the field, as `draw_field_galaxy` states them."""
    radius = 0.9 * 10 ** (-0.11 * (mag_r - 20.5) + rng.normal(0, 0.2))
    z = 0.12 * (mag_r - 17.0) * rng.lognormal(0, 0.3)
    return float(np.clip(radius, 0.1, 4.0)), float(np.clip(z, 0.05, 2.0))


def draw_star_njy(
    rng: np.random.Generator, bands: Sequence[str], *, mag_r: tuple[float, float] = (15.5, 24.0)
) -> NDArray[np.float64]:
    """Flux of a star ``(n_band,)``, nJy: counts ``10^(0.12 m)``, colours near the stellar locus (Covey et al. 2007)."""
    mag = draw_magnitude(rng, *mag_r, 0.12)
    g_r = float(np.clip(rng.choice([rng.normal(0.55, 0.2), rng.normal(1.42, 0.08)]), -0.2, 1.6))
    r_i = 0.4 * g_r - 0.03 if g_r < 1.25 else float(rng.uniform(0.55, 1.6))
    colours = {
        "u_g": 1.3 + 0.7 * g_r,
        "g_r": g_r,
        "r_i": r_i,
        "i_z": 0.55 * r_i,
        "z_Y": 0.4 * r_i,
        "Y_J": 0.2,
        "J_H": 0.1,
    }
    return band_fluxes_njy(mag, colours, bands)
