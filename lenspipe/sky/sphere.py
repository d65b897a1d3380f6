"""Separations, neighbours and small figures on the celestial sphere; positions are ICRS degrees throughout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from astropy.coordinates import angular_separation
from numpy.typing import ArrayLike, NDArray

ARCSEC_PER_DEG = 3600.0


def separation_arcsec(
    ra_deg: ArrayLike, dec_deg: ArrayLike, other_ra_deg: ArrayLike, other_dec_deg: ArrayLike
) -> NDArray[np.float64]:
    """
    Angle between positions, by Vincenty's formula as `astropy.coordinates.angular_separation` has it.

    Parameters
    ----------
    ra_deg, dec_deg, other_ra_deg, other_dec_deg : array_like
        Positions; shapes broadcast.

    Returns
    -------
    array, arcsec

    Examples
    --------
    >>> float(separation_arcsec(359.9999, 0.0, 0.0001, 0.0).round(6))
    0.72
    """
    radians = (np.radians(np.asarray(a, float)) for a in (ra_deg, dec_deg, other_ra_deg, other_dec_deg))
    return np.degrees(angular_separation(*radians)) * ARCSEC_PER_DEG


def unit_vectors(ra_deg: NDArray[np.floating], dec_deg: NDArray[np.floating]) -> NDArray[np.float64]:
    """Positions on the unit sphere, (n, 3); neither the poles nor RA 0 are special there."""
    ra, dec = np.radians(np.asarray(ra_deg, float)), np.radians(np.asarray(dec_deg, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def chord(radius_arcsec: float) -> float:
    """Length of the straight line between two points of the unit sphere that are ``radius_arcsec`` apart."""
    return float(2 * np.sin(np.radians(radius_arcsec / ARCSEC_PER_DEG) / 2))


def arcsec_of_chord(chords: ArrayLike) -> NDArray[np.float64]:
    """Angle of chords of the unit sphere: the inverse of `chord`."""
    return np.degrees(2 * np.arcsin(np.clip(np.asarray(chords, float) / 2, 0, 1))) * ARCSEC_PER_DEG


def nearest(
    ra_deg: NDArray[np.floating],
    dec_deg: NDArray[np.floating],
    other_ra_deg: NDArray[np.floating],
    other_dec_deg: NDArray[np.floating],
    *,
    radius_arcsec: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """
    The nearest of some other positions to each position, within a radius that counts itself.

    By a tree of unit vectors: the neighbours of `SkyCoord.match_to_catalog_sky`, without its objects, and with the
    radius decided on chords as `chord` gives them, the way duplicates are found.

    Returns
    -------
    other : array (n,)
        Number of the other position, -1 where none is near.
    separation_arcsec : array (n,)
        NaN where none is near.
    """
    from scipy.spatial import cKDTree  # a quarter of a second that the other functions do not need

    if not len(ra_deg) or not len(other_ra_deg):
        return np.full(len(ra_deg), -1), np.full(len(ra_deg), np.nan)
    tree = cKDTree(unit_vectors(other_ra_deg, other_dec_deg))
    limit = np.nextafter(chord(radius_arcsec), np.inf)
    distance, other = tree.query(unit_vectors(ra_deg, dec_deg), distance_upper_bound=limit)
    near = np.isfinite(distance)
    return np.where(near, other, -1), np.where(near, arcsec_of_chord(np.where(near, distance, 0)), np.nan)


def first_of_each(ra_deg: NDArray[np.floating], dec_deg: NDArray[np.floating], *, radius_arcsec: float) -> list[int]:
    """
    Numbers of the positions that lie farther than a radius from every one kept before them: one for each object.

    For some hundred positions, in their order of preference.

    Examples
    --------
    >>> first_of_each(np.array([10.0, 10.0001, 10.1]), np.zeros(3), radius_arcsec=1.0)
    [0, 2]
    """
    kept: list[int] = []
    for i in range(len(ra_deg)):
        apart = separation_arcsec(ra_deg[kept], dec_deg[kept], ra_deg[i], dec_deg[i])
        if not (apart < radius_arcsec).any():
            kept.append(i)
    return kept


def ring_around(
    ra_deg: NDArray[np.floating], dec_deg: NDArray[np.floating], *, radius_arcsec: float, n: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """
    Positions on a small circle around each position, one direction after the other, across the poles too.

    The circle is that of the plane: within 3e-5 of the radius for 5" up to a declination of 80 degrees. Its bits decide
    which stamps splits leave out, so it is not `SkyCoord.directional_offset_by`.

    Yields
    ------
    ra_deg, dec_deg : arrays (n_position,)
        Right ascension not folded into [0, 360).
    """
    radius_deg = radius_arcsec / ARCSEC_PER_DEG
    shrink = np.maximum(np.cos(np.radians(dec_deg)), 1e-6)
    for angle in np.radians(np.arange(n) * (360 / n)):
        dec = dec_deg + radius_deg * np.sin(angle)
        ra = ra_deg + radius_deg * np.cos(angle) / shrink + np.where(abs(dec) > 90, 180.0, 0.0)
        yield ra, np.where(dec > 90, 180 - dec, np.where(dec < -90, -180 - dec, dec))


def tangent_plane(
    ra_deg: ArrayLike, dec_deg: ArrayLike, *, centre_ra_deg: float, centre_dec_deg: float
) -> NDArray[np.float64]:
    """
    Gnomonic projection, (n, 2) radians east and north; great circles become straight lines.

    NaN from 60 degrees on: nothing that is searched reaches so far.
    """
    ra0, dec0 = np.radians(centre_ra_deg), np.radians(centre_dec_deg)
    d_ra, dec = np.radians(np.asarray(ra_deg, float)) - ra0, np.radians(np.asarray(dec_deg, float))
    z = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(d_ra)
    x = np.cos(dec) * np.sin(d_ra)
    y = np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(d_ra)
    z = np.where(z > 0.5, z, np.nan)
    return np.stack([x / z, y / z], axis=1)


def inside_corners(
    ra_deg: ArrayLike, dec_deg: ArrayLike, corner_ra_deg: ArrayLike, corner_dec_deg: ArrayLike
) -> NDArray[np.bool_]:
    """
    Which positions ``(n,)`` lie inside the convex figure of great circles between corners, its rim included.

    Parameters
    ----------
    ra_deg, dec_deg : array_like (n,)
        Positions; what is not finite lies outside.
    corner_ra_deg, corner_dec_deg : array_like (k,)
        Corners in order, either way round, within 60 degrees of the first.

    Examples
    --------
    >>> inside_corners([0.0, 2.0], [0.0, 0.0], [359.0, 1.0, 1.0, 359.0], [-1.0, -1.0, 1.0, 1.0]).tolist()
    [True, False]
    """
    ra, dec = np.asarray(corner_ra_deg, float), np.asarray(corner_dec_deg, float)
    at = {"centre_ra_deg": float(ra[0]), "centre_dec_deg": float(dec[0])}
    corner, place = tangent_plane(ra, dec, **at), tangent_plane(ra_deg, dec_deg, **at)
    side = np.roll(corner, -1, axis=0) - corner
    away = place[:, None] - corner
    turn = side[:, 0] * away[..., 1] - side[:, 1] * away[..., 0]
    return np.asarray((turn >= 0).all(axis=1) | (turn <= 0).all(axis=1))
