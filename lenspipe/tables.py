"""Parquet tables that astropy, pandas, polars and DuckDB open without a word on the way."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lenspipe.errors import DataError
from lenspipe.footers import check_seal, seal

ARROW_KEY = "ARROW:schema"
LENGTH_KEY = "table::len::"
"""Leads the key under which astropy looks for the length of a column of words; without it, it warns and counts."""


def write_table(table: pa.Table, path: Path, *, compression: str = "zstd", row_group_size: int | None = None) -> None:
    """
    Write a table as Parquet that every reader opens.

    A missing word is written as the empty one, and a missing vector as one of NaN (of whole numbers: of the least
    there is), since astropy 8 fails on both. Missing numbers stay null.

    Raises
    ------
    TypeError
        A column has no type (of Arrow's ``null``): the table was built without its schema.
    ValueError
        Two names differ by case only, which DuckDB and FITS take for one.
    """
    check_columns(table.schema)
    whole = whole_table(table)
    whole = whole.replace_schema_metadata(_with_widths(whole.schema, _widths(whole)).metadata)
    pq.write_table(whole, path, compression=compression, row_group_size=row_group_size, write_page_checksum=True)
    seal(path)


def read_parquet(
    path: str | Path, *, columns: Sequence[str] | None = None, filters: Any = None, words_once: Sequence[str] = ()
) -> pa.Table:
    """
    A Parquet table; its pages and footer are held against their checksums where it has any.

    Parameters
    ----------
    path : path
    columns : sequence of str, optional
        All where not given.
    filters : optional
        As of `pq.read_table`.
    words_once : sequence of str
        Columns of words that come as dictionaries: each word once, however often it stands there.

    Raises
    ------
    DataError
        The table is damaged, or lacks a column; the file is named.
    """
    with (
        _damage_named(path),
        pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=list(words_once)) as file,
    ):
        _demand_possible(path, file.metadata)
        if columns is not None and (missing := set(columns) - set(file.schema_arrow.names)):
            raise DataError(f"it has no column {min(missing)}")
        if filters is not None:
            return pq.read_table(
                path, columns=columns, filters=filters, partitioning=None, page_checksum_verification=True
            )
        table = file.read(columns=columns)
        return table if columns is None else table.select(columns)


_CELLS, _CELLS_PER_BYTE = 1_000_000_000, 1000
"""Of so many a table may always be; beyond, of so many per byte of its file, where all in a column may be equal."""


def _demand_possible(path: str | Path, footer: pq.FileMetaData) -> None:
    """Raise `DataError` where a table would unpack to very much more than its file is."""
    cells, size = footer.num_rows * max(1, footer.num_columns), os.path.getsize(path)
    if cells > _CELLS + _CELLS_PER_BYTE * size:
        raise DataError(f"{footer.num_rows} rows in {size} bytes: it is not what it claims to be", file=str(path))


def read_schema(path: str | Path) -> pa.Schema:
    """Schema of a Parquet file, as `read_parquet`."""
    with _damage_named(path):
        return pq.read_schema(path)


def read_footer(path: str | Path) -> pq.FileMetaData:
    """Footer of a Parquet file, as `read_parquet`."""
    with _damage_named(path):
        return pq.read_metadata(path)


@contextmanager
def _damage_named(path: str | Path, *, sealed: bool = True) -> Iterator[None]:
    """Check the seal of a table, and make one error of what Arrow raises for a damaged one."""
    try:
        if sealed:
            check_seal(path)
        yield
    except DataError as error:
        raise DataError(f"the table is damaged; {REMEDY} ({error.message})", file=str(path)) from error
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk, and not of the file
            raise
        raise DataError(f"the table is damaged; {REMEDY} ({_first_line(error)})", file=str(path)) from error


REMEDY = "take it from a copy, or have it written again by the command that made it, with --resume where there is one"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


class _Pieces(pq.ParquetFile):
    """A Parquet file whose pieces raise `DataError`, with its name, where they are damaged."""

    def __init__(self, path: str | Path, **options: Any) -> None:
        super().__init__(path, **options)
        self._path = path

    def iter_batches(self, *args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        with _damage_named(self._path, sealed=False):
            yield from super().iter_batches(*args, **options)

    def read_row_group(self, *args: Any, **options: Any) -> pa.Table:
        with _damage_named(self._path, sealed=False):
            return super().read_row_group(*args, **options)


def open_parquet(path: str | Path, **options: Any) -> pq.ParquetFile:
    """A Parquet file for reading piece by piece, as `read_parquet`; a damaged page is raised when it is read."""
    with _damage_named(path):
        return _Pieces(path, page_checksum_verification=True, **options)


class TableWriter:
    """Writes a table piece by piece, as `write_table` would write the whole; made by `table_writer`."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self.widths = _widths(writer.schema.empty_table())

    def write(self, rows: pa.Table) -> None:
        """Add rows of the writer's schema."""
        whole = whole_table(rows)
        for name, width in _widths(whole).items():
            self.widths[name] = max(width, self.widths[name])
        self._writer.write_table(whole)


@contextmanager
def table_writer(path: Path, schema: pa.Schema, *, compression: str = "zstd") -> Iterator[TableWriter]:
    """
    A file of rows of ``schema`` that are written piece by piece.

    Raises
    ------
    TypeError, ValueError
        As `write_table`.
    """
    check_columns(schema)
    # Arrow reads metadata from its own copy of the schema alone, so that is written last, when the lengths are known
    with pq.ParquetWriter(
        path, schema, compression=compression, store_schema=False, write_page_checksum=True
    ) as parquet:
        writer = TableWriter(parquet)
        yield writer
        told = _with_widths(schema, writer.widths)
        copy = base64.b64encode(told.serialize().to_pybytes()).decode()
        parquet.add_key_value_metadata({**_text(told.metadata), ARROW_KEY: copy})
    seal(path)


_FORMULA, _NUMBER = re.compile(r"'*[=+\-@\t\r]"), re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def safe_cell(text: str) -> str:
    """
    A word for a CSV cell, with an apostrophe where a spreadsheet would take it for a formula.

    Examples
    --------
    >>> [safe_cell(text) for text in ("=1+1", "-5.2", "-a", "a=1")]
    ["'=1+1", '-5.2', "'-a", 'a=1']
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def plain_cell(text: str) -> str:
    """What `safe_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def demand_columns(
    table: pa.Table | pa.Schema, file: str | Path, *, words: Iterable[str] = (), numbers: Iterable[str] = ()
) -> None:
    """
    Raise `DataError` where a table that may be anybody's lacks columns of words or of numbers, or has others there.

    Parameters
    ----------
    table : pa.Table or pa.Schema
    file : path
        Named in the error.
    words, numbers : str
        Names of columns.
    """
    schema = table.schema if isinstance(table, pa.Table) else table
    kinds = {f.name: f.type for f in schema}
    for name, fits in [*((n, _is_words) for n in words), *((n, _is_number) for n in numbers)]:
        if name not in kinds:
            raise DataError("the table lacks a column", file=str(file), column=name)
        if not fits(kinds[name]):
            raise DataError(
                "a column of the table is of another type", file=str(file), column=name, type=str(kinds[name])[:80]
            )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def check_columns(schema: pa.Schema) -> None:
    """Raise `TypeError` where a column has no type, `ValueError` where two names differ by case only."""
    seen: dict[str, str] = {}
    for f in schema:
        if _untyped(f.type):
            raise TypeError(f"column {f.name!r} has no type ({f.type}); build the table with its schema")
        if (other := seen.get(f.name.lower())) is not None:
            raise ValueError(f"columns {other!r} and {f.name!r} differ by case only; DuckDB and FITS take them for one")
        seen[f.name.lower()] = f.name


def _untyped(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_untyped(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_null(kind))


def _is_words(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def without_gaps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column with an empty word for each missing one, and NaN for the numbers of a missing vector."""
    if not column.null_count:
        return column
    if pa.types.is_fixed_size_list(column.type):  # Arrow's own takes a thousand times as long
        return pa.chunked_array([_without_missing(chunk) for chunk in column.chunks], column.type)
    gap = _gap(column.type)
    return column if gap is None else pc.fill_null(column, gap)


def _without_missing(vectors: pa.FixedSizeListArray) -> pa.Array:
    """Vectors of which the missing ones are of NaN, or of the least whole number."""
    gap = _gap(vectors.type)
    if gap is None:
        return vectors
    size, of = vectors.type.list_size, vectors.type.value_type
    there = vectors.drop_null().flatten()
    values = np.full((len(vectors), size), gap.as_py()[0], of.to_pandas_dtype())
    known = vectors.is_valid().to_numpy(zero_copy_only=False)
    values[known] = there.to_numpy(zero_copy_only=False).reshape(-1, size)
    null = np.zeros((len(vectors), size), bool)
    null[known] = there.is_null().to_numpy(zero_copy_only=False).reshape(-1, size)
    flat = pa.array(values.ravel(), of, mask=null.ravel() if null.any() else None)
    return pa.FixedSizeListArray.from_arrays(flat, type=vectors.type)


def whole_table(table: pa.Table) -> pa.Table:
    """The table with `without_gaps` of every column: what `write_table` writes of it."""
    return pa.table([without_gaps(column) for column in table.columns], schema=table.schema)


def _gap(kind: pa.DataType) -> pa.Scalar[Any] | None:
    """What stands for a missing value of a type that has to have one."""
    if _is_words(kind):
        return pa.scalar("", kind)
    if pa.types.is_fixed_size_list(kind):
        of = kind.value_type
        if pa.types.is_floating(of):
            return pa.scalar([np.nan] * kind.list_size, kind)
        if pa.types.is_integer(of):
            return pa.scalar([np.iinfo(of.to_pandas_dtype()).min] * kind.list_size, kind)
    return None


def _with_widths(schema: pa.Schema, widths: dict[str, int]) -> pa.Schema:
    """A schema that tells the length of its words, 1 at least."""
    lengths = {f"{LENGTH_KEY}{name}": str(max(1, width)) for name, width in widths.items()}
    return schema.with_metadata({**_text(schema.metadata), **lengths} or None)


def _text(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}


def _widths(table: pa.Table) -> dict[str, int]:
    """Characters of the longest word by column."""
    found = {}
    for f, column in zip(table.schema, table.columns, strict=True):
        kind = f.type
        if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            kind, column = kind.value_type, pc.list_flatten(column)
        if _is_words(kind):
            found[f.name] = pc.max(pc.utf8_length(column)).as_py() or 0
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            found[f.name] = pc.max(pc.binary_length(column)).as_py() or 0
    return found
