"""The end of every catalogue, however its tree was written: shards, tiles, footprint, fates, record."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.catalog import folder as names
from lenspipe.catalog.columns import KNOWN, RUN_ID
from lenspipe.catalog.footprint import footprint, read_footprint, write_footprint
from lenspipe.catalog.hats import read_pixels
from lenspipe.catalog.match import fates, recall, with_earlier_words
from lenspipe.catalog.provenance import Matching, provenance
from lenspipe.catalog.run_rows import Run
from lenspipe.disk import is_scratch
from lenspipe.readme import README, is_ours
from lenspipe.rundir import write_json
from lenspipe.tables import read_parquet, read_schema, write_table

FULL_SKY_DEG2 = 41252.96125
_READ = ["candidate_id", "run_id", "ra", "dec", "rank", "score", "n_detection", KNOWN[-1]]


def finish_catalog(
    new: Path,
    run: Run,
    *,
    out: Path,
    before: dict[str, Any] | None,
    n_new: int,
    n_merged: int,
    radius_arcsec: float,
    acronym: str,
    matching: Matching | None,
    catalogue_id: str,
) -> dict[str, Any]:
    """
    Write what belongs to the HATS tree in ``new``; the tree is read a pixel at a time.

    Parameters
    ----------
    new : Path
        Scratch folder that is to become ``out``; it holds the tree.
    run : Run
        Run that is added.
    out : Path
        Folder of the catalogue.
    before : dict or None
        Record of the catalogue in ``out`` that the run is added to: its shards, tiles, footprint, fates and gallery
        go on in the new one.
    n_new, n_merged : int
        Rows that the run adds, and detections that are not a row of their own for it.
    radius_arcsec, acronym, matching
        As in `lenspipe.catalog.write.write_catalog`.
    catalogue_id : str
        As in `lenspipe.catalog.provenance.provenance`.

    Returns
    -------
    dict
        The record that is written as ``provenance.json``.
    """
    searched, tiles, moc = with_run_id(run.shards, run.run_id), tiles_of(run), footprint(run.shards)
    if before:
        searched = _below(read_parquet(out / names.SHARDS), searched)
        tiles = pa.concat_tables([read_parquet(out / names.TILES), tiles])
        moc = read_footprint(out / names.FOOTPRINT).union(moc)
    write_table(searched, new / names.SHARDS)
    write_table(tiles, new / names.TILES)
    write_footprint(moc, new / names.FOOTPRINT)
    kept, near_lenses = sums_of(new / names.HATS)
    found = fates_of(near_lenses, matching, out if before else None, new) if matching else None
    added = {"rows": n_new, "merged": n_merged}
    record = provenance(run, before, kept, added, searched, radius_arcsec, acronym, matching, found, catalogue_id)
    record["area"]["footprint_deg2"] = moc.sky_fraction * FULL_SKY_DEG2
    write_json(new / names.PROVENANCE, record)
    if before:
        if (out / names.REMOVED).exists():
            names.link_or_copy(out / names.REMOVED, new / names.REMOVED)
        carry_over(out, new)
    return record


def fates_of(near: pa.Table, matching: Matching, old: Path | None, new: Path) -> dict[str, Any]:
    """
    Write ``known_lenses.parquet`` of a catalogue, and return the recall.

    Parameters
    ----------
    near : pa.Table
        Its rows with a known lens, from `sums_of`.
    matching : Matching
    old : Path or None
        The catalogue before, whose words on lenses that are no candidates stay.
    new : Path
        Folder of the catalogue; it holds the footprint.
    """
    table = fates(
        near,
        matching.lenses,
        read_footprint(new / names.FOOTPRINT),
        radius_arcsec=matching.radius_arcsec,
        trained_on=matching.trained_on,
    )
    if old is not None and (old / names.KNOWN_LENSES).exists():
        table = with_earlier_words(table, read_parquet(old / names.KNOWN_LENSES))
    write_table(table, new / names.KNOWN_LENSES)
    return recall(table)


def _below(earlier: pa.Table, later: pa.Table) -> pa.Table:
    """Rows of earlier runs above later ones; columns that an older version did not write are null."""
    both = pa.concat_tables([earlier, later], promote_options="default").select(later.column_names)
    return both.cast(later.schema)


def sums_of(root: Path) -> tuple[dict[str, int], pa.Table]:
    """Counts of a tree, and its rows with a known lens, in the columns that fates need."""
    kept = {"rows": 0, "scored_rows": 0, "detections": 0}
    schema = read_schema(root / "dataset" / "_common_metadata")
    near = [pa.schema([schema.field(name) for name in _READ]).empty_table()]
    for pixel in read_pixels(root):
        rows = read_parquet(root / "dataset" / pixel.path, columns=_READ)
        kept["rows"] += rows.num_rows
        kept["scored_rows"] += rows.num_rows - rows["score"].null_count
        kept["detections"] += pc.sum(rows["n_detection"]).as_py() or 0
        near.append(rows.filter(pc.is_valid(rows[KNOWN[-1]])).cast(near[0].schema))
    return kept, pa.concat_tables(near)


def with_run_id(shards: pa.Table, run_id: str) -> pa.Table:
    """Rows with the run that they come from as first column."""
    return shards.add_column(0, RUN_ID, pa.array([run_id] * shards.num_rows, pa.string()))


def tiles_of(run: Run) -> pa.Table:
    """Files of each tile, as the plan has them; what pictures are cut from."""
    plan = run.plan.filter(pc.is_valid(run.plan["shard_id"]))
    tiles = (
        plan.group_by("tile", use_threads=False)
        .aggregate([("files", "first")])
        .rename_columns(["tile", "files"])
        .sort_by("tile")
    )
    return with_run_id(tiles, run.run_id)


def carry_over(out: Path, new: Path) -> None:
    """What else the old folder holds (a gallery, somebody's README) goes with it; what is of its rows does not."""
    for entry in out.iterdir():
        target = new / entry.name
        if entry.name == README and not is_ours(entry):
            target.unlink(missing_ok=True)
        stale = names.VERSION_FILE.match(entry.name) is not None and entry.name != README
        if target.exists() or stale or is_scratch(entry.name) or entry.name == names.GALLERY_LOCK:
            continue
        if entry.is_symlink():
            target.symlink_to(os.readlink(entry))
        elif entry.is_dir():
            shutil.copytree(
                entry, target, symlinks=True, copy_function=lambda a, b: names.link_or_copy(Path(a), Path(b))
            )
        else:
            names.link_or_copy(entry, target)
