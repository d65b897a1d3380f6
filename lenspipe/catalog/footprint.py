"""The area that was searched: a MOC 2.0 of the shards that are ok, which is not where candidates are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.coordinates import Latitude, Longitude
from astropy.units import deg
from numpy.typing import NDArray

from lenspipe.sky.healpix import BASE_SIDE_DEG
from lenspipe.sky.sphere import ARCSEC_PER_DEG, separation_arcsec

if TYPE_CHECKING:  # it brings matplotlib and networkx, a quarter of a second; most commands need no footprint
    from mocpy import MOC

LOWEST_ORDER, HIGHEST_ORDER = 11, 18
_CELLS_PER_SIDE = 64
"""Cells along the side of the median shard, at least: the MOC over-covers a lone shard by 4/64 or less."""


def footprint(shards: pa.Table) -> MOC:
    """
    MOC of the cores of the shards whose status is ok.

    It covers every pixel searched, and at its rim up to a cell more; masked pixels inside are not cut out. The exact
    area, without them, is the sum of ``area_deg2``.

    Parameters
    ----------
    shards : pa.Table
        With ``status``, ``corner_ra_deg`` and ``corner_dec_deg`` (n, 4).

    Returns
    -------
    MOC
        Empty where no shard is ok.
    """
    from mocpy import MOC

    ok = shards.filter(pc.equal(shards["status"], "ok"))
    if not ok.num_rows:
        return MOC.new_empty(LOWEST_ORDER)
    ra = np.array(ok["corner_ra_deg"].to_pylist(), float)
    dec = np.array(ok["corner_dec_deg"].to_pylist(), float)
    order = _order_for(ra, dec)
    polygons = [corner for pair in zip(ra, dec, strict=True) for corner in pair]
    mocs = MOC.from_polygons(polygons, max_depth=order)
    return mocs[0].union(*mocs[1:]) if len(mocs) > 1 else mocs[0]


def _order_for(ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> int:
    """Order of which `_CELLS_PER_SIDE` cells fit along the median side; a sliver does not make the MOC huge."""
    sides = separation_arcsec(ra_deg, dec_deg, np.roll(ra_deg, 1, axis=1), np.roll(dec_deg, 1, axis=1))
    side_deg = float(np.median(sides)) / ARCSEC_PER_DEG
    return int(
        np.clip(np.ceil(np.log2(BASE_SIDE_DEG * _CELLS_PER_SIDE / max(side_deg, 1e-6))), LOWEST_ORDER, HIGHEST_ORDER)
    )


def write_footprint(moc: MOC, path: Path) -> None:
    """Write a MOC as FITS, its standard serialization."""
    moc.save(path, format="fits", overwrite=True)


def read_footprint(path: Path) -> MOC:
    """Read what `write_footprint` wrote."""
    from mocpy import MOC

    return MOC.load(path, format="fits")


def inside(moc: MOC, ra_deg: NDArray[np.floating], dec_deg: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which positions lie in the footprint."""
    if not len(ra_deg):
        return np.zeros(0, bool)
    return np.asarray(
        moc.contains_lonlat(Longitude(np.asarray(ra_deg, float), deg), Latitude(np.asarray(dec_deg, float), deg))
    )
