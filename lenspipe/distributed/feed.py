"""Stamps for a training by Ray Data: windows are read by tasks ahead of the step that needs them, in order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from ray.data import Datasource, ReadTask, read_datasource
from ray.data.block import BlockMetadata

from lenspipe.distributed.data import data_context
from lenspipe.learn.order import Order, Rows
from lenspipe.learn.stream import StampIndex, read_rows


def ray_batches(
    index: StampIndex, order: Order, *, batch_size: int, n_reader: int = 1
) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
    """
    Batches of (row numbers, stamps) as `lenspipe.learn.stream.batches_of` gives them, read by Ray tasks.

    At most ``n_reader`` tasks read at a time; they book no CPU. Where the workers of a training book all of them, Ray
    Data would let tasks that book one run only when a worker waits for its stamps already, and look for a place for
    them without a pause meanwhile.
    """
    blocks = order.blocks(batch_size)
    if not blocks:
        return
    with data_context(preserve_order=True):
        stamps = read_datasource(
            StampWindows(index, blocks), override_num_blocks=len(blocks), num_cpus=0, concurrency=n_reader
        )
        shape: tuple[int, ...] | None = None
        for batch in stamps.iter_batches(batch_size=batch_size, batch_format="pyarrow", prefetch_batches=2):
            shape = shape or tuple(batch.column("shape")[0].as_py())
            pixels = np.concatenate([c.flatten().to_numpy() for c in batch.column("image").chunks])
            yield batch.column("row").to_numpy(), pixels.reshape(-1, *shape)


class StampWindows(Datasource):
    """One read task a window of rows; what it reads is shuffled already."""

    def __init__(self, index: StampIndex, blocks: list[Rows]) -> None:
        super().__init__()
        self._index, self._blocks = index, blocks

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all windows."""
        return sum(map(len, self._blocks)) * self._index.row_bytes

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task a window, in order, whatever the parallelism."""
        return [
            ReadTask(
                partial(_read, self._index, rows),
                BlockMetadata(
                    num_rows=len(rows), size_bytes=len(rows) * self._index.row_bytes, exec_stats=None, input_files=None
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for rows in self._blocks
        ]


def _read(index: StampIndex, rows: Rows) -> Iterator[pa.Table]:
    stamps = read_rows(index, rows)
    size = int(np.prod(stamps.shape[1:]))
    shape = pa.array([list(stamps.shape[1:])] * len(rows), pa.list_(pa.int32()))
    image = pa.FixedSizeListArray.from_arrays(pa.array(stamps.reshape(-1)), size)
    yield pa.table({"row": pa.array(rows), "shape": shape, "image": image})
