"""Completeness over the sky: a row per HEALPix pixel in which something was painted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from astropy import units as u
from cdshealpix.nested import healpix_to_lonlat

from lenspipe.completeness.points import Point
from lenspipe.completeness.quantities import values_of
from lenspipe.completeness.selection import recovered
from lenspipe.schema import field
from lenspipe.sky.healpix import BASE_SIDE_DEG, cells_of
from lenspipe.stats.intervals import fraction

PER_CELL = 40
"""Lenses that a pixel holds on average, about."""
ORDERS = (3, 12)


def order_for(area_deg2: float, n: int) -> int:
    """
    HEALPix order of pixels that hold `PER_CELL` of ``n`` lenses on an area.

    Examples
    --------
    >>> order_for(0.06, 1000)
    10
    """
    side_deg = np.sqrt(area_deg2 * PER_CELL / max(n, 1))
    return int(np.clip(np.floor(np.log2(BASE_SIDE_DEG / max(side_deg, 1e-6))), *ORDERS))


def cells_schema(points: Sequence[Point]) -> pa.Schema:
    """Columns of ``healpix.parquet``."""
    per_point = [
        item
        for k, point in enumerate(points)
        for item in (
            field(f"recovered_{k}", pa.int64(), f"Lenses recovered at {point.name}"),
            field(f"completeness_{k}", pa.float64(), f"Part of them, at {point.name}"),
            field(f"completeness_low_{k}", pa.float64(), "Lower end of its 95 % interval"),
            field(f"completeness_high_{k}", pa.float64(), "Upper end of its 95 % interval"),
        )
    ]
    return pa.schema(
        [
            field("cell", pa.int64(), "HEALPix pixel, NESTED, ICRS", ucd="pos.healpix"),
            field("order", pa.int32(), "HEALPix order; nside is 2 to its power"),
            field("ra", pa.float64(), "Right ascension of its centre, ICRS", unit="deg", ucd="pos.eq.ra;meta.main"),
            field("dec", pa.float64(), "Declination of its centre, ICRS", unit="deg", ucd="pos.eq.dec;meta.main"),
            field("injected", pa.int64(), "Lenses painted", ucd="meta.number"),
            *per_point,
            field("seeing_arcsec", pa.float64(), "Median FWHM of the PSF", unit="arcsec", ucd="phys.angSize"),
            field("depth_mag", pa.float64(), "Median 5 sigma depth in a 2 arcsec aperture", unit="mag", ucd="phot.mag"),
        ]
    )


def cells_table(
    injections: pa.Table, points: Sequence[Point], *, area_deg2: float, band: str, colour: tuple[str, str] | None
) -> pa.Table:
    """One row per pixel, in order of the pixels; seeing and depth in ``band``."""
    order = order_for(area_deg2, injections.num_rows)
    cell = cells_of(injections["ra"].to_numpy(), injections["dec"].to_numpy(), order)
    values = values_of(injections, band=band, colour=colour)
    passed = [recovered(injections, point.threshold) for point in points]
    rows: list[dict[str, Any]] = []
    for one in np.unique(cell):
        inside = cell == one
        lon, lat = healpix_to_lonlat(np.array([one], np.uint64), order)
        row: dict[str, Any] = {
            "cell": int(one),
            "order": order,
            "ra": float(lon.to_value(u.deg)[0]),
            "dec": float(lat.to_value(u.deg)[0]),
            "injected": int(inside.sum()),
            "seeing_arcsec": float(np.nanmedian(values["seeing_arcsec"][inside])),
            "depth_mag": float(np.nanmedian(values["depth_mag"][inside])),
        }
        for k, ok in enumerate(passed):
            part = fraction(int(ok[inside].sum()), int(inside.sum()))
            low, high = part["interval95"]
            row |= {f"recovered_{k}": part["k"], f"completeness_{k}": part["value"]}
            row |= {f"completeness_low_{k}": low, f"completeness_high_{k}": high}
        rows.append(row)
    return pa.Table.from_pylist(rows, cells_schema(points))
