"""Distances and the lensing scales that follow from them. Angular-diameter distances, never luminosity distances."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import ConfigError

if TYPE_CHECKING:
    from astropy.cosmology import FLRW

ARCSEC_PER_RADIAN = 206264.80624709636
SPEED_OF_LIGHT_KM_S = 299792.458
G_MPC_KM2_S2_MSUN = 4.30091727e-9
"""Newton's constant, Mpc (km/s)^2 / Msun."""


@functools.cache
def default_cosmology() -> FLRW:
    """Flat universe with H0 = 70 km/s/Mpc and Omega_m = 0.3, as most lens searches assume."""
    from astropy.cosmology import FlatLambdaCDM

    return FlatLambdaCDM(H0=70.0, Om0=0.3)


def lens_distances_mpc(
    z_lens: ArrayLike, z_source: ArrayLike, *, cosmology: FLRW | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """
    Angular-diameter distances to the lens, to the source and from lens to source.

    ``D_ls`` is the distance between the two redshifts, not ``D_s - D_l`` (Hogg 1999, astro-ph/9905116, eq. 19; open
    and flat universes, and closed ones on this side of the equator).

    Parameters
    ----------
    z_lens, z_source : array_like
        Redshifts; they broadcast.
    cosmology : astropy FLRW, optional
        `default_cosmology` by default.

    Returns
    -------
    d_lens_mpc, d_source_mpc, d_lens_source_mpc : arrays
        Angular-diameter distances, Mpc.

    Raises
    ------
    ConfigError
        A source is not behind its lens, or a lens is not at a positive redshift.
    """
    z_l, z_s = np.broadcast_arrays(np.asarray(z_lens, float), np.asarray(z_source, float))
    if not (np.all(z_l > 0) and np.all(z_s > z_l)):
        raise ConfigError(
            "sources must lie behind lenses of positive redshift", z_lens=str(z_lens), z_source=str(z_source)
        )
    universe = cosmology or default_cosmology()
    transverse = [universe.comoving_transverse_distance(z).to_value("Mpc") for z in (z_l, z_s)]
    curved = [np.sqrt(1 + universe.Ok0 * (d / universe.hubble_distance.to_value("Mpc")) ** 2) for d in transverse]
    d_between = (transverse[1] * curved[0] - transverse[0] * curved[1]) / (1 + z_s)
    return np.asarray(transverse[0] / (1 + z_l)), np.asarray(transverse[1] / (1 + z_s)), np.asarray(d_between)


def einstein_radius_arcsec(
    velocity_dispersion_km_s: ArrayLike, z_lens: ArrayLike, z_source: ArrayLike, *, cosmology: FLRW | None = None
) -> NDArray[np.float64]:
    """
    Einstein radius of a singular isothermal sphere.

    ``theta_E = 4 pi (sigma / c)^2 D_ls / D_s`` (Narayan & Bartelmann 1996, eq. 44).

    Parameters
    ----------
    velocity_dispersion_km_s, z_lens, z_source : array_like
        One-dimensional velocity dispersion and redshifts; they broadcast.

    Returns
    -------
    array
        Einstein radius, arcsec.

    Examples
    --------
    >>> float(einstein_radius_arcsec(250.0, 0.5, 2.0).round(3))
    1.145
    """
    _, d_source, d_between = lens_distances_mpc(z_lens, z_source, cosmology=cosmology)
    sigma = np.asarray(velocity_dispersion_km_s, float)
    return 4 * np.pi * (sigma / SPEED_OF_LIGHT_KM_S) ** 2 * d_between / d_source * ARCSEC_PER_RADIAN


def critical_density_msun_arcsec2(z_lens: float, z_source: float, *, cosmology: FLRW | None = None) -> float:
    """
    Critical surface mass density of a lens plane, Msun per square arcsec on that plane.

    ``Sigma_cr = c^2 / (4 pi G) D_s / (D_l D_ls)`` (Narayan & Bartelmann 1996, eq. 16), times the area of a square
    arcsec at ``D_l``.
    """
    d_lens, d_source, d_between = lens_distances_mpc(z_lens, z_source, cosmology=cosmology)
    per_mpc2 = SPEED_OF_LIGHT_KM_S**2 / (4 * np.pi * G_MPC_KM2_S2_MSUN) * d_source / (d_lens * d_between)
    return float(per_mpc2 * (d_lens / ARCSEC_PER_RADIAN) ** 2)


def point_mass_einstein_radius_arcsec(mass_msun: ArrayLike, critical_density: float) -> NDArray[np.float64]:
    """
    Einstein radius (arcsec) of point masses: the circle that holds the mass at the critical density.

    ``critical_density`` is in Msun per square arcsec, of `critical_density_msun_arcsec2`.
    """
    return np.sqrt(np.asarray(mass_msun, float) / (np.pi * critical_density))
