"""The ledger: shard rows in Parquet parts that appear whole or not at all; what is in it is done."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator, Set
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lenspipe.errors import DataError
from lenspipe.footers import seal
from lenspipe.rundir import atomic_path
from lenspipe.store.place import new_object
from lenspipe.store.urls import joined
from lenspipe.tables import read_parquet

PARTS = "parts"


def write_part(folder: Path | str, name: str, rows: pa.Table) -> dict[str, int]:
    """Commit shard rows as one part of a folder or URL; a part of the same name is replaced. Returns its counts."""
    with _new_part(folder, f"{name}.parquet") as temporary:
        pq.write_table(rows, temporary, compression="zstd", write_page_checksum=True)
        seal(temporary)
    status = rows["status"].to_pylist()
    return {"shards": len(status), "failed": status.count("failed"), "candidates": sum(rows["n_candidate"].to_pylist())}


def _new_part(folder: Path | str, name: str) -> AbstractContextManager[Path]:
    if isinstance(folder, str):
        return new_object(joined(folder, name))
    folder.mkdir(parents=True, exist_ok=True)
    return atomic_path(folder / name)


def part_files(folder: Path) -> list[Path]:
    """Committed parts, in order of name."""
    return sorted(p for p in folder.glob("*.parquet") if not p.name.startswith(".")) if folder.is_dir() else []


def session_name(parts: Path) -> str:
    """
    Name of a session, after those of all earlier ones, whatever the clocks of their machines said.

    Parts are read in order of name: a later session's word on a failure is the last.
    """
    stamp = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S%f}"
    last = max((path.name.partition("-")[2].partition("-")[0] for path in part_files(parts)), default="")
    return f"{stamp if stamp > last else last + '0'}-{uuid.uuid4().hex[:6]}"


def done_shards(folder: Path) -> set[str]:
    """Shards whose row says ``ok``; failed ones are tried again by a resumed run."""
    return set().union(*(_done(_read(path, columns=["shard_id", "status"])) for path in part_files(folder)))


def counted_shards(folder: Path) -> set[str]:
    """Shards that have a row, whatever it says."""
    return set().union(*(_read(path, columns=["shard_id"])["shard_id"].to_pylist() for path in part_files(folder)))


def any_done(folder: Path) -> bool:
    """Whether a shard's row says ``ok``; reads no further than the first."""
    return any("ok" in _read(path, columns=["status"])["status"].to_pylist() for path in part_files(folder))


def look_through(folder: Path) -> tuple[set[str], list[str]]:
    """
    Shards that are done; parts that are damaged get another ending, so that their shards are scanned again.

    Every part is read whole, which its page checksums need.

    Returns
    -------
    done : set of str
    damaged : list of str
        Names of the parts that were damaged.
    """
    done: set[str] = set()
    damaged = []
    for path in part_files(folder):
        try:
            done |= _done(_read(path))
        except DataError:
            path.rename(path.with_name(f"{path.name}.damaged"))
            damaged.append(path.name)
    return done, damaged


def _done(rows: pa.Table) -> set[str]:
    return set(rows["shard_id"].filter(pc.equal(rows["status"], "ok")).to_pylist())


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


def iter_counted(
    parts: list[Path], planned: Set[str] | None = None, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """
    The rows that count, part by part: memory holds one part, and each is read once.

    A shard has several rows when it failed and was tried again, or when a retried write raced a committed one: its
    first ``ok`` row counts, else its last failed one. Those that failed come last; their parts are read again.

    Parameters
    ----------
    parts : list of Path
    planned : set of str, optional
        Shards that are wanted; all where not given.
    columns : list of str, optional
        All where not given.
    """
    asked = None if columns is None else list(dict.fromkeys([*columns, "shard_id", "status"]))
    done: set[str] = set()
    failed: dict[str, tuple[int, int]] = {}
    for p, path in enumerate(parts):
        table = _read(path, columns=asked)
        good = []
        for r, (shard_id, status) in enumerate(
            zip(table["shard_id"].to_pylist(), table["status"].to_pylist(), strict=True)
        ):
            if shard_id in done or not (planned is None or shard_id in planned):
                continue
            if status == "ok":
                done.add(shard_id)
                failed.pop(shard_id, None)
                good.append(r)
            else:
                failed[shard_id] = (p, r)
        if good:
            yield _chosen(table, good, columns)
    rows: dict[int, list[int]] = {}
    for p, r in failed.values():
        rows.setdefault(p, []).append(r)
    for p in sorted(rows):
        yield _chosen(_read(parts[p], columns=asked), sorted(rows[p]), columns)


def _chosen(table: pa.Table, rows: list[int], columns: list[str] | None) -> pa.Table:
    table = table if columns is None else table.select(columns)
    return table if len(rows) == table.num_rows else table.take(rows)
