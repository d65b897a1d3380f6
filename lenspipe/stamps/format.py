"""Data sets of labelled stamps: a folder of Parquet parts, images as fixed-size lists that know their shape."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from lenspipe.disk import scratch_beside
from lenspipe.errors import DataError
from lenspipe.footers import seal
from lenspipe.stamps.generated import GENERATOR, demand_learnt_from
from lenspipe.stamps.spec import SPLITS, ImageSpec, image_array, image_column, image_specs, stamp_schema
from lenspipe.store.copies import local_folder
from lenspipe.tables import open_parquet, read_parquet

__all__ = ["SPLITS", "ImageSpec", "StampSet", "image_array", "image_column", "stamp_schema", "write_part"]

ROW_GROUP_BYTES = 4 << 20
"""Image bytes per row group: what one random read costs, small enough that readers stay bounded."""


def write_part(table: pa.Table, folder: str | Path, name: str) -> Path:
    """
    Write one Parquet part of a data set: a ``.tmp`` in the same folder, then an atomic rename.

    Parameters
    ----------
    table : pyarrow.Table
        With a schema of `stamp_schema`.
    folder : path
        The data set; made when it is missing.
    name : str
        Name of the part without suffix. A part of the same name is replaced.

    Raises
    ------
    DataError
        Columns of the format are missing, an image is not finite, or a stamp that a generator made is not of the split
        train.
    """
    with part_writer(table.schema, folder, name) as write:
        write(table)
    return Path(folder) / f"{name.removesuffix('.parquet')}.parquet"


@contextlib.contextmanager
def part_writer(schema: pa.Schema, folder: str | Path, name: str) -> Iterator[Callable[[pa.Table], None]]:
    """
    Write one part of a data set some rows at a time; it appears when the body ends without an error.

    Parameters
    ----------
    schema, folder, name
        As of `write_part`.

    Yields
    ------
    callable
        Writes a table; raises `DataError` where an image of it is not finite.

    Raises
    ------
    DataError
        Columns of the format are missing.
    """
    images = image_specs(schema, where=name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name.removesuffix('.parquet')}.parquet"
    scratch = scratch_beside(part)
    rows = max(1, ROW_GROUP_BYTES // _row_bytes(images))
    try:
        with pq.ParquetWriter(
            scratch,
            schema,
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
            # float pixels: a dictionary makes them larger, split bytes make them 8 % smaller and faster to read
            use_dictionary=[name for name in schema.names if name not in images],
            use_byte_stream_split=[f"{name}.list.element" for name in images],
        ) as writer:

            def write(table: pa.Table) -> None:
                demand_learnt_from(table, name)
                _demand_finite(table, images, name)
                writer.write_table(table, row_group_size=rows)

            yield write
        seal(scratch)
        os.replace(scratch, part)
    finally:
        scratch.unlink(missing_ok=True)


def _demand_finite(table: pa.Table, images: Mapping[str, ImageSpec], name: str) -> None:
    for image in images:
        values = table.column(image)
        flat = (chunk.flatten().to_numpy(zero_copy_only=False) for chunk in values.chunks)
        if values.null_count or not all(np.isfinite(part).all() for part in flat):
            raise DataError("stamps must be finite before they are written: mask or drop them", part=name, column=image)


def _row_bytes(images: Mapping[str, ImageSpec]) -> int:
    return 4 * sum(int(np.prod(spec.shape)) for spec in images.values())


@dataclass(frozen=True)
class StampSet:
    """
    A folder of Parquet parts with labelled stamps, opened for reading.

    Only footers are read on opening; images are read a row group at a time. Rows are numbered over the parts
    in order of their names.
    """

    folder: Path
    """The data set."""
    parts: tuple[Path, ...]
    """Its Parquet files, sorted by name."""
    schema: pa.Schema
    """The schema that all parts share."""
    images: dict[str, ImageSpec]
    """Image columns and what their pixels are."""
    n: int
    """Number of stamps."""

    @classmethod
    def open(cls, folder: str | Path) -> StampSet:
        """
        Open a data set in a folder, or the copy here of one at a URL.

        Raises
        ------
        DataError
            The folder is missing or holds no Parquet, a part is unreadable, parts have different schemas, or a stamp
            that a generator made is not of the split train: none is ever judged on.
        """
        folder = local_folder(folder)
        parts = tuple(sorted(folder.glob("*.parquet")))
        if not parts:
            raise DataError("no Parquet parts in this folder", folder=str(folder))
        schema, n = None, 0
        for part in parts:
            try:
                with open_parquet(part) as file:
                    found, rows = file.schema_arrow, file.metadata.num_rows
            except (OSError, DataError) as error:
                raise DataError(
                    f"a part cannot be read, delete it or make it again: {error}", part=part.name
                ) from error
            if schema is None:
                schema = found
            elif not found.equals(schema, check_metadata=True):
                raise DataError("parts have different schemas: keep one data set a folder", part=part.name)
            n += rows
        assert schema is not None
        if GENERATOR in schema.names:
            for part in parts:
                demand_learnt_from(read_parquet(part, columns=[GENERATOR, "split"]), part.name)
        return cls(folder, parts, schema, image_specs(schema, where=str(folder)), n)

    def rows_within(self, n_bytes: int) -> int:
        """Rows whose images take ``n_bytes`` in memory, at least one: a batch size that suits any stamp."""
        return max(1, n_bytes // _row_bytes(self.images))

    def column(self, name: str) -> NDArray[Any]:
        """All values of one scalar column ``(n,)`` in row order; text comes as objects."""
        if name in self.images or name not in self.schema.names:
            known = [c for c in self.schema.names if c not in self.images]
            raise DataError("no such scalar column", column=name, known=",".join(known))
        return np.concatenate([self._scalar(part, name).to_numpy(zero_copy_only=False) for part in self.parts])

    def _scalar(self, part: Path, name: str) -> pa.ChunkedArray:
        """A scalar column of one part."""
        return read_parquet(part, columns=[name]).column(name)

    def _tables(self, part: Path, columns: Sequence[str], batch_size: int) -> Iterator[pa.Table]:
        """Columns of one part, at most so many rows at a time."""
        with open_parquet(part, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=batch_size, columns=list(columns)):
                yield pa.Table.from_batches([batch])

    @property
    def title(self) -> str:
        """Name of the folder, for records."""
        return self.folder.name

    def read_images(
        self, name: str = "image", indices: ArrayLike | None = None, *, split: str | None = None
    ) -> NDArray[np.float32]:
        """
        Stamps ``(n, band, y, x)`` of some rows, in the order asked for.

        Parameters
        ----------
        name : str
            Image column.
        indices : array of int, optional
            Row numbers from 0; duplicates are allowed. Without it every row, or every row of ``split``.
        split : str, optional
            Rows of this split; not together with ``indices``.
        """
        if name not in self.images:
            raise DataError("no such image column", column=name, known=",".join(self.images))
        if indices is not None and split is not None:
            raise DataError("give row numbers or a split, not both", split=split)
        if indices is None:
            rows = np.arange(self.n) if split is None else np.flatnonzero(self.column("split") == split)
        else:
            rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.n):
            raise DataError(
                "row numbers are outside the data set", lowest=int(rows.min()), highest=int(rows.max()), n=self.n
            )
        stamps = np.empty((len(rows), *self.images[name].shape), np.float32)
        order = np.argsort(rows, kind="stable")
        wanted, first = rows[order], 0
        for part in self.parts:
            with open_parquet(part) as file:
                for group in range(file.num_row_groups):
                    after = first + file.metadata.row_group(group).num_rows
                    here = slice(*np.searchsorted(wanted, [first, after]))
                    if here.stop > here.start:
                        block = image_array(file.read_row_group(group, columns=[name]), name)
                        stamps[order[here]] = block[wanted[here] - first]
                    first = after
        return stamps

    def iter_batches(
        self, columns: Sequence[str] | None = None, *, batch_size: int, split: str | None = None
    ) -> Iterator[pa.Table]:
        """
        Tables of ``batch_size`` rows in row order, the last one shorter; memory is bounded by batch and row group.

        Parameters
        ----------
        columns : sequence of str, optional
            Columns to read; all by default.
        batch_size : int
            Rows a table.
        split : str, optional
            Only rows of this split.
        """
        wanted = list(self.schema.names if columns is None else columns)
        if unknown := [name for name in wanted if name not in self.schema.names]:
            raise DataError("no such columns", unknown=",".join(unknown), known=",".join(self.schema.names))
        read = wanted if split is None or "split" in wanted else [*wanted, "split"]
        waiting: pa.Table | None = None
        for part in self.parts:
            for rows in self._tables(part, read, batch_size):
                if split is not None:
                    rows = rows.filter(pc.equal(rows.column("split"), split))
                rows = rows.select(wanted)
                waiting = rows if waiting is None else pa.concat_tables([waiting, rows])
                while len(waiting) >= batch_size:
                    yield waiting.slice(0, batch_size).combine_chunks()
                    waiting = waiting.slice(batch_size)
        if waiting is not None and len(waiting):
            yield waiting.combine_chunks()
