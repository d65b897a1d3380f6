"""The ledger: shard rows in Parquet parts that appear whole or not at all; what is in it is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.errors import DataError
from lenspipe.footers import seal
from lenspipe.rundir import atomic_path
from lenspipe.tables import read_parquet

PARTS = "parts"


def write_part(folder: Path, name: str, rows: pa.Table) -> dict[str, int]:
    """Commit shard rows as one part; a part of the same name is replaced. Returns its counts."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / f"{name}.parquet") as temporary:
        pq.write_table(rows, temporary, compression="zstd", write_page_checksum=True)
        seal(temporary)
    status = rows["status"].to_pylist()
    return {"shards": len(status), "failed": status.count("failed"), "candidates": sum(rows["n_candidate"].to_pylist())}


def part_files(folder: Path) -> list[Path]:
    """Committed parts, in order of name."""
    return sorted(p for p in folder.glob("*.parquet") if not p.name.startswith(".")) if folder.is_dir() else []


def done_shards(folder: Path) -> set[str]:
    """Shards whose row says ``ok``; failed ones are tried again by a resumed run."""
    done: set[str] = set()
    for path in part_files(folder):
        table = _read(path, columns=["shard_id", "status"])
        done.update(s for s, status in zip(*(c.to_pylist() for c in table.columns), strict=True) if status == "ok")
    return done


def any_done(folder: Path) -> bool:
    """Whether a shard's row says ``ok``; reads no further than the first."""
    return any("ok" in _read(path, columns=["status"])["status"].to_pylist() for path in part_files(folder))


def set_damaged_aside(folder: Path) -> list[str]:
    """
    Give parts that are damaged another ending, so that their shards are scanned again; returns their names.

    Every part is read whole, which its page checksums need.
    """
    damaged = []
    for path in part_files(folder):
        try:
            _read(path)
        except DataError:
            path.rename(path.with_name(f"{path.name}.damaged"))
            damaged.append(path.name)
    return damaged


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        table = read_parquet(path, columns=columns)
        if missing := set(columns or ()) - set(table.column_names):
            raise DataError(f"it has no column {min(missing)}")
        return table
    except DataError as error:
        raise DataError(
            "a part of the run is damaged; add --resume to scan its shards again, or take it from a copy",
            file=str(path),
            said=error.message,
        ) from error


@dataclasses.dataclass(frozen=True)
class RowPlace:
    """Where the row that counts for a shard lies."""

    part: int
    row: int


def rows_that_count(parts: list[Path], planned: set[str]) -> dict[str, RowPlace]:
    """
    For each planned shard the row that counts: the first ``ok`` one, else the last failed one.

    A shard has several rows when it failed and was tried again, or when a retried write raced a committed one.
    """
    chosen: dict[str, tuple[bool, RowPlace]] = {}
    for p, path in enumerate(parts):
        table = _read(path, columns=["shard_id", "status"])
        for r, (shard_id, status) in enumerate(zip(*(c.to_pylist() for c in table.columns), strict=True)):
            if shard_id in planned and not (shard_id in chosen and chosen[shard_id][0]):
                chosen[shard_id] = (status == "ok", RowPlace(p, r))
    return {shard_id: entry for shard_id, (_, entry) in chosen.items()}


def iter_counted(
    parts: list[Path], counted: dict[str, RowPlace], columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """The rows that count, part by part: memory holds one part."""
    rows: dict[int, list[int]] = {}
    for entry in counted.values():
        rows.setdefault(entry.part, []).append(entry.row)
    for p, path in enumerate(parts):
        if p in rows:
            yield _read(path, columns=columns).take(sorted(rows[p]))
