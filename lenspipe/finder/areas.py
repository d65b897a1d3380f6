"""Cells of the sky dealt to training, validation and test, so that no pixel serves two purposes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenspipe.sky.healpix import cells_of
from lenspipe.sky.sphere import ring_around
from lenspipe.stamps.spec import SPLITS

ORDERS = (6, 7, 8, 9, 10, 11)
"""HEALPix orders that are tried, 55 to 1.7 arcmin: the coarsest with enough cells is taken."""
LEAST_CELLS = 15


@dataclass(frozen=True)
class Areas:
    """Which cell of the sky serves which split."""

    order: int
    """HEALPix order of the cells."""
    split: dict[int, str]
    """Split of each cell that holds a source."""
    margin_arcsec: float
    """Half the diagonal of a stamp: nothing so near to a cell of another split is used."""

    def of(self, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.object_]:
        """Split of each position ``(n,)``; None outside the cells, and within the margin of another split's cell."""
        splits = self._at(ra_deg, dec_deg)
        out = splits.copy()
        for near_ra, near_dec in ring_around(ra_deg, dec_deg, radius_arcsec=self.margin_arcsec, n=16):
            beside = self._at(near_ra, near_dec)
            out[[one is not None and one != two for one, two in zip(beside, splits, strict=True)]] = None
        return out

    def _at(self, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.object_]:
        cells = cells_of(np.asarray(ra_deg, float), np.asarray(dec_deg, float), self.order)
        found = np.empty(len(cells), object)
        found[:] = [self.split.get(int(cell)) for cell in cells]
        return found


def deal_areas(
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    counted: NDArray[np.bool_],
    *,
    fractions: Sequence[float],
    margin_arcsec: float,
    seed: int,
) -> Areas:
    """
    Deal the cells of the sky that hold sources to the splits.

    Cells are of the coarsest HEALPix order that has 15 of them. The fullest is dealt first, equals in an order that the
    seed draws, to the split that lacks most of its fraction of what is counted: a single tile has too few cells to
    leave that to chance.

    Parameters
    ----------
    ra_deg, dec_deg : arrays (n,)
        Sources.
    counted : array (n,), bool
        Those whose numbers are to have the fractions: hosts.
    fractions : three numbers
        Of `lenspipe.stamps.spec.SPLITS`.
    margin_arcsec : float
    seed : int
    """
    order = next((o for o in ORDERS if len(np.unique(cells_of(ra_deg, dec_deg, o))) >= LEAST_CELLS), ORDERS[-1])
    distinct, inverse = np.unique(cells_of(ra_deg, dec_deg, order), return_inverse=True)
    # a cell without a host weighs a little, by its sources, so that it is dealt too
    weight = np.bincount(inverse, weights=counted + 1e-3, minlength=len(distinct))
    wanted = np.asarray(fractions, float) / np.sum(fractions)
    given = np.zeros(len(SPLITS))
    split = {}
    for k in sorted(range(len(distinct)), key=lambda k: (-weight[k], _drawn(int(distinct[k]), seed))):
        number = int(np.argmax(np.where(wanted > 0, wanted - given / weight.sum(), -np.inf)))
        given[number] += weight[k]
        split[int(distinct[k])] = SPLITS[number]
    return Areas(order, split, margin_arcsec)


def _drawn(cell: int, seed: int) -> bytes:
    return hashlib.blake2b(str(cell).encode(), digest_size=8, key=str(seed).encode()).digest()
