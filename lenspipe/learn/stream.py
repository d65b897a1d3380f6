"""Stamps from Parquet in a given order of rows, block by block, the next block read while one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.learn.order import Order, Rows
from lenspipe.stamps.format import StampSet, image_array
from lenspipe.tables import read_footer

T = TypeVar("T")


@dataclass(frozen=True)
class StampIndex:
    """Where the rows of a data set lie; what a worker needs to read any of them."""

    parts: tuple[str, ...]
    """Parquet files."""
    group_part: tuple[int, ...]
    """Part of each row group."""
    group_number: tuple[int, ...]
    """Its number in that part."""
    group_starts: Rows
    """Its first row in the data set."""
    image: str
    """Image column."""
    row_bytes: int
    """Bytes of one image."""

    @classmethod
    def of(cls, data: StampSet, image: str) -> StampIndex:
        """Index of an open data set; reads the footers of its parts."""
        part: list[int] = []
        number: list[int] = []
        sizes: list[int] = []
        for k, path in enumerate(data.parts):
            metadata = read_footer(path)
            part += [k] * metadata.num_row_groups
            number += range(metadata.num_row_groups)
            sizes += [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        row_bytes = 4 * int(np.prod(data.images[image].shape))
        return cls(tuple(map(str, data.parts)), tuple(part), tuple(number), starts, image, row_bytes)

    def window(self, n_bytes: float) -> int:
        """Row groups that hold about ``n_bytes`` of images."""
        rows = np.diff(self.group_starts).mean() if len(self.group_starts) > 1 else 1.0
        return max(1, round(n_bytes / (self.row_bytes * float(rows))))


def read_rows(index: StampIndex, rows: Rows) -> NDArray[np.float32]:
    """
    Stamps ``(n, band, y, x)`` of some rows, in their order; a row may come twice. Each row group is read once.

    Raises
    ------
    DataError
        A part cannot be read, or a stamp is not finite (its row is named).
    """
    out: NDArray[np.float32] | None = None
    group = np.searchsorted(index.group_starts, rows, side="right") - 1
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order], prepend=-1))
    for places in np.split(order, edges[1:]):
        number = int(group[places[0]])
        stamps = image_array(_read_group(index, number), index.image)
        if out is None:
            out = np.empty((len(rows), *stamps.shape[1:]), np.float32)
        out[places] = stamps[rows[places] - index.group_starts[number]]
    if out is None:
        raise DataError("no rows to read", n=0)
    bad = np.flatnonzero(~np.isfinite(out.reshape(len(out), -1).sum(axis=1)))
    if len(bad):
        raise DataError("stamps must be finite: mask or drop these rows", n=len(bad), first_row=int(rows[bad[0]]))
    return out


def _read_group(index: StampIndex, number: int) -> pa.Table:
    path = Path(index.parts[index.group_part[number]])
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read_row_group(index.group_number[number], columns=[index.image], use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"a part cannot be read, delete it or make it again: {error}", part=path.name) from error


def ahead(read: Callable[[Rows], T], blocks: Sequence[Rows], *, n_ahead: int = 2) -> Iterator[T]:
    """Read blocks in a thread of its own, at most ``n_ahead`` waiting; an error comes out where its block would."""
    waiting: queue.Queue[T | BaseException] = queue.Queue(n_ahead)
    left = threading.Event()

    def put(item: T | BaseException) -> None:
        while not left.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        for block in blocks:
            if left.is_set():
                return
            try:
                put(read(block))
            except BaseException as error:
                put(error)
                return

    thread = threading.Thread(target=work, daemon=True, name="read-stamps")
    thread.start()
    try:
        for _ in blocks:
            item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        thread.join()


def batches_of(index: StampIndex, order: Order, *, batch_size: int) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
    """Batches of (row numbers, stamps), the last one shorter; the next window is read while one is used."""
    blocks = order.blocks(batch_size)
    for block, stamps in zip(blocks, ahead(lambda some: read_rows(index, some), blocks, n_ahead=1), strict=True):
        for start in range(0, len(block), batch_size):
            yield block[start : start + batch_size], stamps[start : start + batch_size]
