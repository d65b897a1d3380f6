"""From ledger parts to the tables of a run; each file appears whole or not at all."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lenspipe.catalog.vectors import EMBEDDINGS, GROUP_ROWS
from lenspipe.disk import scratch_beside
from lenspipe.image.psf_table import PSF_FILE
from lenspipe.rundir import atomic_path
from lenspipe.scan.gather import Gathered, gathered
from lenspipe.scan.ledger import PARTS, part_files
from lenspipe.scan.sort import write_sorted
from lenspipe.scan.spill import Spill
from lenspipe.schema import FAILURES
from lenspipe.survey.tile import Tile
from lenspipe.tables import open_parquet, read_parquet, table_writer, write_table

Settle = Callable[[NDArray[np.floating]], NDArray[np.float64] | None]
"""From raw scores to probabilities."""
CANDIDATES, SHARDS, FAILED = "candidates.parquet", "shards.parquet", "failures.parquet"


@dataclasses.dataclass(frozen=True)
class Totals:
    """What a run came to; the counts of `shards.parquet` and `failures.parquet` add up to them."""

    tiles: int
    shards: int
    shards_ok: int
    sources: int
    candidates: int
    scored: int
    failures: int
    area_deg2: float


def finalize(
    folder: Path, plan: pa.Table, bands: tuple[str, ...], *, settle: Callable[[float, int], Settle | None] | None = None
) -> tuple[Totals, list[dict[str, Any]]]:
    """
    Write ``shards``, ``failures``, ``psf`` and ``candidates.parquet`` from the ledger, and ``embeddings.parquet`` where
    a model gave vectors.

    Parameters
    ----------
    folder : Path
        Run folder.
    plan : pa.Table
    bands : tuple of str
    settle : function, optional
        Given the area searched [deg2] and the number of candidates in shards that were scored: what takes scores to the
        probabilities that replace the ledger's, or None where there are none to be had.

    Returns
    -------
    Totals
    inputs : list of dict
        Files of the tiles, with size and checksum.

    Raises
    ------
    RuntimeError
        A planned shard has no row: the ledger does not hold the whole run.
    """
    planned = set(plan["shard_id"].drop_null().to_pylist())
    scratch = scratch_beside(folder / "tables")
    scratch.mkdir(parents=True)
    try:
        with gathered(part_files(folder / PARTS), planned, bands, scratch) as found:
            return _tables(folder, plan, planned, bands, found, settle)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _tables(
    folder: Path,
    plan: pa.Table,
    planned: set[str],
    bands: tuple[str, ...],
    found: Gathered,
    settle: Callable[[float, int], Settle | None] | None,
) -> tuple[Totals, list[dict[str, Any]]]:
    if found.shards.num_rows != len(planned):
        missing = planned.difference(*(ids.to_pylist() for ids in found.ids))
        raise RuntimeError(f"{len(missing)} planned shards have no row in the ledger, the first is {min(missing)}")
    for name, spill in ((SHARDS, found.shards), (PSF_FILE, found.psf)):
        with atomic_path(folder / name) as path, table_writer(path, spill.schema) as writer:
            for items in found.in_order():
                writer.write(spill.of_items(items))
    names = ["tile", "status", "area_deg2", "n_source", "n_candidate", *(f"masked_{band}" for band in bands)]
    shards = read_parquet(folder / SHARDS, columns=names)
    failures = _failures(plan, found.failures, shards, bands)
    with atomic_path(folder / FAILED) as path:
        write_table(failures, path)
    if found.vectors is not None:
        with atomic_path(folder / EMBEDDINGS) as path:
            write_embeddings(path, found, found.vectors)
    n_candidate = found.candidates.num_rows
    area_deg2 = pc.sum(shards["area_deg2"]).as_py() or 0.0
    chunks = found.candidates.tables
    if settle is not None:
        chunks = partial(_settled, chunks, settle(area_deg2, found.n_shown))
    with atomic_path(folder / CANDIDATES) as path:
        write_sorted(path, found.candidates.schema, chunks, n_row=n_candidate, scratch=folder / ".sort")
    score = open_parquet(folder / CANDIDATES).metadata
    totals = Totals(
        tiles=pc.count_distinct(plan["tile"]).as_py(),
        shards=len(planned),
        shards_ok=pc.sum(pc.equal(shards["status"], "ok")).as_py() or 0,
        sources=pc.sum(shards["n_source"]).as_py() or 0,
        candidates=n_candidate,
        scored=n_candidate - _nulls(score, "score"),
        failures=failures.num_rows,
        area_deg2=area_deg2,
    )
    return totals, sorted(found.inputs, key=lambda item: str(item["file"]))


def write_embeddings(path: Path, found: Gathered, vectors: Spill) -> None:
    """
    Identifiers and vectors of the candidates that have one, by identifier.

    A group of rows says between which identifiers it lies, so that those of one place on the sky are found without
    reading the rest; memory holds those of a few hundred shards.
    """
    held = vectors.schema.empty_table()
    with table_writer(path, vectors.schema) as writer:
        for items in found.in_order():
            held = pa.concat_tables([held, vectors.of_items(items).sort_by("candidate_id")])
            while held.num_rows >= GROUP_ROWS:
                writer.write(held.slice(0, GROUP_ROWS))
                held = held.slice(GROUP_ROWS)
        if held.num_rows:
            writer.write(held)


def _failures(plan: pa.Table, failed: list[dict[str, Any]], shards: pa.Table, bands: tuple[str, ...]) -> pa.Table:
    rows = [
        {**{key: row[key] for key in ("tile", "file", "error_type", "message")}, "shard_id": None, "stage": "plan"}
        for row in plan.filter(pc.is_null(plan["shard_id"])).to_pylist()
    ]
    rows += failed
    rows += _tiles_without_data(shards, plan, bands)
    return pa.Table.from_pylist(rows, FAILURES).sort_by([("tile", "ascending"), ("shard_id", "ascending")])


def _tiles_without_data(shards: pa.Table, plan: pa.Table, bands: tuple[str, ...]) -> list[dict[str, Any]]:
    """Tiles of which a band holds no usable pixel at all: that is a broken file, not an edge of the survey."""
    rows = []
    for band in bands:
        column = f"masked_{band}"
        ok = shards.filter(pc.and_(pc.equal(shards["status"], "ok"), pc.is_valid(shards[column])))
        least = ok.group_by("tile").aggregate([(column, "min")])
        whole = pc.value_counts(shards["tile"])
        n_all = {item["values"]: item["counts"] for item in whole.to_pylist()}
        n_ok = {item["values"]: item["counts"] for item in pc.value_counts(ok["tile"]).to_pylist()}
        for tile, masked in zip(least["tile"].to_pylist(), least[f"{column}_min"].to_pylist(), strict=True):
            if masked == 1.0 and n_ok[tile] == n_all[tile]:
                files = plan.filter(pc.equal(plan["tile"], tile))["files"][0].as_py()
                file = next(b.image.file for b in Tile.from_json(files).bands if b.band == band)
                message = (
                    f"no usable pixel in band {band}: all are NaN, zero, without weight or flagged; "
                    "mend the image, its weight or its mask, or leave the tile out"
                )
                rows.append(
                    {
                        "tile": tile,
                        "shard_id": None,
                        "file": file,
                        "stage": "read",
                        "error_type": "TileError",
                        "message": message,
                    }
                )
    return rows


def _settled(chunks: Callable[[], Iterator[pa.Table]], settle: Settle | None) -> Iterator[pa.Table]:
    """Rows with the probabilities of their scores, null without ``settle``."""
    for table in chunks():
        place = table.schema.get_field_index("probability")
        field, score = table.schema.field(place), table["score"].to_numpy()
        found = pa.nulls(len(score), field.type) if settle is None else pa.array(settle(score), field.type)
        missing = pc.or_(pc.is_null(table["score"]), pc.is_null(table["probability"]))
        yield table.set_column(place, field, pc.if_else(missing, None, found))


def _nulls(metadata: pq.FileMetaData, column: str) -> int:
    index = metadata.schema.names.index(column)
    groups = [metadata.row_group(i).column(index).statistics for i in range(metadata.num_row_groups)]
    return sum(s.null_count for s in groups)
