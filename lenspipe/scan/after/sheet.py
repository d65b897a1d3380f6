"""A picture of the best candidates, cut from the tiles again: the first thing to look at after a scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lenspipe.bands import colour_bands
from lenspipe.errors import TileError
from lenspipe.image.contact import colour_stamps, contact_sheet, sample_stamps
from lenspipe.report.picture import write_png
from lenspipe.scan.context import ScanContext
from lenspipe.scan.finalize import CANDIDATES
from lenspipe.scan.read import facts_of, flatten, read_shard, task_of
from lenspipe.sky.sphere import first_of_each
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import Tile
from lenspipe.tables import open_parquet

SHEET = "best.png"
N_SHOWN, N_COLUMN = 24, 8
SIDE_ARCSEC, SIDE_PX, SKY_MARGIN_PX = 14.0, 129, 40
SAME_SOURCE_ARCSEC = 3.0
"""Closer than this, two rows are one object: seen by two tiles, or a deflector and its own arc."""


def best_candidates(file: pq.ParquetFile, n: int) -> pa.Table:
    """The best ``n`` rows of a catalogue that is sorted by score; rows of one object count once."""
    head = next(file.iter_batches(batch_size=20 * n), None)
    if head is None:
        return file.schema_arrow.empty_table()
    table = pa.Table.from_batches([head])
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    return table.take(first_of_each(ra, dec, radius_arcsec=SAME_SOURCE_ARCSEC)[:n])


def write_sheet(folder: Path, plan: pa.Table, context: ScanContext) -> None:
    """
    Write ``best.png``: the best 24, 14 arcsec a side, with rank and score.

    Colours are those of the gallery (`lenspipe.bands.colour_bands`); one band is grey. North is as in the tile's
    pixels. A candidate whose tile cannot be read any more is left out.
    """
    from PIL import Image, ImageDraw

    best = best_candidates(open_parquet(folder / CANDIDATES), N_SHOWN).to_pylist()
    tiles = {
        row["tile"]: Tile.from_json(row["files"])
        for row in plan.filter(pc.is_in(plan["tile"], pa.array([r["tile"] for r in best]))).to_pylist()
    }
    shown: list[tuple[int, str, NDArray[np.uint8]]] = []
    for rows in _by_shard(best).values():
        try:
            stamps = _pictures(tiles[rows[0][1]["tile"]], [row for _, row in rows], context)
        except TileError:
            continue
        shown += [(rank, f"{rank}  {row['score']:.3f}", stamp) for (rank, row), stamp in zip(rows, stamps, strict=True)]
    if not shown:
        return
    pictures = []
    for _, label, stamp in sorted(shown, key=lambda one: one[0]):
        picture = Image.fromarray(np.ascontiguousarray(stamp[::-1]))
        ImageDraw.Draw(picture).text((4, 2), label, fill=(255, 255, 255))
        pictures.append(np.asarray(picture)[::-1])
    write_png(folder / SHEET, contact_sheet(np.stack(pictures), n_column=N_COLUMN))


def _by_shard(best: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Ranks and rows with a score by their shard: what lies together is read once."""
    groups: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for rank, row in enumerate(best, 1):
        if row["score"] is not None:
            groups.setdefault(row["shard_id"], []).append((rank, row))
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
    stamps = sample_stamps(
        flat.image,
        bands,
        x - window.x0,
        y - window.y0,
        channels=channels,
        stamp_px=SIDE_PX,
        step_px=SIDE_ARCSEC / SIDE_PX / facts.pixel_scale_arcsec,
    )
    noise = rms.get(channels[len(channels) // 2])  # measured in the stamp where the band has no sky of its own
    return list(colour_stamps(stamps, noise=None if noise is None else np.full(len(channels), noise)))
