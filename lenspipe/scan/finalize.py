"""From ledger parts to the tables of a run; each file appears whole or not at all."""

from __future__ import annotations

import dataclasses
import json
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
from lenspipe.errors import DataError
from lenspipe.image.psf_table import PSF_FILE
from lenspipe.rundir import atomic_path
from lenspipe.scan.ledger import PARTS, RowPlace, iter_counted, part_files, rows_that_count
from lenspipe.scan.sort import write_sorted
from lenspipe.schema import EMBEDDING, FAILURES, PSF, added_fields, candidates_schema, measured_fields, shards_schema
from lenspipe.tables import open_parquet, read_schema, table_writer, write_table

Settle = Callable[[NDArray[np.floating]], NDArray[np.float64] | None]
"""From raw scores to probabilities."""
CANDIDATES, SHARDS, FAILED = "candidates.parquet", "shards.parquet", "failures.parquet"
PSF_CHUNK = 512
"""Shards whose PSFs are written at a time: about 20 MB."""


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
    planned = plan.filter(pc.is_valid(plan["shard_id"]))
    ids = planned["shard_id"].to_pylist()
    parts = part_files(folder / PARTS)
    counted = rows_that_count(parts, set(ids))
    if len(counted) != len(ids):
        missing = next(i for i in ids if i not in counted)
        raise RuntimeError(
            f"{len(ids) - len(counted)} planned shards have no row in the ledger, the first is {missing}"
        )
    shards, inputs = _shards(parts, counted, bands)
    failures = _failures(parts, counted, plan, shards, bands)
    with atomic_path(folder / SHARDS) as path:
        write_table(shards, path)
    with atomic_path(folder / FAILED) as path:
        write_table(failures, path)
    with atomic_path(folder / PSF_FILE) as path, table_writer(path, PSF) as writer:
        for chunk in _psf_chunks(parts, counted):
            writer.write(chunk)
    n_candidate = pc.sum(shards["n_candidate"]).as_py() or 0
    added = _added(parts, bands)
    schema = candidates_schema(bands, [f for f in added if f.name != EMBEDDING])
    if vector := next((f for f in added if f.name == EMBEDDING), None):
        with atomic_path(folder / EMBEDDINGS) as path:
            write_embeddings(path, parts, counted, vector)
    area_deg2 = pc.sum(shards["area_deg2"]).as_py() or 0.0
    chunks = partial(_candidate_chunks, parts, counted, schema)
    if settle is not None:
        chunks = partial(_settled, chunks, settle(area_deg2, _n_shown(parts, counted)))
    with atomic_path(folder / CANDIDATES) as path:
        write_sorted(path, schema, chunks, n_row=n_candidate, scratch=folder / ".sort")
    score = open_parquet(folder / CANDIDATES).metadata
    n_scored = n_candidate - _nulls(score, "score")
    n_ok = pc.sum(pc.equal(shards["status"], "ok")).as_py() or 0
    totals = Totals(
        tiles=len(set(plan["tile"].to_pylist())),
        shards=len(ids),
        shards_ok=n_ok,
        sources=pc.sum(shards["n_source"]).as_py() or 0,
        candidates=n_candidate,
        scored=n_scored,
        failures=failures.num_rows,
        area_deg2=area_deg2,
    )
    return totals, inputs


def write_embeddings(path: Path, parts: list[Path], counted: dict[str, RowPlace], vector: pa.Field) -> None:
    """
    Identifiers and vectors of the candidates that have one, by identifier.

    A group of rows says between which identifiers it lies, so that those of one place on the sky are found without
    reading the rest; memory holds `PSF_CHUNK` shards.
    """
    schema = pa.schema([measured_fields(())[0], vector])
    held = schema.empty_table()
    with table_writer(path, schema) as writer:
        ids = sorted(counted)
        for begin in range(0, len(ids), PSF_CHUNK):
            some = {shard_id: counted[shard_id] for shard_id in ids[begin : begin + PSF_CHUNK]}
            structs = [table["candidates"].combine_chunks().flatten() for table in _candidates_of(parts, some)]
            tables = [pa.table([s.field(f.name) for f in schema], schema=schema) for s in structs if len(s)]
            there = pa.concat_tables([schema.empty_table(), *tables])
            there = there.filter(pc.is_valid(there[vector.name])).sort_by("candidate_id")
            held = pa.concat_tables([held, there])
            while held.num_rows >= GROUP_ROWS:
                writer.write(held.slice(0, GROUP_ROWS))
                held = held.slice(GROUP_ROWS)
        if held.num_rows:
            writer.write(held)


def _candidates_of(parts: list[Path], counted: dict[str, RowPlace]) -> Iterator[pa.Table]:
    return iter_counted(parts, counted, ["candidates"])


def _shards(
    parts: list[Path], counted: dict[str, RowPlace], bands: tuple[str, ...]
) -> tuple[pa.Table, list[dict[str, Any]]]:
    schema = shards_schema(bands)
    tables, inputs = [schema.empty_table()], []
    for table in iter_counted(parts, counted, [*schema.names, "inputs"]):
        tables.append(table.select(schema.names).cast(schema))
        inputs += [item for text in table["inputs"].to_pylist() if text for item in json.loads(text)]
    shards = pa.concat_tables(tables).sort_by("shard_id").combine_chunks()
    return shards, sorted(inputs, key=lambda item: str(item["file"]))


def _psf_chunks(parts: list[Path], counted: dict[str, RowPlace]) -> Iterator[pa.Table]:
    """Rows of ``psf.parquet`` in the order of the shards: memory holds a few shards, however many there are."""
    ids = sorted(counted)
    for begin in range(0, len(ids), PSF_CHUNK):
        some = {shard_id: counted[shard_id] for shard_id in ids[begin : begin + PSF_CHUNK]}
        table = pa.concat_tables(iter_counted(parts, some, ["shard_id", "tile", "psf"])).sort_by("shard_id")
        column = table["psf"].combine_chunks()
        structs, parent = column.flatten(), pc.list_parent_indices(column)
        known = {"shard_id": table["shard_id"].take(parent), "tile": table["tile"].take(parent)}
        yield pa.table([known[f.name] if f.name in known else structs.field(f.name) for f in PSF], schema=PSF)


def _failures(
    parts: list[Path], counted: dict[str, RowPlace], plan: pa.Table, shards: pa.Table, bands: tuple[str, ...]
) -> pa.Table:
    rows = [
        {**{key: row[key] for key in ("tile", "file", "error_type", "message")}, "shard_id": None, "stage": "plan"}
        for row in plan.filter(pc.is_null(plan["shard_id"])).to_pylist()
    ]
    names = list(FAILURES.names)
    for table in iter_counted(parts, counted, [*names, "status"]):
        rows += [{k: row[k] for k in names} for row in table.filter(pc.equal(table["status"], "failed")).to_pylist()]
    rows += _tiles_without_data(shards, plan, bands)
    return pa.Table.from_pylist(rows, FAILURES).sort_by([("tile", "ascending"), ("shard_id", "ascending")])


def _tiles_without_data(shards: pa.Table, plan: pa.Table, bands: tuple[str, ...]) -> list[dict[str, Any]]:
    """Tiles of which a band holds no usable pixel at all: that is a broken file, not an edge of the survey."""
    files = {row["tile"]: json.loads(row["files"]) for row in plan.to_pylist() if row["files"]}
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
                file = next(b["image"]["file"] for b in files[tile]["bands"] if b["band"] == band)
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


def _added(parts: list[Path], bands: tuple[str, ...]) -> list[pa.Field]:
    """Columns that the run's models have added; the parts of a run all have the same."""
    return added_fields(bands, list(read_schema(parts[0]).field("candidates").type.value_type)) if parts else []


def _candidate_chunks(parts: list[Path], counted: dict[str, RowPlace], schema: pa.Schema) -> Iterator[pa.Table]:
    for table in iter_counted(parts, counted, ["shard_id", "tile", "model", "n_candidate", "candidates"]):
        column = table["candidates"].combine_chunks()
        structs = column.flatten()
        ids = structs.field("candidate_id")
        if len(structs) != (pc.sum(table["n_candidate"]).as_py() or 0) or pc.count_distinct(ids).as_py() != len(ids):
            raise DataError(
                "a part of the run does not hold the candidates that it counts, or one twice; remove it and give the "
                "scan again with --resume",
                first=str(table["shard_id"][0]),
            )
        if not len(structs):
            continue
        parent = pc.list_parent_indices(column)
        known = {name: table[name].take(parent) for name in ("shard_id", "tile", "model")}
        arrays = [known[f.name] if f.name in known else structs.field(f.name) for f in schema]
        yield pa.table(arrays, schema=schema)


def _n_shown(parts: list[Path], counted: dict[str, RowPlace]) -> int:
    """Candidates of the shards that a model was shown."""
    n = 0
    for table in iter_counted(parts, counted, ["model", "n_candidate"]):
        shown = pc.and_(pc.is_valid(table["model"]), pc.not_equal(table["model"], ""))
        n += pc.sum(table.filter(shown)["n_candidate"]).as_py() or 0
    return n


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
