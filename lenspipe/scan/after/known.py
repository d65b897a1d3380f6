"""Why a known lens inside the footprint is no candidate: the pixels at its place say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.catalog import folder as names
from lenspipe.catalog.match import ABSENT, FATES, recall
from lenspipe.catalog.run_rows import Run
from lenspipe.errors import TileError
from lenspipe.rundir import atomic_path, write_json
from lenspipe.scan.after.context import context_of
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.plan import tasks_of
from lenspipe.scan.read import read_shard
from lenspipe.scan.search import search
from lenspipe.sky.sphere import inside_corners
from lenspipe.tables import read_parquet, write_table

MASKED, NOT_SELECTED, NOT_DETECTED = "masked", "detected, not selected", "not detected"
NOT_OPENED, RIM = "tile cannot be opened", "outside the shards, in the rim of the footprint"
SEEN = (NOT_SELECTED, NOT_DETECTED, MASKED, NOT_OPENED, RIM, ABSENT)
"""What can be said of a known lens that is no candidate, from the most that was seen of it to the least."""
MASKED_FROM = 0.5
"""Masked part of the circle of the match, in the worst band, from which a lens counts as masked."""


def examine_absent(run: Run, out: Path, record: dict[str, Any]) -> dict[str, Any]:
    """
    Tell for each known lens that is no candidate whether it was masked, not detected, or not selected.

    Only lenses inside shards of ``run`` are looked at, also those of which an earlier run has said something: of two
    words the one that saw more counts (`SEEN`). ``known_lenses.parquet`` and ``provenance.json`` of the catalogue are
    written again.

    Returns
    -------
    dict
        The record with the new fates.
    """
    if not record["known_lenses"]:
        return record
    table = read_parquet(out / names.KNOWN_LENSES)
    fate = table["fate"].to_pylist()
    absent = [i for i, word in enumerate(fate) if word in SEEN]
    if not absent:
        return record
    ra, dec = (table[name].to_numpy()[absent] for name in ("ra", "dec"))
    words = why_absent(run, ra, dec, radius_arcsec=record["known_lenses"]["radius_arcsec"])
    for i, word in zip(absent, words, strict=True):
        fate[i] = min(fate[i], word or fate[i], key=SEEN.index)
    if len(record["runs"]) == 1:
        fate = [RIM if word == ABSENT else word for word in fate]
    table = table.set_column(table.schema.get_field_index("fate"), FATES.field("fate"), pa.array(fate, pa.string()))
    with atomic_path(out / names.KNOWN_LENSES) as path:
        write_table(table, path)
    record["known_lenses"]["recall"] = recall(table)
    write_json(out / names.PROVENANCE, record)
    return record


def why_absent(run: Run, ra_deg: np.ndarray, dec_deg: np.ndarray, *, radius_arcsec: float) -> list[str | None]:
    """
    What the shard at each position shows; None where no shard of the run that is ok holds it.

    The shard is measured again: a source within the radius means that the selection refused it.
    """
    context = context_of(run)
    words: list[str | None] = [None] * len(ra_deg)
    planned = {task.shard.shard_id: task for task in tasks_of(run.plan)}
    for shard in run.shards.filter(pc.equal(run.shards["status"], "ok")).to_pylist():
        members = np.flatnonzero(inside_corners(ra_deg, dec_deg, shard["corner_ra_deg"], shard["corner_dec_deg"]))
        members = np.array([i for i in members if words[i] is None], int)
        if len(members):
            found = _look(planned[shard["shard_id"]], context, ra_deg[members], dec_deg[members], radius_arcsec)
            for i, word in zip(members, found, strict=True):
                words[i] = word
    return words


def _look(
    task: ShardTask, context: ScanContext, ra_deg: np.ndarray, dec_deg: np.ndarray, radius_arcsec: float
) -> list[str]:
    window = task.shard.window
    try:
        read = read_shard(task, context)
        found = search(read, context)
    except TileError:
        return [NOT_OPENED] * len(ra_deg)
    facts, masks, sources = read.facts, found.flat.mask, found.sources.sources
    x_px, y_px = facts.wcs.all_world2pix(ra_deg, dec_deg, 0)
    x_px, y_px = x_px - window.x0, y_px - window.y0
    radius_px = radius_arcsec / facts.pixel_scale_arcsec
    rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
    words = []
    for x, y in zip(x_px, y_px, strict=True):
        r = int(np.ceil(radius_px))
        box = np.s_[max(0, int(y) - r) : int(y) + r + 2, max(0, int(x) - r) : int(x) + r + 2]
        circle = np.hypot(columns[box] - x, rows[box] - y) <= radius_px
        masked = max((float(mask[box][circle].mean()) for mask in masks), default=1.0) if circle.any() else 1.0
        apart = np.hypot(sources.x_px - x, sources.y_px - y)
        if len(apart) and apart.min() <= radius_px:
            words.append(NOT_SELECTED)
        else:
            words.append(MASKED if masked >= MASKED_FROM else NOT_DETECTED)
    return words
