"""Small-scale dark matter in the lens: subhalos with a mass function, and a vortex as a line mass of finite length."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.simulate.cosmology import point_mass_einstein_radius_arcsec

Array = NDArray[np.float64]

TRUNCATION = 2.0
"""Truncation radius of a subhalo over its scale radius."""
FAR = 40.0
"""Scale radii beyond which a subhalo is a point: 99.6 % of its mass is inside, and looking up the rest costs most."""
H_C_EV_KPC = 4.0179e-26
"""Planck's constant times the speed of light, eV kpc: a particle of 1e-22 eV at 100 km/s has 1.2 kpc."""


@dataclass(frozen=True)
class Subhalos:
    """
    Many subhalos on the lens plane, truncated NFW halos or point masses.

    The truncated NFW profile is that of Baltz, Marshall & Oguri 2009 (eq. A.3, n = 1), through lenstronomy's ``TNFW``
    tabulated once: with a fixed truncation over scale radius all halos share the shape.
    """

    x_arcsec: Array
    """Positions ``(n,)``."""
    y_arcsec: Array
    """Positions ``(n,)``."""
    einstein_radius_arcsec: Array
    """Einstein radius that each would have as a point: its total mass, arcsec ``(n,)``."""
    scale_radius_arcsec: Array
    """NFW scale radius ``(n,)``; zero is a point mass."""

    def deflection(self, x_arcsec: Array, y_arcsec: Array) -> tuple[Array, Array]:
        """Summed deflection at image positions, arcsec."""
        x, y = np.asarray(x_arcsec, float), np.asarray(y_arcsec, float)
        shape = np.broadcast_shapes(x.shape, y.shape)
        alpha_x, alpha_y, part = np.zeros(shape), np.zeros(shape), np.empty(shape)
        halos = (self.x_arcsec, self.y_arcsec, self.einstein_radius_arcsec, self.scale_radius_arcsec)
        for x0, y0, theta, scale in zip(*halos, strict=True):
            dx, dy = x - x0, y - y0
            r2 = np.maximum(dx * dx + dy * dy, 1e-18)
            near = np.flatnonzero(r2 < (FAR * scale) ** 2) if scale > 0 else np.zeros(0, int)
            inside = _enclosed(r2.ravel()[near] / scale**2) if len(near) else 1.0
            pull = np.divide(theta**2, r2, out=r2)
            pull.ravel()[near] *= inside  # a view: the array is contiguous
            alpha_x += np.multiply(dx, pull, out=part)
            alpha_y += np.multiply(dy, pull, out=part)
        return alpha_x, alpha_y


def _enclosed(x2: Array) -> Array:
    fraction, step = _enclosed_table()
    # the knots are even in x / (1 + x): no logarithm and no search for every ray
    x = np.sqrt(x2)
    place = x / (1 + x) * len(step)
    knot = np.minimum(place.astype(np.intp), len(step) - 1)
    inside: Array = fraction[knot] + (place - knot) * step[knot]
    return inside


@functools.cache
def _enclosed_table() -> tuple[Array, Array]:
    """Mass inside x over the total at 4001 knots even in x / (1 + x), and its steps from knot to knot."""
    from lenstronomy.LensModel.Profiles.tnfw import TNFW

    knots = np.linspace(0, 1, 4001)
    x = knots[1:-1] / (1 - knots[1:-1])
    alpha, _ = TNFW().derivatives(x, np.zeros_like(x), Rs=1.0, alpha_Rs=1.0, r_trunc=TRUNCATION)
    far, _ = TNFW().derivatives(np.array([1e7]), np.array([0.0]), Rs=1.0, alpha_Rs=1.0, r_trunc=TRUNCATION)
    fraction = alpha * x / (far[0] * 1e7)
    fraction = np.concatenate([[0.0], fraction, [1.0]])
    return fraction, np.diff(fraction)


@dataclass(frozen=True)
class Vortex:
    """
    A vortex as a straight line of constant mass per length, in the plane of the sky.

    The line is a continuum of point masses (Alexander et al. 2020, arXiv:1909.07346, section 2.2, where a hundred
    points stand for it). With complex positions the sum has a closed form:
    ``conj(alpha) = theta_v^2 / L exp(-i phi) log((z - z1) / (z - z2))`` with ``theta_v^2 = M / (pi Sigma_cr)``; the
    deflection jumps across the line, as it does across any sheet of mass. The logarithm is taken in real numbers.
    """

    x_arcsec: float
    """Middle of the line."""
    y_arcsec: float
    """Middle of the line."""
    length_arcsec: float
    """Length on the sky."""
    angle_rad: float
    """Direction, from +x towards +y."""
    einstein_radius_arcsec: float
    """Einstein radius of a point of the same mass."""

    def deflection(self, x_arcsec: Array, y_arcsec: Array) -> tuple[Array, Array]:
        """Deflection at image positions, arcsec."""
        cos, sin, half = np.cos(self.angle_rad), np.sin(self.angle_rad), self.length_arcsec / 2
        x, y = x_arcsec - self.x_arcsec, y_arcsec - self.y_arcsec
        along, across2 = cos * x + sin * y, cos * y - sin * x
        angle = across2 * -self.length_arcsec
        across2 *= across2
        across2 += 1e-18  # at its very ends a line bends without end
        to_ends = ((along + half) ** 2 + across2) / ((along - half) ** 2 + across2)
        angle = np.arctan2(angle, along * along + across2 - half**2)
        strength = self.einstein_radius_arcsec**2 / self.length_arcsec
        pull_along, pull_across = 0.5 * strength * np.log(to_ends), -strength * angle
        return cos * pull_along - sin * pull_across, sin * pull_along + cos * pull_across

    def fraction_within(self, radius_arcsec: float) -> float:
        """Fraction of the line, and so of its mass, that lies within a circle around the origin."""
        cos, sin, half = np.cos(self.angle_rad), np.sin(self.angle_rad), self.length_arcsec / 2
        along, aside = self.x_arcsec * cos + self.y_arcsec * sin, self.y_arcsec * cos - self.x_arcsec * sin
        chord = np.sqrt(max(radius_arcsec**2 - aside**2, 0.0))
        inside = min(half, chord - along) - max(-half, -chord - along)
        return float(max(inside, 0.0) / self.length_arcsec)


def mean_subhalo_mass_msun(slope: float, mass_range_msun: tuple[float, float]) -> float:
    """
    Mean mass of ``dN/dm ~ m^slope`` between two masses.

    Examples
    --------
    >>> round(mean_subhalo_mass_msun(-1.9, (1e7, 1e10)) / 1e7, 2)
    8.98
    """
    low, high = mass_range_msun

    def moment(power: float) -> float:
        return float(np.log(high / low)) if abs(power) < 1e-9 else (high**power - low**power) / power

    return moment(slope + 2) / moment(slope + 1)


def draw_subhalo_masses(
    rng: np.random.Generator, n: int, slope: float, mass_range_msun: tuple[float, float]
) -> NDArray[np.float64]:
    """Masses ``(n,)`` from ``dN/dm ~ m^slope`` between two masses, Msun."""
    low, high = mass_range_msun
    if not high > low > 0:
        raise ConfigError("a range of subhalo masses must rise from above zero", low=low, high=high)
    u, power = rng.uniform(size=n), slope + 1
    if abs(power) < 1e-9:
        return low * (high / low) ** u
    masses: NDArray[np.float64] = (low**power + u * (high**power - low**power)) ** (1 / power)
    return masses


def draw_subhalos(
    rng: np.random.Generator,
    *,
    mass_fraction: float,
    slope: float,
    mass_range_msun: tuple[float, float],
    theta_e_arcsec: float,
    critical_density: float,
    kpc_per_arcsec: float,
    radius_einstein: float = 1.5,
    point_masses: bool = False,
) -> tuple[Subhalos, dict[str, float]]:
    """
    Draw the subhalos around the arcs of a lens.

    Their expected mass is ``mass_fraction`` of the isothermal lens's within ``radius_einstein`` Einstein radii,
    ``pi theta_E r Sigma_cr``; the expected number is that over the mean mass, and the number itself is Poisson. Places
    are uniform in that disc (the projected density of subhalos is nearly flat there: Xu et al. 2015). Scale radii are
    those of an unstripped halo of the subhalo's mass (concentration of Dutton & Maccio 2014, eq. 8).

    Parameters
    ----------
    mass_fraction : float
        Expected projected mass fraction in subhalos of the mass range.
    slope : float
        Of ``dN/dm``; -1.9 in cold dark matter (Springel et al. 2008).
    mass_range_msun : (float, float)
    theta_e_arcsec, critical_density : float
        Einstein radius of the lens, and critical density in Msun per square arcsec.
    kpc_per_arcsec : float
        On the lens plane.

    Returns
    -------
    subhalos : Subhalos
    facts : dict
        ``n_subhalo``, ``n_subhalo_expected``, ``subhalo_mass_msun`` (their sum) and ``subhalo_mass_within_msun``
        (of those inside the Einstein radius).
    """
    radius = radius_einstein * theta_e_arcsec
    mass = mass_fraction * np.pi * theta_e_arcsec * radius * critical_density
    expected = mass / mean_subhalo_mass_msun(slope, mass_range_msun)
    n = int(rng.poisson(expected))
    masses = draw_subhalo_masses(rng, n, slope, mass_range_msun)
    r, turn = radius * np.sqrt(rng.uniform(size=n)), rng.uniform(0, 2 * np.pi, n)
    scale = np.zeros(n) if point_masses else scale_radius_kpc(masses) / kpc_per_arcsec
    theta = point_mass_einstein_radius_arcsec(masses, critical_density)
    facts = {
        "n_subhalo": float(n),
        "n_subhalo_expected": float(expected),
        "subhalo_mass_msun": float(masses.sum()),
        "subhalo_mass_within_msun": float(masses[r < theta_e_arcsec].sum()),
    }
    return Subhalos(r * np.cos(turn), r * np.sin(turn), theta, scale), facts


def scale_radius_kpc(mass_msun: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    NFW scale radius of a field halo, kpc.

    ``r200 / c`` with ``log10 c = 0.905 - 0.101 log10(M h / 1e12)`` (Dutton & Maccio 2014, eq. 8, z = 0), h = 0.7 and
    ``r200`` for 200 times today's critical density, 136 Msun / kpc^3.
    """
    concentration = 10 ** (0.905 - 0.101 * np.log10(mass_msun * 0.7 / 1e12))
    radius = (3 * mass_msun / (4 * np.pi * 200 * 136.0)) ** (1 / 3)
    kpc: NDArray[np.float64] = radius / concentration
    return kpc


def draw_vortex(
    rng: np.random.Generator,
    *,
    mass_msun: float,
    axion_mass_ev: float,
    velocity_dispersion_km_s: float,
    theta_e_arcsec: float,
    critical_density: float,
    kpc_per_arcsec: float,
) -> tuple[Vortex, dict[str, float]]:
    """
    Draw a vortex near the arcs: its length is the de Broglie wavelength of the axion in the lens.

    ``L = h / (m v)`` with ``v`` the lens's velocity dispersion; the middle lies at 0.5-1.2 Einstein radii and the
    direction is uniform. A line in the plane of the sky: the projection of a tilted one is shorter and denser.

    Returns
    -------
    vortex : Vortex
    facts : dict
        ``vortex_mass_msun``, ``vortex_density_msun_kpc`` (mass per length), ``axion_mass_ev``,
        ``vortex_length_arcsec``, ``vortex_x_arcsec``, ``vortex_y_arcsec``, ``vortex_angle_rad``.
    """
    length_kpc = de_broglie_wavelength_kpc(axion_mass_ev, velocity_dispersion_km_s)
    r, turn = theta_e_arcsec * np.sqrt(rng.uniform(0.25, 1.44)), rng.uniform(0, 2 * np.pi)
    vortex = Vortex(
        x_arcsec=float(r * np.cos(turn)),
        y_arcsec=float(r * np.sin(turn)),
        length_arcsec=length_kpc / kpc_per_arcsec,
        angle_rad=float(rng.uniform(0, np.pi)),
        einstein_radius_arcsec=float(point_mass_einstein_radius_arcsec(mass_msun, critical_density)),
    )
    return vortex, {
        "vortex_mass_msun": mass_msun,
        "vortex_density_msun_kpc": mass_msun / length_kpc,
        "axion_mass_ev": axion_mass_ev,
        "vortex_length_arcsec": vortex.length_arcsec,
        "vortex_x_arcsec": vortex.x_arcsec,
        "vortex_y_arcsec": vortex.y_arcsec,
        "vortex_angle_rad": vortex.angle_rad,
    }


def de_broglie_wavelength_kpc(axion_mass_ev: float, speed_km_s: float) -> float:
    """
    De Broglie wavelength ``h / (m v)``, kpc.

    Examples
    --------
    >>> round(de_broglie_wavelength_kpc(1e-22, 100.0), 2)
    1.2
    """
    return H_C_EV_KPC / axion_mass_ev * 299792.458 / speed_km_s
