"""Cards of a FITS header, before astropy reads them: what they say, and whether that can be."""

from __future__ import annotations

import math
import re

CARD = 80
_INTEGER = re.compile(r"[+-]?\d{1,40}")
_VALUE = re.compile(r"= *('(?:[^']|'')*'|[^/]*)")
_BITPIX = {8, 16, 32, 64, -32, -64}
_AXES_MAX = 999
"""Of axes, of columns: what the standard allows."""
_BLOCK = 1 << 22


def cards_of(text: str) -> dict[str, str]:
    """Values of a header as they are written, of the first card of each keyword."""
    found: dict[str, str] = {}
    for k in range(0, len(text), CARD):
        key = text[k : k + 8].rstrip()
        if key == "END":
            break
        if text[k + 8 : k + 9] == "=" and key not in found:
            match = _VALUE.match(text, k + 8, k + CARD)
            found[key] = match[1].strip() if match else ""
    return found


def _whole(cards: dict[str, str], key: str, low: int, high: int, default: int | None = None) -> int:
    """
    Value of a card that must be a whole number within limits.

    Raises
    ------
    ValueError
        It is not, or missing without a default.
    """
    text = cards.get(key)
    if text is None and default is not None:
        return default
    if text is None or not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
        said = "is missing" if text is None else f"is {text[:40]}"
        raise ValueError(f"{key} {said}, which cannot be")
    return int(text)


_MOST = 1 << 62


def data_bytes(cards: dict[str, str]) -> int:
    """
    Bytes of the data that a header speaks of, without filling.

    Raises
    ------
    ValueError
        BITPIX, NAXIS, PCOUNT or the like say what cannot be.
    """
    bits = _whole(cards, "BITPIX", -64, 64)
    if bits not in _BITPIX:
        raise ValueError(f"BITPIX is {bits}, which cannot be")
    axes = [_whole(cards, f"NAXIS{k}", 0, _MOST) for k in range(1, _whole(cards, "NAXIS", 0, _AXES_MAX) + 1)]
    if not axes:
        return 0
    if axes[0] == 0 and cards.get("GROUPS") == "T":
        axes = axes[1:]
    extra = _whole(cards, "PCOUNT", 0, _MOST, 0)
    return abs(bits) // 8 * _whole(cards, "GCOUNT", 1, _MOST, 1) * (extra + math.prod(axes))


def check_table(cards: dict[str, str], limit: int) -> None:
    """Raise `ValueError` where the cards of a table, and of an image compressed into it, say what cannot be."""
    if not cards.get("XTENSION", "").strip("' ").startswith(("BINTABLE", "TABLE", "A3DTABLE")):
        return
    n_column = _whole(cards, "TFIELDS", 0, _AXES_MAX)
    for k in range(1, n_column + 1):
        for key in (f"TTYPE{k}", f"TFORM{k}"):
            if not cards.get(key, "''").startswith("'"):
                raise ValueError(f"{key} is {cards[key][:40]}, which is not text")
    if cards.get("ZIMAGE") != "T":
        return
    bits = _whole(cards, "ZBITPIX", -64, 64)
    axes = [_whole(cards, f"ZNAXIS{k}", 0, _MOST) for k in range(1, _whole(cards, "ZNAXIS", 0, _AXES_MAX) + 1)]
    tile = [_whole(cards, f"ZTILE{k}", 1, _MOST, 1 if k > 1 else max(1, axes[0])) for k in range(1, len(axes) + 1)]
    n_tile = math.prod(-(-axis // side) for axis, side in zip(axes, tile, strict=True)) if axes else 0
    n_row = _whole(cards, "NAXIS2", 0, _MOST)
    if n_tile != n_row:
        raise ValueError(f"an image in {n_tile} compressed pieces (ZNAXIS, ZTILE) has {n_row} of them (NAXIS2)")
    if abs(bits) // 8 * math.prod(axes) > limit:
        raise ValueError(
            f"a compressed image unpacks to more than {limit / 1e9:g} GB (ZNAXIS); if it is what it claims to be, "
            "raise survey.unpacked_gb_max"
        )
    if math.prod(tile) > 4 * max(1, math.prod(axes)) and math.prod(tile) > _BLOCK:
        raise ValueError("ZTILE is larger than the image")
