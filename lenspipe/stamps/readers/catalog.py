"""CSV catalogues that come with other people's stamps: rows by key, columns with types."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from lenspipe.errors import ConfigError
from lenspipe.stamps.spec import FORMAT_COLUMNS


@dataclass(frozen=True)
class Catalog:
    """A table with one row per stamp."""

    table: pa.Table
    """All columns, typed."""
    row_of: dict[str, int]
    """Row by key, keys as text."""

    def fields(self, leave_out: tuple[str, ...] = ()) -> list[pa.Field]:
        """Arrow fields of the columns that may stand beside the format's own."""
        return [f for f in self.table.schema if f.name and f.name not in (*FORMAT_COLUMNS, *leave_out)]

    def row(self, key: str) -> dict[str, Any] | None:
        """One row as a dictionary, None where there is none."""
        index = self.row_of.get(key)
        return (
            None
            if index is None
            else {name: self.table.column(name)[index].as_py() for name in self.table.schema.names}
        )


def read_catalog(path: str | Path, key: str) -> Catalog:
    """
    Read a CSV whose header line is the first that has the column ``key``; lines above it are comments.

    Empty cells are null. Columns without a name are left out.

    Raises
    ------
    ConfigError
        The file is missing, has no such column, cannot be parsed, or a key occurs twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the catalogue: {error.strerror}", file=str(path)) from error
    start = 0
    for line in text.splitlines(keepends=True):
        names = [name.strip().lstrip("# ") for name in next(csv.reader([line]), [])]
        if key in names:
            break
        start += len(line)
    else:
        raise ConfigError("no line of the catalogue names this column", file=str(path), column=key)
    body = io.BytesIO(text[start + len(line) :].encode())
    named = [name or f"_{i}" for i, name in enumerate(names)]
    try:
        table = pacsv.read_csv(
            body,
            read_options=pacsv.ReadOptions(column_names=named),
            convert_options=pacsv.ConvertOptions(strings_can_be_null=True),
        )
    except pa.ArrowInvalid as error:
        raise ConfigError(f"the catalogue cannot be parsed: {error}", file=str(path)) from error
    table = table.select([name for name in dict.fromkeys(named) if not name.startswith("_")])
    keys = [str(value) for value in table.column(key).to_pylist()]
    row_of = {value: index for index, value in enumerate(keys)}
    if len(row_of) != len(keys):
        twice = next(value for index, value in enumerate(keys) if row_of[value] != index)
        raise ConfigError("a key occurs twice in the catalogue: keep one row per stamp", file=str(path), key=twice)
    return Catalog(table, row_of)
