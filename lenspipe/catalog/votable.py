"""The flat files: VOParquet (IVOA Note 1.0, 2025-01-14) and a FITS table, both with units, UCDs and descriptions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.io.votable.tree import CooSys, Field, Info, Resource, TableElement, VOTableFile
from numpy.typing import NDArray

VERSION_KEY, CONTENT_KEY = "IVOA.VOTable-Parquet.version", "IVOA.VOTable-Parquet.content"
_VOTABLE_TYPE = {"int64": "long", "int32": "int", "double": "double", "float": "float", "string": "unicodeChar"}
_FITS_TYPE = {"int64": (">i8", "K"), "int32": (">i4", "J"), "double": (">f8", "D"), "float": (">f4", "E")}
_BLOCK_ROWS, _FITS_RECORD = 100_000, 2880
_NULL = {"int64": -(2**63), "int32": -(2**31)}
"""What stands for a missing integer in FITS (TNULL)."""


def votable_header(table: pa.Table, *, name: str, description: str, facts: dict[str, str]) -> str:
    """
    The data-less VOTable that describes a table's columns.

    Strings get the length of the longest: astropy cannot merge a header that says ``arraysize="*"``.
    """
    votable = VOTableFile(version="1.4")
    resource = Resource()
    votable.resources.append(resource)
    resource.coordinate_systems.append(CooSys(ID="icrs", system="ICRS"))
    for key, value in facts.items():
        resource.infos.append(Info(name=key, value=value))
    element = TableElement(votable, name=name, nrows=table.num_rows)
    element.description = description
    resource.tables.append(element)
    for f in table.schema:
        about = _about(f)
        kind = _VOTABLE_TYPE[str(f.type)]
        described = Field(
            votable,
            name=f.name,
            ID=f.name,
            datatype=kind,
            ucd=about["ucd"] or None,
            unit=about["unit"] or None,
            arraysize=str(_width(table[f.name])) if kind == "unicodeChar" else None,
            ref="icrs" if about["ucd"].startswith("pos.eq") else None,
        )
        described.description = about["description"] or None
        element.fields.append(described)
    stream = io.BytesIO()
    votable.to_xml(stream)
    return stream.getvalue().decode()


def write_voparquet(table: pa.Table, path: Path, *, name: str, description: str, facts: dict[str, str]) -> None:
    """
    Write a table as VOParquet; any Parquet reader opens it, ``format="parquet.votable"`` of astropy all of it.

    A missing word is empty, as in a VOTable: astropy 8 fails on null strings (and on a table without rows).
    """
    for i, f in enumerate(table.schema):
        if f.type == pa.string() and table[i].null_count:
            table = table.set_column(i, f, pc.fill_null(table[i], ""))
    header = votable_header(table, name=name, description=description, facts=facts)
    metadata = {**(table.schema.metadata or {}), VERSION_KEY: "1.0", CONTENT_KEY: header}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="snappy", row_group_size=100_000)


def write_fits(table: pa.Table, path: Path, *, name: str, facts: dict[str, str]) -> None:
    """
    Write a table as a FITS binary table; missing numbers are NaN or TNULL, missing words are blank.

    Units stand in TUNIT, UCDs in TUCD and descriptions in TCOMM, where TOPCAT looks for them.
    """
    kinds = {f.name: _fits_kind(f, table[f.name]) for f in table.schema}
    dtype = np.dtype([(column, kind) for column, (kind, _) in kinds.items()])
    nulls = {f.name: _NULL.get(str(f.type)) for f in table.schema}
    columns = [fits.Column(name=n, format=code, null=nulls[n]) for n, (_, code) in kinds.items()]
    header = fits.BinTableHDU.from_columns(fits.ColDefs(columns), nrows=0, name=name.upper()).header
    header["NAXIS2"] = table.num_rows
    for number, f in enumerate(table.schema, 1):
        about = _about(f)
        for key, value in (("TUNIT", about["unit"]), ("TUCD", about["ucd"]), ("TCOMM", about["description"][:68])):
            if value:
                header[f"{key}{number}"] = value
    for key, value in facts.items():
        header.add_comment(f"{key} = {value}")
    primary = fits.PrimaryHDU().header
    primary["EXTEND"] = True
    # By blocks of rows and by ourselves: astropy passes each word through Python, four times slower in all.
    with path.open("wb") as stream:
        for part in (primary, header):
            stream.write(part.tostring().encode("ascii"))
        for start in range(0, table.num_rows, _BLOCK_ROWS):
            block = table.slice(start, _BLOCK_ROWS)
            data = np.zeros(block.num_rows, dtype)
            for column in kinds:
                data[column] = _fits_values(block[column], kinds[column][0])
            stream.write(data.data)
        stream.write(bytes(-dtype.itemsize * table.num_rows % _FITS_RECORD))


def _about(f: pa.Field) -> dict[str, str]:
    metadata = {key.decode(): value.decode() for key, value in (f.metadata or {}).items()}
    return {key: metadata.get(key, "") for key in ("unit", "ucd", "description")}


def _width(column: pa.ChunkedArray) -> int:
    return max(1, pc.max(pc.utf8_length(column)).as_py() or 1)


def _fits_kind(f: pa.Field, column: pa.ChunkedArray) -> tuple[str, str]:
    """Big-endian numpy type and FITS format of a column."""
    kind = str(f.type)
    if kind == "string":
        width = max(1, pc.max(pc.binary_length(column)).as_py() or 1)
        return f"S{width}", f"{width}A"
    return _FITS_TYPE[kind]


def _fits_values(column: pa.ChunkedArray, dtype: str) -> NDArray[Any]:
    if dtype.startswith("S"):
        # FITS strings are ASCII; what is not becomes a question mark
        words = pc.fill_null(column, "")
        if pc.all(pc.string_is_ascii(words)).as_py() is not False:
            return fixed_width(words, int(dtype[1:]))
        return np.array([w.encode("ascii", "replace") for w in words.to_pylist()], dtype)
    kind = str(column.type)
    return (pc.fill_null(column, _NULL[kind]) if kind in _NULL else column).to_numpy()


def fixed_width(words: pa.ChunkedArray, width: int) -> NDArray[np.bytes_]:
    """ASCII words as an array of ``S<width>``, without a Python object per word."""
    whole = words.cast(pa.large_string()).combine_chunks()
    whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    if len(whole) == 0:
        return np.empty(0, f"S{width}")
    offsets = np.frombuffer(whole.buffers()[1], np.int64, len(whole) + 1, whole.offset * 8)
    length = np.diff(offsets)
    letters = np.frombuffer(whole.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    text = np.zeros((len(whole), width), np.uint8)
    text[np.arange(width) < length[:, None]] = letters
    return text.view(f"S{width}").ravel()
