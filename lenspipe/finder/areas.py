"""Cells of the sky dealt to training, validation and test, so that no pixel serves two purposes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.sky.healpix import cells_of
from lenspipe.sky.sphere import ring_around
from lenspipe.stamps.spec import SPLITS

ORDERS = (6, 7, 8, 9, 10, 11)
"""HEALPix orders that are tried, 55 to 1.7 arcmin: the coarsest with enough cells is taken."""
LEAST_CELLS = 15


def split_by_area(
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    counted: NDArray[np.bool_],
    *,
    fractions: Sequence[float],
    margin_arcsec: float,
    seed: int,
) -> tuple[NDArray[np.object_], int]:
    """
    Split of each position by its cell of the sky; None within a margin of a cell of another split.

    Cells are of the coarsest HEALPix order that has 15 of them, and are dealt, in an order that the seed draws, to the
    split that lacks most of its fraction of what is counted: a single tile has too few cells to leave that to chance.

    Parameters
    ----------
    ra_deg, dec_deg : arrays (n,)
    counted : array (n,), bool
        Positions whose numbers are to have the fractions: hosts.
    fractions : three numbers
        Of `lenspipe.stamps.spec.SPLITS`.
    margin_arcsec : float
        Half the diagonal of a stamp, so that two stamps of different splits share no pixel.
    seed : int

    Returns
    -------
    splits : array (n,)
    order : int
        HEALPix order of the cells.
    """
    order = next((o for o in ORDERS if len(np.unique(cells_of(ra_deg, dec_deg, o))) >= LEAST_CELLS), ORDERS[-1])
    cell = cells_of(ra_deg, dec_deg, order)
    distinct, inverse = np.unique(cell, return_inverse=True)
    weight = np.bincount(inverse, weights=counted + 1e-3, minlength=len(distinct))
    drawn = sorted(range(len(distinct)), key=lambda k: _drawn(int(distinct[k]), seed))
    total, given = weight.sum(), np.zeros(len(SPLITS))
    wanted = np.asarray(fractions, float) / np.sum(fractions)
    dealt: dict[int, str] = {}
    for k in sorted(drawn, key=lambda k: -weight[k]):
        number = int(np.argmax(np.where(wanted > 0, wanted - given / total, -np.inf)))
        given[number] += weight[k]
        dealt[int(distinct[k])] = SPLITS[number]
    splits = np.array([dealt[int(c)] for c in cell], object)
    for near_ra, near_dec in ring_around(ra_deg, dec_deg, radius_arcsec=margin_arcsec, n=16):
        beside = cells_of(near_ra, near_dec, order)
        other = np.array([dealt.get(int(c), s) for c, s in zip(beside, splits, strict=True)], object)
        splits[(other != splits) & (splits != None)] = None  # noqa: E711 (elementwise)
    return splits, order


def _drawn(cell: int, seed: int) -> bytes:
    return hashlib.blake2b(str(cell).encode(), digest_size=8, key=str(seed).encode()).digest()
