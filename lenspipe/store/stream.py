"""An object as a binary file of which only what is read is fetched, and of which many pieces can be fetched at once."""

from __future__ import annotations

import bisect
import io
import os
from collections.abc import Iterable
from typing import Any

from lenspipe.store.objects import MERGE_BYTES, Version, read_ranges

BLOCK_BYTES, BLOCK_BYTES_MAX = 16 << 10, 8 << 20
"""What is fetched for a small read; twice as much each time where it is read on from there."""
KEPT_BYTES = 64 << 10
"""Of the blocks that are fetched for headers, those up to this size stay: they are asked for again."""


class RemoteFile(io.RawIOBase):
    """
    A binary file over an object of a store.

    Parameters
    ----------
    url : str
    version : Version
        Of the object when it was opened.
    pieces : dict, optional
        Pieces that are known already, bytes by their start; pieces of headers are added to it.
    """

    def __init__(self, url: str, version: Version, pieces: dict[int, bytes] | None = None) -> None:
        self._url, self.size, self._at = url, version.size, 0
        self._pieces = pieces if pieces is not None else {}
        self._fetched: list[tuple[int, bytes]] = []
        self._block, self._block_at, self._next = b"", 0, BLOCK_BYTES
        self.keeping = False
        """Whether small blocks are added to ``pieces``."""
        self.mode = "rb"

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; nothing is fetched."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Bytes from where it is; what is not known is fetched."""
        left = max(0, self.size - self._at)
        n = left if size is None or size < 0 else min(size, left)
        found = self._known(self._at, n)
        if found is None:
            found = self._read(self._at, n)
        self._at += n
        return found

    def readinto(self, buffer: Any) -> int:
        """As `read`, into a buffer."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges that will be read, all at once; what was fetched so before is dropped."""
        wanted = merged((max(0, a), min(b, self.size)) for a, b in ranges)
        self._fetched = list(zip((a for a, _ in wanted), read_ranges(self._url, wanted), strict=True))

    def _known(self, start: int, n: int) -> bytes | None:
        if n == 0:
            return b""
        place = bisect.bisect_right(self._fetched, start, key=lambda piece: piece[0]) - 1
        pieces = [self._fetched[place]] if place >= 0 else []
        pieces += [(self._block_at, self._block), *self._pieces.items()]
        for at, piece in pieces:
            if at <= start and start + n <= at + len(piece):
                return piece[start - at : start - at + n]
        return None

    def _read(self, start: int, n: int) -> bytes:
        on = self._block_at + len(self._block)
        follows = bool(self._block) and self._block_at <= start <= on
        self._next = min(2 * self._next, BLOCK_BYTES_MAX) if follows else BLOCK_BYTES
        end = min(self.size, start + max(n, self._next))
        (self._block,), self._block_at = read_ranges(self._url, [(start, end)]), start
        if self.keeping and len(self._block) <= KEPT_BYTES:
            self._pieces[start] = self._block
        return self._block[:n]


def merged(ranges: Iterable[tuple[int, int]], gap: int = MERGE_BYTES) -> list[tuple[int, int]]:
    """
    Ranges in order, those that lie nearer to each other than ``gap`` as one.

    Examples
    --------
    >>> merged([(10, 20), (0, 4), (500, 600)], gap=10)
    [(0, 20), (500, 600)]
    """
    found: list[tuple[int, int]] = []
    for start, end in sorted(r for r in ranges if r[1] > r[0]):
        if found and start - found[-1][1] < gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
