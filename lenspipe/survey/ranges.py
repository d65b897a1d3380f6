"""Which bytes of a FITS file hold a window of an image, plain or tile-compressed: what of a remote file is fetched."""

from __future__ import annotations

import math
import re
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lenspipe.survey.shards import Box
from lenspipe.survey.structure import Hdu

_BYTES = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_FORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])(?:([LXBIJKAEDCM]))?")
_PIECES = ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA")
"""Columns of a compressed image that point to the bytes of a piece (FITS standard 4.0, section 10.1.3)."""


def bytes_of_window(hdu: Hdu, window: Box, stream: IO[bytes]) -> list[tuple[int, int]]:
    """
    Ranges of the bytes that hold a window of an HDU's image; empty where that cannot be told, and all will be read.

    Parameters
    ----------
    hdu : Hdu
        Of an image, or of a table into which one is compressed.
    window : Box
        Of the image's last two axes; axes before them have one pixel.
    stream : binary file
        The file, of which the table's rows are read where the image is compressed.
    """
    try:
        if hdu.cards.get("ZIMAGE") == "T":
            return _compressed(hdu, window, stream)
        row = int(hdu.cards["NAXIS1"])
        pixel = abs(int(hdu.cards["BITPIX"])) // 8
    except (KeyError, ValueError, IndexError):
        return []
    starts = hdu.data + pixel * (np.arange(window.y0, window.y1) * row + window.x0)
    return [(int(start), int(start) + pixel * window.shape[1]) for start in starts]


def _compressed(hdu: Hdu, window: Box, stream: IO[bytes]) -> list[tuple[int, int]]:
    cards = hdu.cards
    axes = [int(cards[f"ZNAXIS{k}"]) for k in range(1, int(cards["ZNAXIS"]) + 1)]
    tile = [int(cards.get(f"ZTILE{k}", axes[0] if k == 1 else 1)) for k in range(1, len(axes) + 1)]
    n_across = math.ceil(axes[0] / tile[0])
    down = np.arange(window.y0 // tile[1], (window.y1 - 1) // tile[1] + 1)
    across = np.arange(window.x0 // tile[0], (window.x1 - 1) // tile[0] + 1)
    rows = (down[:, None] * n_across + across).ravel()
    width, n_row = int(cards["NAXIS1"]), int(cards["NAXIS2"])
    heap = hdu.data + int(cards.get("THEAP", width * n_row))
    stream.seek(hdu.data)
    table = np.frombuffer(stream.read(width * n_row), np.uint8).reshape(n_row, width)
    ranges = []
    for n_byte, offset in _pointers(cards, table[rows]):
        there = n_byte > 0
        ranges += [(heap + int(a), heap + int(a + n)) for a, n in zip(offset[there], n_byte[there], strict=True)]
    return ranges


def _pointers(cards: dict[str, str], table: NDArray[np.uint8]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each column that points into the heap: how many bytes each row has there, and from where."""
    found, place = [], 0
    for k in range(1, int(cards["TFIELDS"]) + 1):
        match = _FORM.match(cards[f"TFORM{k}"].strip("' "))
        if match is None:
            raise ValueError("TFORM")
        count, kind, of = int(match[1] or 1), match[2], match[3]
        if kind in "PQ" and of and cards.get(f"TTYPE{k}", "").strip("' ") in _PIECES:
            side = _BYTES[kind] * count
            pair = np.ascontiguousarray(table[:, place : place + side]).view(">i4" if kind == "P" else ">i8")
            found.append((pair[:, 0].astype(np.int64) * _BYTES[of], pair[:, 1].astype(np.int64)))
        place += (count + 7) // 8 if kind == "X" else _BYTES[kind] * count
    return found
