"""HEALPix: NESTED, order 29, as signed 64-bit integers (what HATS wants)."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import lonlat_to_healpix, neighbours
from numpy.typing import NDArray

ORDER = 29
N_BASE = 12
BASE_SIDE_DEG = 58.6323
"""Side of a base pixel, the square root of its area; order k is 2^k times smaller."""


def healpix29(ra_deg: NDArray[np.floating], dec_deg: NDArray[np.floating]) -> NDArray[np.int64]:
    """
    NESTED index of order 29 (Gorski et al. 2005, ApJ 622, 759) of ICRS positions in degrees.

    Examples
    --------
    >>> healpix29(np.array([0.0, 360.0, 90.0]), np.array([0.0, 0.0, 90.0])) >> 58
    array([4, 4, 1])
    """
    return cells_of(ra_deg, dec_deg, ORDER)


def cells_of(ra_deg: NDArray[np.floating], dec_deg: NDArray[np.floating], order: int) -> NDArray[np.int64]:
    """NESTED cells of an order that hold ICRS positions in degrees."""
    if len(ra_deg) == 0:
        return np.empty(0, np.int64)
    index = lonlat_to_healpix(
        Longitude(np.asarray(ra_deg, float), u.deg), Latitude(np.asarray(dec_deg, float), u.deg), order
    )
    return np.asarray(index).astype(np.int64)


def cells_around(index29: NDArray[np.int64], radius_arcsec: float) -> tuple[NDArray[np.int64], int]:
    """
    Cells that cover a circle around each position.

    Parameters
    ----------
    index29 : array (n,)
        From `healpix29`.
    radius_arcsec : float
        Radius of the circles.

    Returns
    -------
    cells : array (n, 9)
        NESTED cells: the one of the position and its neighbours, -1 where a corner has none.
    order : int
        Their order; the cells are at least four radii wide, so that thin ones still cover the circle.
    """
    order = int(np.clip(np.floor(np.log2(BASE_SIDE_DEG * 3600 / (4 * radius_arcsec))), 0, ORDER))
    own = (index29 >> (2 * (ORDER - order))).astype(np.uint64)
    cells: NDArray[np.int64] = np.asarray(neighbours(own, order)).astype(np.int64)
    return cells, order
