"""What a FITS file is made of and whether it is whole, seen before astropy reads it: sizes, packing, checksums."""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import functools
import gzip
import io
import lzma
import os
import stat
import weakref
import zlib
from collections.abc import Iterator
from typing import IO, Any, Literal, TypeAlias, cast

from lenspipe.errors import TileError
from lenspipe.survey.cards import CARD, cards_of, check_table, data_bytes
from lenspipe.survey.checksums import Mismatch, Sum, disagrees, worse
from lenspipe.survey.compressed import stated_sum, unpacked_mismatch

RECORD = 2880
UNPACKED_GB_MAX = 8.0
"""Default of the most that a packed file may unpack to, 1e9 bytes."""
CANNOT = "the FITS file cannot be read (missing, truncated or damaged)"
SHORT_FACTOR, SHORT_BYTES = 16, 64 << 20
"""A plain file that lacks more than this of what its headers speak of is refused at once; of another that was cut short
the windows that it holds are read."""
_HEADER_RECORDS_MAX = 20_000
_BLOCK = 1 << 22
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_TORN = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)
"""What the unpackers raise for damaged bytes."""


Checks: TypeAlias = Literal["damage", "any", "none"]
"""Which files are refused for their checksums: those that they show to be damaged, any that do not agree, none."""


@dataclasses.dataclass(frozen=True)
class Hdu:
    """Where one HDU lies in the unpacked file, bytes."""

    start: int
    data: int
    end: int
    """End of the data, without what fills the last record."""
    cards: dict[str, str]
    """Values as they are written, of the first card of each keyword."""


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """What a file is made of; known by itself, for a file that has changed has another."""

    hdus: tuple[Hdu, ...]
    packed: str
    """Packing of the whole file: ``gzip``, ``bzip2``, ``xz``, or empty."""
    trailing: bool
    """Whether something that is no HDU follows the last one."""
    mismatch: Mismatch | None
    """Of a packed file: a checksum that does not agree."""

    @property
    def end(self) -> int:
        """End of the last HDU with its filling, bytes."""
        return self.hdus[-1].end + -self.hdus[-1].end % RECORD


def structure_of(file: str, stream: IO[bytes] | None = None, *, unpacked_gb_max: float = UNPACKED_GB_MAX) -> Structure:
    """
    Structure of a FITS file; of a local one it, or that there is none, is kept until the file changes.

    A plain file is asked for its headers only. A packed one is unpacked to its end, in little memory, so that the
    checksums of its packing and of its HDUs are met.

    Parameters
    ----------
    file : str
        Path, or any name where a stream is given.
    stream : binary file, optional
        An open remote file.
    unpacked_gb_max : float
        Most that a packed file, or a compressed image, may unpack to, 1e9 bytes.

    Raises
    ------
    TileError
        The file is not there, not FITS, holds a fraction of what its header speaks of, its packing is damaged or
        unpacks to too much, or a header says what cannot be.
    """
    if stream is not None:
        return _structure(file, stream, unpacked_gb_max)
    try:
        facts = os.stat(file)
    except (OSError, ValueError) as error:
        raise TileError(f"{CANNOT}: {getattr(error, 'strerror', None) or error}", file=file) from error
    try:
        if not stat.S_ISREG(facts.st_mode):
            raise TileError(f"{CANNOT}: it is not a file", file=file)
        found = _kept(file, facts.st_size, facts.st_mtime_ns, facts.st_ino, unpacked_gb_max)
    except OSError as error:
        raise TileError(f"{CANNOT}: {error.strerror or error}", file=file) from error
    if isinstance(found, TileError):
        raise TileError(found.message, **found.facts) from found
    return found


@functools.lru_cache(maxsize=4096)
def _kept(file: str, size: int, changed_ns: int, inode: int, unpacked_gb_max: float) -> Structure | TileError:
    """The structure, or why there is none: a packed file that is damaged is not unpacked again for every shard."""
    with open(file, "rb") as stream:
        try:
            return _structure(file, stream, unpacked_gb_max)
        except TileError as error:
            return error.with_traceback(None)


def check_sums(file: str, structure: Structure, checks: Checks, stream: IO[bytes] | None = None) -> None:
    """
    Compare DATASUM and CHECKSUM of every HDU that has them with its bytes; once, until the file changes.

    ZDATASUM, of an image before it was compressed, is compared where the image has no DATASUM, which guards the same
    pixels, or with ``any``: it takes unpacking the image.

    Raises
    ------
    TileError
        One shows damage or, with ``any``, does not agree.
    """
    if checks == "none":
        return
    mismatch = structure.mismatch if structure.packed else _kept_mismatch(file, structure, stream)
    if any(_asks_for_original(hdu, checks) for hdu in structure.hdus):
        mismatch = worse(mismatch, _kept_original(file, structure, checks, stream))
    if mismatch is None or not (mismatch.damage or checks == "any"):
        return
    why = "it was damaged on its way" if mismatch.damage else "it was damaged, or edited without writing its sums anew"
    anew = "" if mismatch.what.startswith("Z") else "`fitscheck --write --force FILE` writes its sums, and "
    raise TileError(
        f"{mismatch.what} does not agree with the file: {why}. Take it from its source again; where you trust it, "
        f"{anew}survey.checksums = 'none' ignores them",
        file=file,
    )


_mismatches: weakref.WeakKeyDictionary[Structure, dict[str, Mismatch | None]] = weakref.WeakKeyDictionary()
"""What was found of a file, by its structure, which is kept until the file changes."""


def _kept_mismatch(file: str, structure: Structure, stream: IO[bytes] | None) -> Mismatch | None:
    known = _mismatches.setdefault(structure, {})
    if "" not in known:
        with contextlib.ExitStack() as stack:
            known[""] = _mismatch(stream or stack.enter_context(open(file, "rb")), structure)
    return known[""]


def _asks_for_original(hdu: Hdu, checks: Checks) -> bool:
    return stated_sum(hdu.cards) is not None and (checks == "any" or "DATASUM" not in hdu.cards)


def _kept_original(file: str, structure: Structure, checks: Checks, stream: IO[bytes] | None) -> Mismatch | None:
    known = _mismatches.setdefault(structure, {})
    if checks not in known:
        known[checks] = _original_mismatch(file, structure, checks, stream)
    return known[checks]


def _original_mismatch(file: str, structure: Structure, checks: Checks, stream: IO[bytes] | None) -> Mismatch | None:
    worst: Mismatch | None = None
    with until_end(file, structure, stream) as whole:
        for number, hdu in enumerate(structure.hdus):
            if not _asks_for_original(hdu, checks):
                continue
            whole.seek(hdu.start)
            header = whole.read(hdu.data - hdu.start)
            worst = worse(worst, unpacked_mismatch(whole, number, header, hdu.cards))
    return worst


@contextlib.contextmanager
def until_end(file: str, structure: Structure, stream: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    """The unpacked file as far as its last HDU: astropy would look for another in all that follows."""
    with contextlib.ExitStack() as stack:
        raw = stream or stack.enter_context(open(file, "rb"))
        raw.seek(0)
        yield cast(IO[bytes], _Bounded(_unpacked(raw, structure.packed), structure.end))


class _Bounded(io.RawIOBase):
    """A stream that ends earlier than it does."""

    def __init__(self, stream: IO[bytes], end: int) -> None:
        self._stream, self._end, self._at = stream, end, 0
        self.mode = "rb"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._end - self._at)
        n = left if size is None or size < 0 else min(size, left)
        self._stream.seek(self._at)
        found = self._stream.read(n)
        self._at += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


def _unpacked(stream: IO[bytes], packed: str) -> IO[bytes]:
    if packed == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream, mode="rb"))
    if packed == "bzip2":
        return cast(IO[bytes], bz2.BZ2File(stream, "rb"))
    if packed == "xz":
        return cast(IO[bytes], lzma.LZMAFile(stream, "rb"))
    return stream


def _structure(file: str, stream: IO[bytes], unpacked_gb_max: float) -> Structure:
    magic = stream.read(6)
    packed = next((kind for start, kind in _PACKED.items() if magic.startswith(start)), "")
    size = None if packed else stream.seek(0, os.SEEK_END)
    stream.seek(0)
    walk = _Walk(file, _unpacked(stream, packed), size, int(unpacked_gb_max * 1e9))
    try:
        hdus = tuple(walk.hdus())
        trailing = walk.rest() > 0 if packed else cast(int, size) > hdus[-1].end + -hdus[-1].end % RECORD
    except _TORN as error:
        if not packed:
            raise
        raise TileError(f"{CANNOT}: {packed} says {error}", file=file) from error
    return Structure(hdus, packed, trailing, walk.mismatch)


class _Walk:
    """Goes through a file from header to header; through a packed one byte by byte, adding up checksums."""

    def __init__(self, file: str, stream: IO[bytes], size: int | None, limit: int) -> None:
        self._file, self._stream, self._size, self._limit = file, stream, size, limit
        self._at = 0
        self.mismatch: Mismatch | None = None

    def hdus(self) -> Iterator[Hdu]:
        first = True
        while True:
            start = self._at
            raw = self._header(first)
            if raw is None:
                return
            cards = cards_of(raw.decode("latin-1"))
            try:
                n = data_bytes(cards)
                check_table(cards, self._limit)
            except ValueError as error:
                raise self._error(str(error)) from error
            data = start + len(raw)
            if self._size is not None and data + n > SHORT_FACTOR * self._size + SHORT_BYTES:
                raise self._error(
                    f"the file has {self._size} bytes and its header speaks of {data + n}: the download was cut short, "
                    "or the header is wrong"
                )
            if self._size is None and data + n > self._limit:
                raise self._too_much(data + n)
            filled = data + n + -n % RECORD
            if self._size is not None:
                self._at = min(filled, self._size)
                self._stream.seek(self._at)
            else:
                self._through(raw, cards, filled, data + n)
            yield Hdu(start, data, data + n, cards)
            first = False

    def rest(self) -> int:
        """Read a packed file to its end; how many bytes there were."""
        n = len(self._after)
        while block := self._stream.read(_BLOCK):
            n += len(block)
            self._at += len(block)
            if self._at > self._limit:
                raise self._too_much(self._at)
        return n

    _after = b""
    """What was read in search of a further header and is none."""

    def _header(self, first: bool) -> bytes | None:
        """The next header with what fills its last record; None where no HDU follows."""
        records: list[bytes] = []
        begin = b"SIMPLE  " if first else b"XTENSION"
        while len(records) < _HEADER_RECORDS_MAX:
            record = self._stream.read(RECORD)
            self._at += len(record)
            if not records and not record.startswith(begin):
                if first:
                    raise self._error("it does not begin as a FITS file does (SIMPLE)" if record else "it is empty")
                self._after = record
                return None
            records.append(record)
            if len(record) < RECORD:
                break
            if any(record[k : k + 8] == b"END     " for k in range(0, RECORD, CARD)):
                return b"".join(records)
        raise self._error("a header has no end")

    def _through(self, header: bytes, cards: dict[str, str], filled: int, end: int) -> None:
        total = Sum()
        while self._at < filled:
            block = self._stream.read(min(_BLOCK, filled - self._at))
            if not block:
                if self._at < end:
                    raise self._error("the file ends before its data do")
                break
            total.add(block)
            self._at += len(block)
        self.mismatch = worse(self.mismatch, disagrees(cards, header, total))

    def _error(self, message: str) -> TileError:
        return TileError(f"{CANNOT}: {message}", file=self._file)

    def _too_much(self, n: int) -> TileError:
        return TileError(
            f"the file unpacks to more than {self._limit / 1e9:g} GB: is it what it claims to be? If so, raise "
            "survey.unpacked_gb_max",
            file=self._file,
            gigabytes=round(n / 1e9, 1) if n < 1e15 else 1e6,
        )


def _mismatch(stream: IO[bytes], structure: Structure) -> Mismatch | None:
    worst: Mismatch | None = None
    for hdu in structure.hdus:
        if not {"DATASUM", "CHECKSUM"} & hdu.cards.keys():
            continue
        stream.seek(hdu.start)
        header, data = stream.read(hdu.data - hdu.start), Sum()
        left = hdu.end - hdu.data + -hdu.end % RECORD
        while left and (block := stream.read(min(_BLOCK, left))):
            data.add(block)
            left -= len(block)
        worst = worse(worst, disagrees(hdu.cards, header, data))
    return worst
