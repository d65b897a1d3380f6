"""Stamps of a run's sky at given positions, on the grid of a finder."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.catalog.run_rows import Run
from lenspipe.errors import TileError
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.scan.after.context import context_of
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.plan import tasks_of
from lenspipe.scan.read import facts_of, flatten, read_shard
from lenspipe.simulate.on_hosts import to_grid
from lenspipe.sky.sphere import inside_corners
from lenspipe.stamps.format import ImageSpec

LEAST_COVERED = 0.75
"""Part of a stamp that must hold data."""


def cut_positions(
    run: Run, spec: ImageSpec, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], dict[str, str]]:
    """
    Cut stamps at positions from the shards that hold them.

    Returns
    -------
    pixels_njy : array (n, band, y, x)
        Of the positions ``kept``.
    kept : array (n,)
        Numbers of the positions that have a stamp, of whose pixels three quarters hold data.
    outside : array
        Numbers of the positions that lie in no shard that is ok.
    failed : dict
        Why positions of a tile have no stamp, by the tile: it cannot be read any more, or lacks a band.
    """
    context, stamps, kept = context_of(run), [], []
    failed: dict[str, str] = {}
    shard_of = shards_of(run, ra_deg, dec_deg)
    for task in tasks_of(run.plan):
        here = np.flatnonzero(shard_of == task.shard.shard_id)
        if not len(here):
            continue
        try:
            cut, covered = _cut_shard(task, context, spec, ra_deg[here], dec_deg[here])
        except TileError as error:
            failed[task.tile.name] = error.message
            continue
        good = covered >= LEAST_COVERED
        stamps.append(cut[good])
        kept += here[good].tolist()
    pixels = np.concatenate(stamps) if stamps else np.empty((0, *spec.shape), np.float32)
    return pixels, np.array(kept, np.int64), np.flatnonzero(shard_of == ""), failed


def shards_of(run: Run, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.object_]:
    """Names ``(n,)`` of the shards, of those that are ok, that hold positions; the first of the plan, or empty."""
    found = np.full(len(ra_deg), "", object)
    rows = {row["shard_id"]: row for row in run.shards.filter(pc.equal(run.shards["status"], "ok")).to_pylist()}
    for task in tasks_of(run.plan):
        if (row := rows.get(task.shard.shard_id)) is not None:
            inside = inside_corners(ra_deg, dec_deg, row["corner_ra_deg"], row["corner_dec_deg"])
            found[inside & (found == "")] = task.shard.shard_id
    return found


def _cut_shard(
    task: ShardTask, context: ScanContext, spec: ImageSpec, ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    facts = facts_of(task.tile, context)
    read = read_shard(task, context, facts=facts)
    bands = read.pixels.bands
    if missing := [band for band in spec.bands if band not in bands]:
        raise TileError("the tile lacks a band", tile=task.tile.name, missing=" ".join(missing))
    flat, order = flatten(read, context), [bands.index(band) for band in spec.bands]
    x, y = facts.wcs.all_world2pix(ra, dec, 0)
    window, scale = task.shard.window, facts.pixel_scale_arcsec
    side = 2 * int(np.ceil((spec.size_px + 4) * spec.pixel_scale_arcsec / scale / 2)) + 1
    cut, covered = extract_cutouts(flat.image[order], flat.mask[order], x - window.x0, y - window.y0, size_px=side)
    on_grid = [to_grid(stamp, scale, spec.size_px, spec.pixel_scale_arcsec) for stamp in cut]
    return np.stack(on_grid), covered
