"""The flat files: VOParquet (IVOA Note 1.0, 2025-01-14) and a FITS table, both with units, UCDs and descriptions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits
from astropy.io.votable.tree import CooSys, Field, Info, Resource, TableElement, VOTableFile
from numpy.typing import NDArray

from lenspipe.survey.checksums import Sum, sign
from lenspipe.tables import check_columns, without_gaps, write_table

VERSION_KEY, CONTENT_KEY = "IVOA.VOTable-Parquet.version", "IVOA.VOTable-Parquet.content"
_FRAME = "_frame_icrs"
"""ID of the coordinate system; no column begins with it."""
_VOTABLE_TYPE = {
    "int64": "long",
    "int32": "int",
    "int16": "short",
    "uint8": "unsignedByte",
    "double": "double",
    "float": "float",
    "bool": "boolean",
    "string": "unicodeChar",
}
_FITS_TYPE = {
    "int64": (">i8", "K"),
    "int32": (">i4", "J"),
    "int16": (">i2", "I"),
    "uint8": ("u1", "B"),
    "double": (">f8", "D"),
    "float": (">f4", "E"),
    "bool": ("S1", "L"),
}
_BLOCK_ROWS, _FITS_RECORD = 100_000, 2880
_NULL = {"int64": -(2**63), "int32": -(2**31), "int16": -(2**15)}
"""What stands for a missing integer in FITS (TNULL)."""


def votable_header(table: pa.Table, *, name: str, description: str, facts: dict[str, str]) -> str:
    """
    The data-less VOTable that describes a table's columns; vectors are arrays of their length.

    Strings get the length of the longest: astropy cannot merge a header that says ``arraysize="*"``. Only columns
    have an ID, for that of a fact or of the table could be a column's too. The number of rows is not stated: readers
    hold it against the rows of the header, which has none.
    """
    votable = VOTableFile(version="1.4")
    resource = Resource()
    votable.resources.append(resource)
    resource.coordinate_systems.append(CooSys(ID=_FRAME, system="ICRS"))
    for key, value in facts.items():
        info = Info(name=key, value=value)
        info.ID = None
        resource.infos.append(info)
    element = TableElement(votable, name=name)
    element.ID = None
    element.description = description
    resource.tables.append(element)
    for f in table.schema:
        about = _about(f)
        described = Field(
            votable,
            name=f.name,
            ID=f.name,
            datatype=_VOTABLE_TYPE[str(_scalar(f.type))],
            ucd=about["ucd"] or None,
            unit=about["unit"] or None,
            arraysize=_arraysize(f.type, table[f.name]),
            ref=_FRAME if about["ucd"].startswith("pos.eq") else None,
        )
        described.description = about["description"] or None
        element.fields.append(described)
    stream = io.BytesIO()
    votable.to_xml(stream)
    return stream.getvalue().decode()


def write_voparquet(table: pa.Table, path: Path, *, name: str, description: str, facts: dict[str, str]) -> None:
    """
    Write a table as VOParquet; any Parquet reader opens it, ``format="parquet.votable"`` of astropy all of it.

    A missing word is empty, as in a VOTable.
    """
    header = votable_header(table, name=name, description=description, facts=facts)
    metadata = {**(table.schema.metadata or {}), VERSION_KEY: "1.0", CONTENT_KEY: header}
    write_table(table.replace_schema_metadata(metadata), path, compression="snappy", row_group_size=100_000)


def write_fits(table: pa.Table, path: Path, *, name: str, facts: dict[str, str]) -> None:
    """
    Write a table as a FITS binary table; missing numbers are NaN or TNULL, missing words are blank.

    Units stand in TUNIT, UCDs in TUCD and descriptions in TCOMM, where TOPCAT looks for them.

    Raises
    ------
    ValueError
        Two names differ by case only, which FITS takes for one.
    """
    check_columns(table.schema)
    kinds = {f.name: _fits_kind(f, table[f.name]) for f in table.schema}
    dtype = np.dtype([(column, *kind[:-1]) for column, kind in kinds.items()])
    nulls = {f.name: _NULL.get(str(f.type)) for f in table.schema}
    columns = [fits.Column(name=n, format=kind[-1], null=nulls[n]) for n, kind in kinds.items()]
    header = fits.BinTableHDU.from_columns(fits.ColDefs(columns), nrows=0, name=name.upper()).header
    header["NAXIS2"] = table.num_rows
    header["LONGSTRN"] = ("OGIP 1.0", "long strings go on in CONTINUE cards")
    for number, f in enumerate(table.schema, 1):
        about = _about(f)
        for key, value in (("TUNIT", about["unit"]), ("TUCD", about["ucd"]), ("TCOMM", about["description"])):
            if value:
                header[f"{key}{number}"] = _ascii(value)
    for key, value in facts.items():
        header.add_comment(_ascii(f"{key} = {value}"))
    primary = fits.PrimaryHDU().header
    primary["EXTEND"] = True
    data_sum = Sum()
    # By blocks of rows and by ourselves: astropy passes each word through Python, four times slower in all.
    with path.open("wb") as stream:
        stream.write(_signed(primary, Sum()))
        at = stream.tell()
        stream.write(_signed(header, data_sum))
        for start in range(0, table.num_rows, _BLOCK_ROWS):
            block = table.slice(start, _BLOCK_ROWS)
            data = np.zeros(block.num_rows, dtype)
            for f in block.schema:
                data[f.name] = _fits_values(block[f.name], dtype[f.name])
            stream.write(data.data)
            data_sum.add(data.tobytes())
        stream.write(bytes(-dtype.itemsize * table.num_rows % _FITS_RECORD))
        stream.seek(at)
        stream.write(_signed(header, data_sum))


def _signed(header: fits.Header, data_sum: Sum) -> bytes:
    """A header with its checksums, of the same length for every sum."""
    header = header.copy()
    header["DATASUM"] = (f"{data_sum.value():010d}", "data unit checksum")
    header["CHECKSUM"] = ("0" * 16, "HDU checksum")
    return sign(header.tostring().encode("ascii"))


def _about(f: pa.Field) -> dict[str, str]:
    metadata = {key.decode(): value.decode() for key, value in (f.metadata or {}).items()}
    return {key: metadata.get(key, "") for key in ("unit", "ucd", "description")}


def _ascii(text: str) -> str:
    """What a FITS header can hold of a text."""
    return text.encode("ascii", "replace").decode()


def _scalar(kind: pa.DataType) -> pa.DataType:
    """Type of one value of a column, of a vector's too."""
    return kind.value_type if pa.types.is_fixed_size_list(kind) else kind


def _arraysize(kind: pa.DataType, column: pa.ChunkedArray) -> str | None:
    if pa.types.is_fixed_size_list(kind):
        return str(kind.list_size)
    # of one letter it would have to be left out, which astropy reads as an array of letters
    return str(max(2, pc.max(pc.utf8_length(column)).as_py() or 0)) if pa.types.is_string(kind) else None


def _fits_kind(f: pa.Field, column: pa.ChunkedArray) -> tuple[Any, ...]:
    """Big-endian numpy type, shape of a vector, and last FITS format of a column."""
    if pa.types.is_fixed_size_list(f.type):
        dtype, code = _FITS_TYPE[str(f.type.value_type)]
        return dtype, (f.type.list_size,), f"{f.type.list_size}{code}"
    if pa.types.is_string(f.type):
        width = max(1, pc.max(pc.binary_length(column)).as_py() or 1)
        return f"S{width}", f"{width}A"
    return _FITS_TYPE[str(f.type)]


def _fits_values(column: pa.ChunkedArray, dtype: np.dtype[Any]) -> NDArray[Any]:
    if pa.types.is_fixed_size_list(column.type):
        whole = without_gaps(column)
        return _fits_values(pc.list_flatten(whole), dtype.base).reshape(len(column), column.type.list_size)
    if pa.types.is_string(column.type):
        # FITS strings are ASCII; what is not becomes a question mark
        words = without_gaps(column)
        if pc.all(pc.string_is_ascii(words)).as_py() is not False:
            return fixed_width(words, dtype.itemsize)
        return np.array([w.encode("ascii", "replace") for w in words.to_pylist()], dtype)
    if pa.types.is_boolean(column.type):
        truth = pc.if_else(column, "T", "F")  # a missing one is a zero byte
        return fixed_width(pc.fill_null(truth, ""), 1)
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
