"""Sort a table that need not fit in memory: sample the keys, scatter to buckets on disk, sort each bucket."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from lenspipe.catalog.order import best_first, sort_value
from lenspipe.tables import table_writer

BUCKET_ROWS = 500_000
SAMPLE_ROWS = 200_000


def write_sorted(
    path: Path,
    schema: pa.Schema,
    chunks: Callable[[], Iterator[pa.Table]],
    *,
    n_row: int,
    scratch: Path,
    bucket_rows: int = BUCKET_ROWS,
) -> None:
    """
    Write rows best first (`lenspipe.catalog.order`): by score, those without one last, equal ones by candidate_id.

    A sample sort (Frazer & McKellar 1970, JACM 17, 496): the memory it needs is that of one bucket,
    about ``bucket_rows``, however many rows there are.

    Parameters
    ----------
    path : Path
        Parquet file to write.
    schema : pa.Schema
        Columns, with ``score`` (float) and ``candidate_id`` (unique strings).
    chunks : callable
        Gives the rows, chunk by chunk; called twice when they do not fit one bucket.
    n_row : int
        Number of rows.
    scratch : Path
        Folder for buckets; made and removed here.
    bucket_rows : int
        Rows that one bucket holds about.
    """
    with table_writer(path, schema) as writer:
        if n_row <= bucket_rows:
            parts = list(chunks())
            if parts:
                writer.write(_sorted(pa.concat_tables(parts)).cast(schema))
            return
        splitters = _splitters(chunks(), n_row=n_row, n_bucket=-(-n_row // bucket_rows))
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            _scatter(chunks(), splitters, schema, scratch)
            for bucket in range(len(splitters[0]) + 1):
                file = scratch / f"{bucket}.arrow"
                if file.exists():
                    with pa.OSFile(str(file)) as stream:
                        writer.write(_sorted(pa.ipc.open_stream(stream).read_all()))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _sorted(table: pa.Table) -> pa.Table:
    return table.take(best_first(table))


def _keys(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Sort keys that rise: of the order, and the identifier."""
    return sort_value(table), table["candidate_id"].to_numpy()


def _splitters(chunks: Iterator[pa.Table], *, n_row: int, n_bucket: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys that cut the rows into about equal buckets, from every k-th row."""
    step, skip = max(1, n_row // SAMPLE_ROWS), 0
    scores, ids = [], []
    for table in chunks:
        score, candidate_id = _keys(table)
        scores.append(score[skip::step])
        ids.append(candidate_id[skip::step])
        skip = (skip - table.num_rows) % step
    score, candidate_id = np.concatenate(scores), np.concatenate(ids).astype(str)
    order = np.lexsort((candidate_id, score))
    cuts = order[(np.arange(1, n_bucket) * len(order)) // n_bucket]
    return score[cuts], candidate_id[cuts]


def _bucket_of(table: pa.Table, splitters: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    score, candidate_id = _keys(table)
    cut_score, cut_id = splitters
    low, high = np.searchsorted(cut_score, score, "left"), np.searchsorted(cut_score, score, "right")
    bucket = high.copy()
    # Equal scores (all rows, where nothing was scored) are told apart by identifier.
    for i in np.flatnonzero(low < high):
        bucket[i] = low[i] + np.searchsorted(cut_id[low[i] : high[i]], str(candidate_id[i]), "right")
    return bucket


def _scatter(
    chunks: Iterator[pa.Table], splitters: tuple[np.ndarray, np.ndarray], schema: pa.Schema, scratch: Path
) -> None:
    with contextlib.ExitStack() as stack:
        writers: dict[int, pa.RecordBatchStreamWriter] = {}
        for table in chunks:
            bucket = _bucket_of(table, splitters)
            for b in np.unique(bucket):
                if b not in writers:
                    stream = stack.enter_context(pa.OSFile(str(scratch / f"{b}.arrow"), "wb"))
                    writers[b] = stack.enter_context(pa.ipc.new_stream(stream, schema))
                writers[b].write_table(table.filter(pa.array(bucket == b)).cast(schema))
