"""DATASUM and CHECKSUM of the FITS standard: added up, compared and written."""

from __future__ import annotations

import dataclasses

import numpy as np

from lenspipe.survey.cards import cards_of

ONES = 0xFFFFFFFF
"""A sum that is nothing, with end-around carry."""


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """A checksum that does not agree with its HDU."""

    what: str
    damage: bool
    """Whether this shows damage: the header is as its checksum was written for, and the data are not; or the difference
    is that of one bit. Else the header may have been edited since: many cut-outs carry the sums of what they are from.
    """


class Sum:
    """The 32-bit sum with end-around carry of the FITS standard, over pieces of any length."""

    def __init__(self) -> None:
        self._total, self._odd = 0, b""

    def add(self, block: bytes) -> None:
        """Add bytes."""
        block = self._odd + block
        whole = len(block) & ~3
        self._total += int(np.frombuffer(block, ">u4", whole // 4).byteswap().view("=u4").sum(dtype=np.uint64))
        self._odd = block[whole:]

    def value(self) -> int:
        """The sum of what was added."""
        total = self._total
        if self._odd:
            total += int.from_bytes(self._odd.ljust(4, b"\0"), "big")
        while total > ONES:
            total = (total & ONES) + (total >> 32)
        return total


def sign(header: bytes) -> bytes:
    """
    A header with its CHECKSUM, which holds sixteen zeros in it, set so that the whole HDU adds up to ones.

    The encoding is that of the FITS standard 4.0, appendix J. DATASUM must be there.
    """
    whole = Sum()
    whole.add(header)
    data_sum = int(cards_of(header.decode("latin-1"))["DATASUM"].strip("' "))
    left = ONES - (whole.value() + data_sum) % ONES
    letters = bytearray(16)
    for k, byte in enumerate(left.to_bytes(4, "big")):
        four = [byte // 4 + 48] * 4
        four[0] += byte % 4
        while any(_is_sign(letter) for letter in four):
            for j in (0, 2):
                if _is_sign(four[j]) or _is_sign(four[j + 1]):
                    four[j], four[j + 1] = four[j] + 1, four[j + 1] - 1
        for j in range(4):
            letters[4 * j + k] = four[j]
    at = header.index(b"CHECKSUM= '") + 11
    return header[:at] + bytes(letters[-1:] + letters[:-1]) + header[at + 16 :]


def _is_sign(letter: int) -> bool:
    return 0x3A <= letter <= 0x40 or 0x5B <= letter <= 0x60


def disagrees(cards: dict[str, str], header: bytes, data: Sum) -> Mismatch | None:
    """What is wrong with an HDU's checksums; None where nothing is."""
    name = cards.get("EXTNAME", "").strip("' ")
    of = f" of {name}" if name else ""
    stated = cards.get("DATASUM", "").strip("' ")
    whole = Sum()
    whole.add(header)
    head, found = whole.value(), data.value()
    signed = bool(cards.get("CHECKSUM", "").strip("' 0"))
    if stated.isdigit() and (off := (found - int(stated)) % ONES):
        as_written = signed and (head + int(stated)) % ONES == 0
        return Mismatch(f"DATASUM{of}", as_written or is_one_bit(off))
    if signed and (off := (head + found) % ONES):
        return Mismatch(f"CHECKSUM{of}", is_one_bit(off))
    return None


def is_one_bit(off: int) -> bool:
    """Whether two sums differ as one exchanged bit makes them: by a power of two, up or down."""
    return min(off.bit_count(), (ONES - off).bit_count()) == 1


def worse(one: Mismatch | None, two: Mismatch | None) -> Mismatch | None:
    """The one of two that shows damage, else the first."""
    return two if one is None or (two is not None and two.damage and not one.damage) else one
