"""
ZDATASUM and ZHECKSUM: the checksums that an image had before it was compressed into a table.

By the tiled-image convention of the FITS standard 4.0, section 10.1, they are the DATASUM and CHECKSUM of the original.
"""

from __future__ import annotations

import re
from typing import IO

import numpy as np

from lenspipe.survey.cards import CARD
from lenspipe.survey.checksums import ONES, Mismatch, Sum, is_one_bit

_NO_NAME = "COMPRESSED_IMAGE"
"""What the table of an image without a name is called."""
_PIXELS = 1 << 24
"""Unpacked at a time."""
_LOSSLESS = {"RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "NOCOMPRESS"}
_OF_THE_TABLE = re.compile(
    r"XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TFIELDS|(TTYPE|TFORM|TUNIT|TDIM|TNULL|TSCAL|TZERO|TDISP)\d+|THEAP|CHECKSUM"
    r"|DATASUM|ZIMAGE|ZCMPTYPE|(ZTILE|ZNAME|ZVAL)\d+|ZMASKCMP|ZQUANTIZ|ZDITHER0|ZBLANK|ZSCALE|ZZERO"
)
_OF_THE_IMAGE = {
    "ZSIMPLE": "SIMPLE", "ZTENSION": "XTENSION", "ZEXTEND": "EXTEND", "ZBLOCKED": "BLOCKED", "ZBITPIX": "BITPIX",
    "ZPCOUNT": "PCOUNT", "ZGCOUNT": "GCOUNT", "ZHECKSUM": "CHECKSUM", "ZDATASUM": "DATASUM",
}  # fmt: skip


def stated_sum(cards: dict[str, str]) -> int | None:
    """ZDATASUM of a compressed image that unpacks to what it was, bit for bit; None of others."""
    text = cards.get("ZDATASUM", "").strip("' ")
    if cards.get("ZIMAGE") != "T" or not text.isdigit():
        return None
    kind = cards.get("ZCMPTYPE", "").strip("' ")
    columns = {value.strip("' ") for key, value in cards.items() if key.startswith("TTYPE")}
    if "ZSCALE" in columns or "ZSCALE" in cards:  # of real numbers that were rounded
        return None
    return int(text) if kind in _LOSSLESS or (kind == "HCOMPRESS_1" and _named(cards, "SCALE") == 0) else None


def _named(cards: dict[str, str], name: str) -> float:
    for key, value in cards.items():
        if key.startswith("ZNAME") and value.strip("' ") == name:
            try:
                return float(cards.get(f"ZVAL{key[5:]}", "nan"))
            except ValueError:
                return float("nan")
    return float("nan")


def unpacked_mismatch(stream: IO[bytes], number: int, header: bytes, cards: dict[str, str]) -> Mismatch | None:
    """
    What is wrong with the sum of an image before it was compressed; None where nothing is, or nothing is stated.

    The image is unpacked in pieces. Damage is shown where the header is as ZHECKSUM was written for, with ZDATASUM, or
    where the difference is that of one bit: many cut-outs carry the sums of what they are from.

    Parameters
    ----------
    stream : binary file
        The whole FITS file.
    number : int
        HDU of the table.
    header : bytes
        Its header.
    cards : dict
        Values of the header (`cards_of`).
    """
    stated = stated_sum(cards)
    if stated is None:
        return None
    off = (_sum_of(stream, number) - stated) % ONES
    if not off:
        return None
    name = cards.get("EXTNAME", "").strip("' ").replace(_NO_NAME, "")
    whole = Sum()
    whole.add(original_header(header))
    as_written = bool(cards.get("ZHECKSUM", "").strip("' 0")) and (whole.value() + stated) % ONES == 0
    return Mismatch(f"ZDATASUM{f' of {name}' if name else ''}", as_written or is_one_bit(off))


def _sum_of(stream: IO[bytes], number: int) -> int:
    from astropy.io import fits

    total = Sum()
    stream.seek(0)
    with fits.open(stream, do_not_scale_image_data=True, uint=False, memmap=False, lazy_load_hdus=True) as hdus:
        hdu = hdus[number]
        rows = max(1, _PIXELS // max(1, int(np.prod(hdu.shape[1:]))))
        for first in range(0, hdu.shape[0], rows):
            piece = np.asarray(hdu.section[first : first + rows])
            total.add(piece.astype(piece.dtype.newbyteorder(">"), copy=False).tobytes())
    return total.value()


def original_header(header: bytes) -> bytes:
    """
    Cards of the image before it was compressed, filled as a header is.

    Their order may be another, which a sum does not see.
    """
    cards = []
    for k in range(0, len(header), CARD):
        card = header[k : k + CARD]
        key = card[:8].decode("latin-1").rstrip()
        if key == "END":
            break
        if key in _OF_THE_IMAGE or re.fullmatch(r"ZNAXIS\d*", key):
            card = _OF_THE_IMAGE.get(key, key[1:]).ljust(8).encode() + card[8:]
        elif _OF_THE_TABLE.fullmatch(key) or (key == "EXTNAME" and _NO_NAME.encode() in card) or not key:
            continue
        cards.append(card)
    text = b"".join([*cards, b"END".ljust(CARD)])
    return text + b" " * (-len(text) % 2880)
