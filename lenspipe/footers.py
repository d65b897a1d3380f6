"""
A digest of a Parquet file's footer, in the file.

Pages have checksums of their own; the footer (names and types of columns, counts, places and bounds of pages) has none,
and a flipped bit in it may rename a column. A seal of 48 bytes in front of the footer, a place that the format leaves
free and that readers pass over, holds its SHA-256. Files without one are taken as they are.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

from lenspipe.errors import DataError

_MARK = b"lenspipe:sha256:"
_SEAL_BYTES = len(_MARK) + hashlib.sha256().digest_size
_MAGIC, _TAIL_BYTES = b"PAR1", 8
"""The file ends with the footer's length, 4 bytes, and this."""


def seal(path: str | Path) -> None:
    """Put a digest of its footer into a Parquet file that is whole."""
    with open(path, "r+b") as stream:
        start, footer = _footer(stream)
        if _stated(stream, start) is None:
            stream.seek(start)
            stream.write(_MARK + hashlib.sha256(footer).digest() + footer)


def check_seal(path: str | Path) -> None:
    """
    Hold the footer of a local Parquet file against its digest, where it has one.

    Raises
    ------
    DataError
        They differ.
    """
    with open(path, "rb") as stream:
        start, footer = _footer(stream)
        stated = _stated(stream, start)
    if stated is not None and stated != hashlib.sha256(footer).digest():
        raise DataError("its footer differs from its checksum", file=str(path))


def _footer(stream: IO[bytes]) -> tuple[int, bytes]:
    """Where the footer begins, and its bytes with its length; what is no Parquet has none."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL_BYTES))
    tail = stream.read(_TAIL_BYTES)
    start = size - _TAIL_BYTES - int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or start < len(_MAGIC):
        return size, b""
    stream.seek(start)
    return start, stream.read()


def _stated(stream: IO[bytes], start: int) -> bytes | None:
    if start < len(_MAGIC) + _SEAL_BYTES:
        return None
    stream.seek(start - _SEAL_BYTES)
    found = stream.read(_SEAL_BYTES)
    return found[len(_MARK) :] if found.startswith(_MARK) else None
