"""A picture of the best candidates, cut from the tiles again: the first thing to look at after a scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.bands import colour_bands
from lenspipe.errors import TileError
from lenspipe.image.contact import colour_stamps, contact_sheet, mark_no_data, sample_covered, sample_stamps
from lenspipe.report.picture import labelled, write_png
from lenspipe.scan.after.best import best_candidates
from lenspipe.scan.context import ScanContext
from lenspipe.scan.read import facts_of, flatten, read_shard, task_of
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import Tile

SHEET = "best.png"
N_SHOWN, N_COLUMN = 24, 8
SIDE_ARCSEC, SIDE_PX, SKY_MARGIN_PX = 14.0, 129, 40


def write_sheet(folder: Path, plan: pa.Table, context: ScanContext) -> None:
    """
    Write ``best.png``: the best 24, 14 arcsec a side, with the catalogue's rank, the score and the identifier.

    Colours are those of the gallery (`lenspipe.bands.colour_bands`); one band is grey. North is as in the tile's
    pixels; pixels without data are hatched. A candidate whose tile cannot be read any more is left out.
    """
    best = best_candidates(folder, N_SHOWN).to_pylist()
    tiles = {
        row["tile"]: Tile.from_json(row["files"])
        for row in plan.filter(pc.is_in(plan["tile"], pa.array([r["tile"] for r in best]))).to_pylist()
    }
    shown: list[tuple[dict[str, Any], NDArray[np.uint8]]] = []
    for rows in _by_shard(best).values():
        try:
            stamps = _pictures(tiles[rows[0]["tile"]], rows, context)
        except TileError:
            continue
        shown += zip(rows, stamps, strict=True)
    if not shown:
        return
    shown.sort(key=lambda one: one[0]["rank"])
    pictures = [labelled(stamp, f"#{row['rank']}  {row['score']:.3f}", row["candidate_id"]) for row, stamp in shown]
    write_png(folder / SHEET, contact_sheet(np.stack(pictures), n_column=N_COLUMN))


def _by_shard(best: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows with a score by their shard: what lies together is read once."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in best:
        if row["rank"] is not None:
            groups.setdefault(row["shard_id"], []).append(row)
    return groups


def _pictures(tile: Tile, rows: Sequence[dict[str, Any]], context: ScanContext) -> list[NDArray[np.uint8]]:
    facts = facts_of(tile, context)
    reach = int(SIDE_ARCSEC / facts.pixel_scale_arcsec / 2) + SKY_MARGIN_PX
    x, y = (np.array([row[name] for row in rows]) for name in ("x_px", "y_px"))
    window = Box(
        max(0, round(x.min()) - reach),
        max(0, round(y.min()) - reach),
        min(facts.shape[1], round(x.max()) + reach + 1),
        min(facts.shape[0], round(y.max()) + reach + 1),
    )
    read = read_shard(task_of(tile, window), context, facts=facts)
    bands, flat, channels = read.pixels.bands, flatten(read, context), colour_bands(context.bands)
    rms = {band: sky for band, sky in zip(bands, flat.median_rms, strict=True) if sky}
    where = bands, x - window.x0, y - window.y0
    step_px = SIDE_ARCSEC / SIDE_PX / facts.pixel_scale_arcsec
    stamps = sample_stamps(flat.image, *where, channels=channels, stamp_px=SIDE_PX, step_px=step_px)
    covered = sample_covered(flat.mask, *where, channels=channels, stamp_px=SIDE_PX, step_px=step_px)
    noise = rms.get(channels[len(channels) // 2])  # measured in the stamp where the band has no sky of its own
    colour = colour_stamps(stamps, noise=None if noise is None else np.full(len(channels), noise))
    mark_no_data(colour, np.asarray(covered.all(axis=1)))
    return list(colour)
