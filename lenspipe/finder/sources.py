"""Every source of a run's shards, with what tells stars, early types, blends and saturated cores apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sep
from numpy.typing import NDArray

from lenspipe.bands import selection_band
from lenspipe.errors import TileError
from lenspipe.image.photometry import ab_magnitude
from lenspipe.rundir import atomic_path
from lenspipe.scan.config import SelectConfig
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.read import read_shard
from lenspipe.scan.search import search
from lenspipe.sky.wcs import sky_position
from lenspipe.tables import read_footer, write_table

INNER_ARCSEC, OUTER_ARCSEC = 1.0, 3.0
"""Radii whose fluxes' ratio is the concentration: large for stars, small for discs."""
FLAT_TOP = 0.97
"""Pixels this bright against the peak count as part of a flat top."""
TROUBLE = b"trouble"
"""Key of a part's metadata: what was wrong with a shard that has no sources; empty where nothing was."""
EVERYTHING = SelectConfig(mag_max=None, star_cut=0.0, mask_fraction_max=0.9)
"""A selection that keeps stars and artefacts: a scan's own drops them, and a finder must have seen them."""


def source_schema(bands: tuple[str, ...]) -> pa.Schema:
    """Columns of a table of sources."""
    numbers = {
        "ra": ("deg", "right ascension, ICRS"),
        "dec": ("deg", "declination, ICRS"),
        "x_px": ("pix", "column in the tile, 0-based"),
        "y_px": ("pix", "row in the tile, 0-based"),
        "pixel_scale_arcsec": ("arcsec", "pixel scale of the tile"),
        "mag": ("mag", "AB magnitude in the band of the run's magnitude limits"),
        "half_light_radius_arcsec": ("arcsec", "half-light radius in the detection image"),
        "axis_ratio": ("", "minor over major axis"),
        "angle_rad": ("rad", "major axis from +x (columns) towards +y (rows)"),
        "concentration": ("", "flux within 1 over flux within 3 arcsec, in the band of the magnitude limits"),
        "flat_top_px": ("pix", "pixels around the peak within 3 % of it, in the worst band"),
        "mask_fraction": ("", "masked part of the Kron ellipse"),
    }
    numbers |= {f"mag_{band}": ("mag", f"AB magnitude in {band}") for band in bands}
    numbers |= {f"sky_rms_{band}_njy": ("nJy", f"sky noise of a pixel in {band}") for band in bands}
    return pa.schema(
        [
            pa.field("source_id", pa.string(), metadata={"description": "identifier of the candidate that it may be"}),
            pa.field("tile", pa.string()),
            pa.field("shard_id", pa.string()),
            pa.field("flags", pa.int32(), metadata={"description": "as of a candidate"}),
            *(
                pa.field(name, pa.float64(), metadata={"unit": unit, "description": text})
                for name, (unit, text) in numbers.items()
            ),
        ]
    )


def measure_sources(task: ShardTask, context: ScanContext) -> pa.Table:
    """
    All sources of a shard, found and measured as a scan does, none left out.

    Returns
    -------
    pa.Table
        With `source_schema`; a band that the tile lacks is null.

    Raises
    ------
    TileError
        The tile cannot be used.
    """
    everything = dataclasses.replace(
        context, config=context.config.model_copy(update={"select": EVERYTHING}), models=(), change=None
    )
    read = read_shard(task, everything)
    found = search(read, everything)
    seen, bands, scale = found.candidates, read.pixels.bands, read.facts.pixel_scale_arcsec
    window, n = task.shard.window, len(found.candidates.sources)
    band = bands.index(selection_band(bands))
    x, y = seen.sources.x_px, seen.sources.y_px
    ra, dec = sky_position(read.facts.wcs, x + window.x0, y + window.y0)
    columns: dict[str, object] = {
        "source_id": [f"{task.shard.shard_id}_n{i}" for i in seen.index],
        "tile": [task.shard.tile] * n,
        "shard_id": [task.shard.shard_id] * n,
        "flags": seen.flags,
        "ra": ra,
        "dec": dec,
        "x_px": x + window.x0,
        "y_px": y + window.y0,
        "pixel_scale_arcsec": np.full(n, scale),
        "mag": ab_magnitude(seen.flux_njy[band]),
        "half_light_radius_arcsec": seen.apertures.half_light_radius_px * scale,
        "axis_ratio": seen.sources.b_px / seen.sources.a_px,
        "angle_rad": seen.sources.theta_rad,
        "concentration": concentration(found.flat.image[band], found.flat.mask[band], x, y, pixel_scale_arcsec=scale),
        "flat_top_px": np.max([flat_top_px(plane, x, y) for plane in found.flat.image], axis=0),
        "mask_fraction": seen.apertures.mask_fraction,
    }
    for b, name in enumerate(bands):
        rms = found.flat.median_rms[b]
        columns[f"mag_{name}"] = ab_magnitude(seen.flux_njy[b])
        columns[f"sky_rms_{name}_njy"] = np.full(n, np.nan if rms is None else rms)
    schema = source_schema(context.bands)
    arrays = [
        pa.array(columns[f.name], f.type, from_pandas=True) if f.name in columns else pa.nulls(n, f.type)
        for f in schema
    ]
    return pa.table(arrays, schema=schema)


def write_sources(task: ShardTask, context: ScanContext, folder: Path) -> tuple[int, str]:
    """Measure a shard into a part of ``folder``, unless it is there: its sources, and what is wrong with its tile."""
    part = folder / f"{task.shard.shard_id}.parquet"
    if is_measured(part):
        return read_footer(part).num_rows, trouble_of(part)
    try:
        table, trouble = measure_sources(task, context), ""
    except TileError as error:
        table, trouble = source_schema(context.bands).empty_table(), str(error)
    table = table.replace_schema_metadata({TROUBLE: trouble})
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(part) as path:
        write_table(table, path)
    return table.num_rows, trouble


def is_measured(part: Path) -> bool:
    """Whether a part is there; one without sources that does not say why (by an older version) is measured again."""
    return part.exists() and (read_footer(part).num_rows > 0 or TROUBLE in (pq.read_schema(part).metadata or {}))


def trouble_of(part: Path) -> str:
    """Why a part of `write_sources` has no sources; empty where nothing was wrong with the shard."""
    return (pq.read_schema(part).metadata or {}).get(TROUBLE, b"").decode()


def concentration(
    plane: NDArray[np.float32],
    mask: NDArray[np.bool_],
    x_px: NDArray[np.float64],
    y_px: NDArray[np.float64],
    *,
    pixel_scale_arcsec: float,
) -> NDArray[np.float64]:
    """Flux within 1 arcsec over flux within 3 arcsec ``(n,)``; NaN where the latter is not positive."""
    inner, outer = (
        sep.sum_circle(plane, x_px, y_px, radius / pixel_scale_arcsec, mask=mask, subpix=5)[0]
        for radius in (INNER_ARCSEC, OUTER_ARCSEC)
    )
    return np.where(outer > 0, inner / np.where(outer > 0, outer, 1.0), np.nan)


def flat_top_px(
    plane: NDArray[np.float32], x_px: NDArray[np.float64], y_px: NDArray[np.float64], *, reach_px: int = 3
) -> NDArray[np.float64]:
    """Pixels within `FLAT_TOP` of the brightest one around each position ``(n,)``: a saturated core has many."""
    columns = np.floor(np.asarray(x_px) + 0.5).astype(int)
    rows = np.floor(np.asarray(y_px) + 0.5).astype(int)
    counts = np.zeros(len(columns))
    for k, (column, row) in enumerate(zip(columns, rows, strict=True)):
        box = plane[max(0, row - reach_px) : row + reach_px + 1, max(0, column - reach_px) : column + reach_px + 1]
        counts[k] = np.count_nonzero(box >= FLAT_TOP * box.max()) if box.size and box.max() > 0 else 0
    return counts
