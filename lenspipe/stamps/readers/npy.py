"""NumPy arrays from files, row by row and without pickle: object arrays are refused before they are opened."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


_TORN = (zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, SyntaxError, TokenError)
"""What else reading a damaged archive raises."""


@dataclass(frozen=True)
class NpyArray:
    """An array whose header is read and whose values are still in the stream."""

    shape: tuple[int, ...]
    """Shape of the whole array."""
    dtype: np.dtype[Any]
    """Type of a value."""
    stream: IO[bytes]
    """Open file, at the first value."""

    def rows(self) -> Iterator[NDArray[Any]]:
        """Sub-arrays along the first axis, each read when it is asked for."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        for _ in range(self.shape[0]):
            yield np.frombuffer(_exactly(self.stream, size), self.dtype).reshape(self.shape[1:])

    def all(self) -> NDArray[Any]:
        """The whole array: for small ones."""
        size = math.prod(self.shape) * self.dtype.itemsize
        return np.frombuffer(_exactly(self.stream, size), self.dtype).reshape(self.shape)


def members(path: Path) -> list[str]:
    """Names of the arrays in an ``.npz`` file; one empty name for an ``.npy`` file."""
    if path.suffix != ".npz":
        return [""]
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile, ValueError, *_TORN) as error:
        raise DataError(f"the .npz file cannot be read: {error}", file=path.name) from error


@contextmanager
def open_array(path: Path, member: str = "") -> Iterator[NpyArray]:
    """
    Open the array of an ``.npy`` file, or one member of an ``.npz`` file.

    Raises
    ------
    ConfigError
        It is an object array: reading one runs pickle code. The message names the safe conversion.
    DataError
        The file is damaged, or the array is stored in Fortran order.
    """
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
                yield _header(stream, path, member, archive.getinfo(f"{member}.npy").file_size)
        else:
            with path.open("rb") as stream:
                yield _header(stream, path, member, path.stat().st_size)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, *_TORN) as error:
        raise DataError(f"the array cannot be read: {error}", file=path.name, member=member) from error


def _header(stream: IO[bytes], path: Path, member: str, n_byte: int) -> NpyArray:
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the .npy format holds no plain array")
    shape, fortran, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise ConfigError(
            "an object array: reading it would run pickle code, which can do anything. If you trust where the file is "
            "from, convert it once, in a session of its own: "
            f"python -c \"import numpy as np; a = np.load('{path.name}', allow_pickle=True); "
            f"np.savez('{path.stem}.npz', image=np.asarray(a[0], 'f4'), axion_mass=float(a[1]))\"",
            file=str(path),
            member=member,
        )
    if any(n < 0 for n in shape) or (max(shape, default=0) and math.prod(shape) * dtype.itemsize == 0):
        raise ValueError(f"an array of shape {shape} holds nothing")
    if math.prod(shape) * dtype.itemsize > n_byte:
        raise ValueError(f"the file ends early: {n_byte} bytes do not hold an array of shape {str(shape)[:80]}")
    if fortran and len(shape) > 1:
        raise ValueError("stored in Fortran order: save it again with np.ascontiguousarray")
    return NpyArray(shape, dtype, stream)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    found = stream.read(size)
    if len(found) != size:
        raise ValueError(f"the file ends early: {size - len(found)} bytes are missing")
    return found
