"""Stamps as published sets draw them, where parameters are few and many are fixed; what was wrong there is a switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import gamma, gammaincinv

from lenspipe.simulate.cosmology import (
    ARCSEC_PER_RADIAN,
    G_MPC_KM2_S2_MSUN,
    SPEED_OF_LIGHT_KM_S,
    critical_density_msun_arcsec2,
    default_cosmology,
    lens_distances_mpc,
)
from lenspipe.simulate.instrument import add_noise
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.photometry import magnitude_of_njy, njy_of_magnitude
from lenspipe.simulate.population import Range
from lenspipe.simulate.substructure import Subhalos, Vortex, draw_subhalo_masses
from lenspipe.toml import Table

SMOOTH, SUBHALO, VORTEX = "no_substructure", "subhalo", "vortex"


class PublishedTable(Table):
    """Lens, source, substructure and noise of a published set; ranges are uniform where nothing else is said."""

    redshift_lens: Range = (0.5, 0.5)
    """Redshift of the lens."""
    redshift_source: Range = (1.0, 1.0)
    """Redshift of the source."""
    theta_e_arcsec: Range | None = None
    """Einstein radius of the main lens; from ``halo_mass_msun`` where null."""
    halo_mass_msun: float | None = Field(default=None, gt=0)
    """Mass whose Einstein radius, as that of a point, the main lens gets; one of the two is given."""
    distances: Literal["angular", "luminosity"] = "angular"
    """``luminosity``: as in the original, luminosity distances and D_S - D_L for D_LS; wrong."""
    axis_ratio: Range = (1.0, 1.0)
    """Axis ratio of the main lens's mass."""
    angle_rad: Range = (0.0, 0.0)
    """Direction of its major axis."""
    shear: Range = (0.0, 0.0)
    """External shear."""
    shear_angle_rad: Range = (0.0, 0.0)
    """Direction in which it stretches."""
    source_place: Literal["square", "radius"] = "radius"
    """``square``: x and y uniform in ``source_offset_arcsec``; ``radius``: distance uniform in it, direction free."""
    source_offset_arcsec: Range
    """Distance of the source from the lens's centre."""
    source_mag: Range | None = None
    """AB magnitude of the source."""
    source_brightness_njy: Range | None = None
    """Its flux per pixel at the half-light radius, unlensed; one of the two is given."""
    source_radius_arcsec: Range
    """Half-light radius of the source."""
    source_n: Range = (1.0, 1.0)
    """Its Sersic index."""
    source_axis_ratio: Range = (1.0, 1.0)
    """Its axis ratio."""
    source_angle_rad: Range = (0.0, 0.0)
    """Direction of its major axis."""
    lens_brightness_njy: Range | None = None
    """Flux per pixel of the lens galaxy at its half-light radius; it does not shine where null."""
    lens_radius_arcsec: Range = (0.5, 0.5)
    """Half-light radius of the lens galaxy."""
    lens_n: Range = (2.5, 2.5)
    """Its Sersic index."""
    lens_axis_ratio: Range = (1.0, 1.0)
    """Axis ratio of its light, independent of the mass."""
    lens_angle_rad: Range = (0.0, 0.0)
    """Direction of its light's major axis."""
    n_subhalo: int = Field(25, ge=1)
    """Mean number of subhalos."""
    subhalo_number: Literal["poisson", "fixed"] = "poisson"
    """``fixed``: always the mean, as in the original, which draws a Poisson number and does not use it."""
    subhalo_mass_msun: Range | None = None
    """Least and largest subhalo; all alike, by ``mass_fraction``, where null."""
    subhalo_slope: float = -1.9
    """Of ``dN/dm``."""
    subhalo_radius_arcsec: Range = (0.0, 1.0)
    """Distance of a subhalo from the lens's centre; uniform in the distance, so denser inside."""
    mass_fraction: Range | None = None
    """Mass of all subhalos, or of the vortex, over that of the main lens within its Einstein radius; the masses in Msun
    hold where null."""
    fraction_of: Literal["mass", "radius"] = "mass"
    """``radius``: the original divides the Einstein radius by the number of pieces, so that n of them hold a part 1/n
    of the mass meant."""
    vortex_mass_msun: Range | None = None
    """Mass of the vortex where ``mass_fraction`` is null."""
    vortex_length_arcsec: Range | None = None
    """Length of the vortex; from ``axion_mass_ev`` where null."""
    axion_mass_ev: Range | None = None
    """Mass of the axion, log-uniform."""
    vortex_length_at_1e22_arcsec: float = Field(0.06, gt=0)
    """Length of the vortex of an axion of 1e-22 eV; it falls as the mass rises."""
    vortex_start: Literal["middle", "end"] = "middle"
    """``middle``: the vortex lies symmetric about the lens's centre; ``end``: it begins half a length left of it and
    runs in its direction, as the original does, which takes the angle for degrees there and for radians here."""
    substructure_mass: Literal["given up", "added"] = "given up"
    """``added``: the main lens keeps all its mass, as in the originals: the ring tells by its size that there is more
    inside."""
    exposure: Range = (1.0, 1.0)
    """Exposure time in units of the survey's, log-uniform."""
    background: Literal["counted", "fixed"] = "counted"
    """Whether the noise of the sky falls with the exposure time, or is what the survey says whatever that is."""
    noise: Literal["right", "doubled", "absent"] = "right"
    """``doubled``: photons are drawn on an image that has photon noise already; ``absent``: twice the image without
    noise, as the original adds the model to itself."""
    values_per_parameter: int = Field(0, ge=0)
    """Each range of the smooth lens, source and shear is this many values, the same in a whole run, of which one is
    drawn: the original takes five of each and all their combinations. 0: any value."""

    @model_validator(mode="after")
    def _consistent(self) -> PublishedTable:
        for one, other in (
            ("theta_e_arcsec", "halo_mass_msun"),
            ("source_mag", "source_brightness_njy"),
            ("mass_fraction", "vortex_mass_msun"),
            ("mass_fraction", "subhalo_mass_msun"),
            ("vortex_length_arcsec", "axion_mass_ev"),
        ):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise ValueError(f"give either {one} or {other}")
        return self


@dataclass(frozen=True)
class PublishedLens:
    """One drawn lens of a published set, before the pixels."""

    smooth: MacroLens
    """The main lens as it would be without substructure."""
    main: MacroLens
    """The main lens as it is: lighter where the substructure's mass is given up."""
    perturber: Subhalos | Vortex | None
    """The substructure."""
    source: Component
    """The source."""
    light: Component | None
    """The lens galaxy's light."""
    facts: dict[str, Any]
    """True parameters."""

    @property
    def deflectors(self) -> list[MacroLens | Subhalos | Vortex]:
        """All that bends light."""
        return [self.main] if self.perturber is None else [self.main, self.perturber]


class _Values:
    """Draws of ranges, of any value or of a few that a whole run shares."""

    def __init__(self, rng: np.random.Generator, n_value: int, seed: int) -> None:
        self._rng, self._n, self._shared = rng, n_value, np.random.default_rng([seed, 5])

    def __call__(self, bounds: Range) -> float:
        low, high = bounds
        if low == high:
            return float(low)
        if not self._n:
            return float(self._rng.uniform(low, high))
        return float(self._shared.uniform(low, high, self._n)[self._rng.integers(self._n)])


def draw_published(
    rng: np.random.Generator,
    table: PublishedTable,
    kind: str,
    *,
    pixel_scale_arcsec: float,
    bands: Sequence[str],
    seed: int,
) -> PublishedLens:
    """
    Draw a lens of one class of a published set.

    Parameters
    ----------
    rng : numpy Generator
    table : PublishedTable
    kind : str
        ``no_substructure``, ``subhalo`` or ``vortex``.
    pixel_scale_arcsec : float
        Brightness per pixel is of these pixels.
    bands : sequence of str
        All bands see the same.
    seed : int
        Of the run: shared values are drawn from it.
    """
    draw = _Values(rng, table.values_per_parameter, seed)
    z_lens, z_source = draw(table.redshift_lens), draw(table.redshift_source)
    if table.theta_e_arcsec is not None:
        theta_e = draw(table.theta_e_arcsec)
    else:
        assert table.halo_mass_msun is not None
        theta_e = float(point_radius_arcsec(table.halo_mass_msun, z_lens, z_source, table.distances))
    smooth = MacroLens(
        theta_e_arcsec=theta_e,
        axis_ratio=draw(table.axis_ratio),
        angle_rad=draw(table.angle_rad),
        shear=draw(table.shear),
        shear_angle_rad=draw(table.shear_angle_rad),
    )
    source, of_source = _source(draw, table, pixel_scale_arcsec, len(bands))
    light, of_light = _lens_light(draw, table, pixel_scale_arcsec, len(bands))
    perturber, within, of_perturber = _perturber(rng, table, kind, theta_e, z_lens, z_source)
    # a circle of radius theta holds pi theta^2 Sigma_cr: the mass inside is a sum of squares of Einstein radii
    main = smooth
    if table.substructure_mass == "given up" and within:
        main = replace(smooth, theta_e_arcsec=theta_e - within / theta_e)
    facts: dict[str, Any] = {
        "z_lens": z_lens,
        "z_source": z_source,
        "theta_e_arcsec": theta_e,
        "axis_ratio": smooth.axis_ratio,
        "angle_rad": smooth.angle_rad,
        "slope": smooth.slope,
        "shear": smooth.shear,
        "shear_angle_rad": smooth.shear_angle_rad,
    }
    facts |= {f"source_mag_{b}": float(magnitude_of_njy(f)) for b, f in zip(bands, source.flux_njy, strict=True)}
    return PublishedLens(smooth, main, perturber, source, light, facts | of_source | of_light | of_perturber)


def point_radius_arcsec(
    mass_msun: NDArray[np.float64] | float, z_lens: float, z_source: float, distances: str
) -> NDArray[np.float64]:
    """
    Einstein radius of a point mass, arcsec; with ``luminosity`` by the wrong distances of the original.

    ``theta^2 = 4 G M / c^2 D_LS / (D_L D_S)`` (Narayan & Bartelmann 1996, eq. 21). The original puts luminosity
    distances into it and their difference for ``D_LS`` (DeepLenseSim, ``lens.py``, lines 86-98).

    Examples
    --------
    >>> [round(float(point_radius_arcsec(1e12, 0.5, 1.0, d)), 3) for d in ("luminosity", "angular")]
    [1.281, 1.665]
    """
    if distances == "luminosity":
        d_lens, d_source = (
            float(default_cosmology().luminosity_distance(z).to_value("Mpc")) for z in (z_lens, z_source)
        )
        d_between = d_source - d_lens
    else:
        d_lens, d_source, d_between = (float(d) for d in lens_distances_mpc(z_lens, z_source))
    scale = 4 * G_MPC_KM2_S2_MSUN / SPEED_OF_LIGHT_KM_S**2 * d_between / (d_lens * d_source)
    return np.sqrt(np.asarray(mass_msun, float) * scale) * ARCSEC_PER_RADIAN


def flux_of_brightness(per_pixel_njy: float, radius_arcsec: float, n: float, pixel_scale_arcsec: float) -> float:
    """
    Total flux of a Sersic profile with this flux per pixel at its half-light radius, nJy.

    ``2 pi n R^2 exp(b) b^(-2n) Gamma(2n)`` times the surface brightness there (Graham & Driver 2005, eq. 4).
    """
    b = float(gammaincinv(2 * n, 0.5))
    area = 2 * np.pi * n * radius_arcsec**2 * np.exp(b) * b ** (-2 * n) * gamma(2 * n)
    return float(per_pixel_njy / pixel_scale_arcsec**2 * area)


def published_noise(
    model_njy: NDArray[np.float64],
    kind: str,
    *,
    sky_rms_njy: NDArray[np.float64],
    njy_per_electron: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """
    The observed image ``(band, y, x)``, nJy, with the noise as it should be, twice, or not at all.

    ``doubled`` is that of DeepLense model I (``lens.py``, lines 262-270): photon noise and sky are added, and photons
    are drawn once more from what came out, negative pixels cut to 0. ``absent`` is that of models II and III (line
    313): the noise-free image added to itself.
    """
    if kind == "absent":
        return (2 * model_njy).astype(np.float32)
    noisy = add_noise(model_njy, sky_rms_njy=sky_rms_njy, njy_per_electron=njy_per_electron, rng=rng)
    if kind == "right":
        return noisy
    gain = njy_per_electron.reshape(-1, 1, 1)
    return (rng.poisson(noisy.clip(0) / gain) * gain).astype(np.float32)


def _source(draw: _Values, table: PublishedTable, scale: float, n_band: int) -> tuple[Component, dict[str, Any]]:
    first, second = draw(table.source_offset_arcsec), draw(table.source_offset_arcsec)
    turn = draw((0.0, 2 * np.pi))
    x, y = (first, second) if table.source_place == "square" else (first * np.cos(turn), first * np.sin(turn))
    radius, n = draw(table.source_radius_arcsec), draw(table.source_n)
    profile = Sersic(
        radius_arcsec=radius,
        n=n,
        axis_ratio=draw(table.source_axis_ratio),
        angle_rad=draw(table.source_angle_rad),
        x_arcsec=float(x),
        y_arcsec=float(y),
    )
    if table.source_mag is not None:
        flux = float(njy_of_magnitude(draw(table.source_mag)))
    else:
        assert table.source_brightness_njy is not None
        flux = flux_of_brightness(draw(table.source_brightness_njy), radius, n, scale)
    facts: dict[str, Any] = {
        "source_x_arcsec": float(x),
        "source_y_arcsec": float(y),
        "source_radius_arcsec": radius,
        "source_n": n,
    }
    facts |= {"source_n_clump": 0.0, "source_red": 0.0, "source_image": ""}
    return Component(profile, np.full(n_band, flux)), facts


def _lens_light(
    draw: _Values, table: PublishedTable, scale: float, n_band: int
) -> tuple[Component | None, dict[str, Any]]:
    if table.lens_brightness_njy is None:
        return None, {}
    radius, n = draw(table.lens_radius_arcsec), draw(table.lens_n)
    axis_ratio, angle = draw(table.lens_axis_ratio), draw(table.lens_angle_rad)
    flux = flux_of_brightness(draw(table.lens_brightness_njy), radius, n, scale)
    profile = Sersic(radius_arcsec=radius, n=n, axis_ratio=axis_ratio, angle_rad=angle)
    return Component(profile, np.full(n_band, flux)), {"lens_radius_arcsec": radius, "lens_n": n}


def _perturber(
    rng: np.random.Generator, table: PublishedTable, kind: str, theta_e: float, z_lens: float, z_source: float
) -> tuple[Subhalos | Vortex | None, float, dict[str, Any]]:
    """Substructure, the square of the Einstein radius of its part inside the main lens's, and facts."""
    if kind == SMOOTH:
        return None, 0.0, {}
    density = critical_density_msun_arcsec2(z_lens, z_source)
    if kind == SUBHALO:
        n = int(rng.poisson(table.n_subhalo)) if table.subhalo_number == "poisson" else table.n_subhalo
        if table.mass_fraction is not None:
            fraction = float(rng.uniform(*table.mass_fraction)) / (n if table.fraction_of == "radius" else 1)
            theta = np.full(n, theta_e * np.sqrt(fraction / max(n, 1)))
            masses = np.pi * density * theta**2
        else:
            assert table.subhalo_mass_msun is not None
            masses = draw_subhalo_masses(rng, n, table.subhalo_slope, table.subhalo_mass_msun)
            theta = point_radius_arcsec(masses, z_lens, z_source, table.distances)
            fraction = float(np.sum(theta**2) / theta_e**2)
        r, turn = rng.uniform(*table.subhalo_radius_arcsec, n), rng.uniform(0, 2 * np.pi, n)
        halos = Subhalos(r * np.cos(turn), r * np.sin(turn), theta, np.zeros(n))
        inside = float(np.sum(theta[r < theta_e] ** 2))
        return (
            halos,
            inside,
            {
                "subhalo_mass_fraction": fraction,
                "subhalo_slope": table.subhalo_slope if table.subhalo_mass_msun is not None else None,
                "n_subhalo": float(n),
                "n_subhalo_expected": float(table.n_subhalo),
                "subhalo_mass_msun": float(masses.sum()),
                "subhalo_mass_within_msun": float(masses[r < theta_e].sum()),
            },
        )
    return _vortex(rng, table, theta_e, z_lens, z_source, density)


def _vortex(
    rng: np.random.Generator, table: PublishedTable, theta_e: float, z_lens: float, z_source: float, density: float
) -> tuple[Vortex, float, dict[str, Any]]:
    if table.mass_fraction is not None:
        fraction = float(rng.uniform(*table.mass_fraction))
        fraction /= table.n_subhalo if table.fraction_of == "radius" else 1
        theta, mass = theta_e * np.sqrt(fraction), fraction * np.pi * density * theta_e**2
    else:
        assert table.vortex_mass_msun is not None
        mass = float(rng.uniform(*table.vortex_mass_msun))
        theta = float(point_radius_arcsec(mass, z_lens, z_source, table.distances))
    facts: dict[str, Any] = {}
    if table.vortex_length_arcsec is not None:
        length = float(rng.uniform(*table.vortex_length_arcsec))
    else:
        assert table.axion_mass_ev is not None
        axion = float(np.exp(rng.uniform(*np.log(table.axion_mass_ev))))
        length, facts = table.vortex_length_at_1e22_arcsec * 1e-22 / axion, {"axion_mass_ev": axion}
    angle = float(rng.uniform(0, 2 * np.pi))
    x = y = 0.0
    if table.vortex_start == "end":
        x, y = length / 2 * (np.cos(angle) - 1), length / 2 * np.sin(angle)
    vortex = Vortex(float(x), float(y), length, angle, float(theta))
    d_lens = float(lens_distances_mpc(z_lens, z_source)[0])
    return (
        vortex,
        float(theta**2 * vortex.fraction_within(theta_e)),
        facts
        | {
            "vortex_mass_msun": float(mass),
            "vortex_density_msun_kpc": float(mass / (length * d_lens * 1000 / ARCSEC_PER_RADIAN)),
            "vortex_length_arcsec": length,
            "vortex_x_arcsec": float(x),
            "vortex_y_arcsec": float(y),
            "vortex_angle_rad": angle,
        },
    )
