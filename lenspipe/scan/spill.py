"""Rows set down on disk as they come, and read again in any order: memory holds a few batches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

HELD_BATCHES = 8


class Spill:
    """
    An Arrow file of batches; a context that closes it.

    Parameters
    ----------
    path : Path
        File to write.
    schema : pa.Schema
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self.num_rows = schema, 0
        self._path, self._counts, self._starts = path, [np.zeros(0, np.int64)], [0]
        self._sink: pa.NativeFile | None = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        self._source: pa.NativeFile | None = None
        self._held: OrderedDict[int, pa.RecordBatch] = OrderedDict()

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        if self._source is not None:
            self._source.close()

    def add(self, rows: pa.Table, counts: NDArray[np.integer]) -> None:
        """Set rows down; ``counts`` says how many belong to each item (a shard), in the order of the rows."""
        self._counts.append(np.asarray(counts, np.int64))
        for batch in rows.combine_chunks().to_batches():
            if batch.num_rows:
                self._writer.write_batch(batch)
                self.num_rows += batch.num_rows
                self._starts.append(self.num_rows)

    def tables(self) -> Iterator[pa.Table]:
        """All rows, batch by batch, in the order in which they came; no more can be added."""
        reader = self._reader()
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)], self.schema)

    def of_items(self, items: NDArray[np.integer]) -> pa.Table:
        """The rows of some items, by their number in the order in which they came, item after item."""
        counts = np.concatenate(self._counts)
        first = np.cumsum(counts) - counts
        n = counts[items]
        rows = np.repeat(first[items] - (np.cumsum(n) - n), n) + np.arange(n.sum())
        return self._take(rows)

    def _take(self, rows: NDArray[np.int64]) -> pa.Table:
        batch = np.searchsorted(self._starts, rows, "right") - 1
        tables, places = [self.schema.empty_table()], [np.zeros(0, np.int64)]
        for number in np.unique(batch):
            mine = np.flatnonzero(batch == number)
            some = self._batch(int(number)).take(pa.array(rows[mine] - self._starts[number]))
            tables.append(pa.Table.from_batches([some]))
            places.append(mine)
        return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(places)))).combine_chunks()

    def _batch(self, number: int) -> pa.RecordBatch:
        if number not in self._held:
            self._held[number] = self._reader().get_batch(number)
            if len(self._held) > HELD_BATCHES:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]

    def _reader(self) -> pa.RecordBatchFileReader:
        self._end()
        if self._source is None:
            self._source = pa.memory_map(str(self._path))
            self._open = pa.ipc.open_file(self._source)
        return self._open

    def _end(self) -> None:
        if self._sink is not None:
            self._writer.close()
            self._sink.close()
            self._sink = None
