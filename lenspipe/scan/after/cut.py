"""Stamps of rows of a run: which rows, and where they lie in its tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.catalog.run_rows import Run
from lenspipe.errors import ConfigError
from lenspipe.stamps.cut.parts import TileRows
from lenspipe.stamps.cut.positions import read_columns
from lenspipe.stamps.cut.run import Located, put, with_size
from lenspipe.stamps.cut.select import selection
from lenspipe.survey.tile import Tile
from lenspipe.tables import read_parquet, read_schema

OF_THE_LIST = ("label", "grade", "split", "host")


def rows_of_run(run: Run, *, select: str | None = None, ids: Path | None = None) -> pa.Table:
    """
    Candidates of a run by a condition, by a list, or by both.

    Parameters
    ----------
    run : Run
    select : str, optional
        As `lenspipe.stamps.cut.select.selection` reads it.
    ids : Path, optional
        A text file with a ``candidate_id`` per line, or a CSV or Parquet table with such a column; its columns
        ``label``, ``grade``, ``split`` and ``host`` are taken over.

    Returns
    -------
    pa.Table
        Columns of the run's candidates, with ``ra`` and ``dec`` as ``ra_deg`` and ``dec_deg``; ``run_id`` and
        ``stamp_id``, which is ``run_id/candidate_id``.

    Raises
    ------
    ConfigError
        No row is selected, an id is not in the run (the first is named), or the condition cannot be read.
    """
    file = run.folder / "candidates.parquet"
    names = read_schema(file).names
    condition = None if select is None else selection(select, names)
    listed = None if ids is None else _listed(ids)
    if listed is not None:
        among = pc.field("candidate_id").isin(listed["candidate_id"].combine_chunks())
        condition = among if condition is None else condition & among
    rows = read_parquet(file, filters=condition)
    if listed is not None and select is None and rows.num_rows < listed.num_rows:
        lost = sorted(set(listed["candidate_id"].to_pylist()) - set(rows["candidate_id"].to_pylist()))
        if not lost:
            raise ConfigError("a candidate is listed twice", file=str(ids))
        raise ConfigError("the run has no such candidates", candidate_id=lost[0], n=len(lost), run=str(run.folder))
    if not rows.num_rows:
        raise ConfigError("no candidate of the run is selected", select=select, run=str(run.folder))
    if listed is not None:
        at = pc.index_in(rows["candidate_id"], listed["candidate_id"].combine_chunks())
        for name in OF_THE_LIST:
            if name in listed.column_names:
                rows = put(rows, name, listed[name].take(at))
    named = [f"{run.run_id}/{name}" for name in rows["candidate_id"].to_pylist()]
    rows = rows.rename_columns([{"ra": "ra_deg", "dec": "dec_deg"}.get(n, n) for n in rows.column_names])
    rows = put(rows, "run_id", pa.array([run.run_id] * rows.num_rows))
    rows = put(rows, "survey", pa.array([run.record["request"]["survey"]["name"]] * rows.num_rows))
    return put(put(rows, "stamp_id", pa.array(named)), "size_px", pa.nulls(rows.num_rows, pa.int32()))


def locate_rows(run: Run, rows: pa.Table, *, size_px: int) -> Located:
    """
    Rows of a run by tile: nothing but its own tables is read.

    Parameters
    ----------
    run : Run
    rows : pa.Table
        From `rows_of_run`.
    size_px : int
        Side of the stamps.
    """
    rows = with_size(rows, size_px)
    tiles = set(rows["tile"].unique().to_pylist())
    planned: dict[str, tuple[Tile, tuple[int, int]]] = {}
    for shard in run.plan.filter(pc.is_valid(run.plan["shard_id"])).select(["tile", "files", "core"]).to_pylist():
        name, (_, _, x1, y1) = shard["tile"], shard["core"]
        if name in tiles:
            tile, (height, width) = planned.get(name) or (Tile.from_json(shard["files"]), (0, 0))
            planned[name] = tile, (max(height, y1), max(width, x1))
    found = []
    for name in sorted(planned):
        some = rows.filter(pc.equal(rows["tile"], name)).sort_by("candidate_id")
        found.append(TileRows(*planned[name], some))
    scales = run.shards.filter(pc.is_in(run.shards["tile"], pa.array(sorted(planned))))["pixel_scale_arcsec"]
    return Located(tuple(found), float(np.nanmedian(scales.to_numpy())), ())


def _listed(ids: Path) -> pa.Table:
    if ids.suffix.lower() in (".csv", ".parquet"):
        table = read_columns(ids)
        if "candidate_id" not in table.column_names:
            raise ConfigError(
                "the list of candidates needs a column candidate_id",
                file=str(ids),
                columns=", ".join(table.column_names),
            )
        return table
    try:
        names = [line.strip() for line in ids.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the list of candidates cannot be read: {error}", file=str(ids)) from error
    return pa.table({"candidate_id": pa.array([name for name in names if name], pa.string())})
