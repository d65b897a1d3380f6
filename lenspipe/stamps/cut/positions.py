"""A list of sky positions: CSV, Parquet or FITS, with whatever else is known of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lenspipe.errors import ConfigError

RA = ("ra", "ra_deg", "raj2000", "right_ascension", "alpha_j2000")
DEC = ("dec", "dec_deg", "dej2000", "decj2000", "declination", "delta_j2000")
ID = ("stamp_id", "id", "name", "candidate_id", "object_id")
SIZE = ("size_px", "size")
SIZE_MAX_PX = 1 << 20
TEXT = ("stamp_id", "label", "split", "host", "survey", "tile", "candidate_id", "run_id", "name", "id")
"""Columns that are words even where all of them look like numbers."""


def read_positions(path: str | Path) -> pa.Table:
    """
    Positions of a file, as ``stamp_id``, ``ra_deg``, ``dec_deg``, ``size_px`` (null where none) and its other columns.

    The columns of position are known by their usual names, in small or capital letters (`RA`, `DEC`). Where there is
    none of `ID`, names are made of the positions.

    Parameters
    ----------
    path : path
        ``.csv``, ``.parquet``, or a FITS table.

    Returns
    -------
    pa.Table
        In the order of the file. ``label``, ``split``, ``host`` and the like are text.

    Raises
    ------
    ConfigError
        The file cannot be read, has no rows or no positions, a position is not on the sky (its row is named), a size
        is not a whole number, or a name occurs twice.
    """
    table = read_columns(Path(path))
    if not table.num_rows:
        raise ConfigError("the list of positions has no rows", file=str(path))
    lower = {name.lower(): name for name in reversed(table.column_names)}
    ra_name, dec_name = (next((lower[n] for n in names if n in lower), None) for names in (RA, DEC))
    if ra_name is None or dec_name is None:
        raise ConfigError(
            "a list of positions needs columns ra and dec, in degrees",
            file=str(path),
            columns=", ".join(table.column_names),
        )
    ra_deg, dec_deg = _degrees(table, ra_name, path), _degrees(table, dec_name, path)
    bad = np.flatnonzero(~(np.isfinite(ra_deg) & (np.abs(ra_deg) <= 360) & (np.abs(dec_deg) <= 90)))
    if len(bad):
        raise ConfigError(
            "a row of the list is not a position on the sky, in degrees",
            file=str(path),
            row=int(bad[0]) + 1,
            ra=float(ra_deg[bad[0]]),
            dec=float(dec_deg[bad[0]]),
            rows=len(bad),
        )
    ra_deg %= 360.0
    id_name = next((lower[n] for n in ID if n in lower), None)
    names = names_of(ra_deg, dec_deg) if id_name is None else [str(v) for v in table[id_name].to_pylist()]
    demand_unique(names, path)
    size_name = next((lower[n] for n in SIZE if n in lower), None)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "stamp_id": pa.array(names, pa.string()),
        "ra_deg": pa.array(ra_deg),
        "dec_deg": pa.array(dec_deg),
        "size_px": _sizes(table, size_name, path),
    }
    taken = {ra_name, dec_name, size_name, *(() if id_name in (None, "candidate_id") else (id_name,))}
    for name in table.column_names:
        key = name.lower() if name.lower() in TEXT else name
        if name in taken or key in columns or pa.types.is_nested(table[name].type):
            continue
        column = table[name]
        columns[key] = column.cast(pa.string()) if key in TEXT else column
    return pa.table(columns)


def names_of(ra_deg: NDArray[Any], dec_deg: NDArray[Any]) -> list[str]:
    """
    Names made of positions, to a thousandth of an arcsecond or so; a number follows where two are the same.

    Examples
    --------
    >>> names_of(np.array([10.5, 10.5]), np.array([-1.25, -1.25]))
    ['010.500000-01.250000', '010.500000-01.250000_2']
    """
    seen: dict[str, int] = {}
    names = []
    for ra, dec in zip(ra_deg, dec_deg, strict=True):
        name = f"{ra:010.6f}{dec:+010.6f}"
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def demand_unique(names: list[str], path: str | Path) -> None:
    """Raise `ConfigError` where a name occurs twice."""
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ConfigError("a name occurs twice in the list; stamps need names of their own", file=str(path), name=twice)


def read_columns(path: Path) -> pa.Table:
    """
    A table of a ``.csv``, ``.parquet`` or FITS file; of a CSV the columns of `TEXT` are text.

    Raises
    ------
    ConfigError
        There is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise ConfigError("no such file of positions", file=str(path))
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path, page_checksum_verification=True)
        if path.suffix.lower() in (".csv", ".txt"):
            head = path.open("rb").readline().decode("utf-8-sig").strip().split(",")
            text = {name: pa.string() for name in (h.strip('"') for h in head) if name.lower() in TEXT}
            return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=text))
        from astropy.table import Table as Columns

        found = Columns.read(path, format="fits")
        return pa.table({n: _native(np.asarray(found[n])) for n in found.colnames if found[n].ndim == 1})
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(
            f"the list of positions cannot be read (CSV, Parquet or a FITS table): {error}", file=str(path)
        ) from error


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return np.char.decode(values) if values.dtype.kind == "S" else values.astype(values.dtype.newbyteorder("="))


def _degrees(table: pa.Table, name: str, path: str | Path) -> NDArray[Any]:
    try:
        return table[name].cast(pa.float64()).to_numpy().copy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"positions must be numbers, in degrees: {error}", file=str(path), column=name) from error


def _sizes(table: pa.Table, name: str | None, path: str | Path) -> pa.Array:
    if name is None:
        return pa.nulls(table.num_rows, pa.int32())
    try:
        values = table[name].cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"sizes must be numbers of pixels: {error}", file=str(path), column=name) from error
    given = values[np.isfinite(values)]
    if (given < 1).any() or (given > SIZE_MAX_PX).any() or (given != np.round(given)).any():
        raise ConfigError("sizes are sides of stamps in whole pixels", file=str(path), column=name)
    return pa.array(values, pa.float64(), mask=~np.isfinite(values)).cast(pa.int32())
