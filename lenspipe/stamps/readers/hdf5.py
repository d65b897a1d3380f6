"""One HDF5 file of stamps: an array of pixels, and arrays of the same length with labels and whatever else."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.spec import FORMAT_COLUMNS, SPLITS, ImageSpec
from lenspipe.toml import Table
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
BLOCK = 64
"""Stamps that are read at a time."""


class Hdf5Options(Table):
    """Options of the reader; arrays are named by their path in the file, such as ``images`` or ``train/images``."""

    bands: tuple[str, ...]
    """Bands in the order of their axis."""
    pixel_scale_arcsec: float
    """Pixel scale."""
    file: str = ""
    """Name of the file; the only one of the folder where empty."""
    images: str = "images"
    """Array with the pixels."""
    axes: Literal["nbyx", "nyxb", "nyx"] = "nbyx"
    """Its axes: stamp, band, row, column; ``nyx`` for one band."""
    zero_point_ab: float | None = None
    """AB zero-point of the pixels; they are nJy already where it is not stated."""
    unit: str = "nJy"
    """Unit of the pixels; anything but nJy stores them as they are."""
    labels: str = ""
    """Array ``(n,)`` with the class: words, or numbers that ``classes`` names."""
    classes: tuple[str, ...] = ()
    """Classes 0, 1, 2 ... of an array of numbers."""
    label: str = ""
    """Class of every stamp, where there is no such array; null where both are empty."""
    names: str = ""
    """Array ``(n,)`` of unique names; the number of the stamp where empty."""
    hosts: str = ""
    """Array ``(n,)`` of hosts; the stamp itself is its host where empty."""
    splits: str = ""
    """Array ``(n,)`` of words train, validation, test; splits are drawn where empty."""
    ra: str = ""
    """Array ``(n,)`` of right ascensions, degrees."""
    dec: str = ""
    """Array ``(n,)`` of declinations, degrees."""
    columns: tuple[str, ...] = ()
    """Arrays ``(n,)`` of numbers or words that become columns, under the last part of their path."""


def read_hdf5(folder: Path, options: Hdf5Options) -> StampStream:
    """
    Stamps of an HDF5 file, in nJy, read in blocks of rows. Needs h5py (``lenspipe[hdf5]``).

    Links to other files and arrays that lie in them are refused: the file alone is the data.

    Raises
    ------
    ConfigError
        h5py is not installed, there is not exactly one file, or arrays and options do not fit.
    """
    if importlib.util.find_spec("h5py") is None:
        raise ConfigError("HDF5 files need the package h5py: pip install 'lenspipe[hdf5]'")
    files = [folder / options.file] if options.file else sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    if len(files) != 1 or not files[0].is_file():
        raise ConfigError("the folder needs one HDF5 file (or name it by file)", folder=str(folder), files=len(files))
    (file,) = files
    beside = {
        name: array
        for name, array in {
            "label": options.labels,
            "stamp": options.names,
            "host": options.hosts,
            "split": options.splits,
            "ra_deg": options.ra,
            "dec_deg": options.dec,
        }.items()
        if array
    }
    columns = {path.rsplit("/", 1)[-1]: path for path in options.columns}
    if wrong := [name for name in columns if name in FORMAT_COLUMNS or name in beside]:
        raise ConfigError("a column has the name of one of the format's own; leave it out", column=wrong[0])
    with _opened(file) as opened:
        shape = _shape(_array(opened, options.images, file), options, file)
        values = {name: _values(opened, path, shape[0], file) for name, path in (beside | columns).items()}
    spec = ImageSpec(options.bands, shape[-1], options.pixel_scale_arcsec, options.unit)
    factor = np.float32(1)
    if options.zero_point_ab is not None and options.unit == "nJy":
        factor = np.float32(10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - options.zero_point_ab)))

    def items() -> Iterator[_Item]:
        with _opened(file) as opened:
            array = _array(opened, options.images, file)
            for start in range(0, shape[0], BLOCK):
                block = array[start : start + BLOCK]
                yield from (_Item(start + k, pixels) for k, pixels in enumerate(block))

    def read(item: _Item) -> LabelledStamp:
        pixels = np.asarray(item.pixels, np.float32)
        pixels = {"nyx": pixels[None], "nyxb": np.moveaxis(pixels, -1, 0)}.get(options.axes, pixels) * factor
        row = {name: of[item.number] for name, of in values.items()}
        name = str(row.pop("stamp", item.number))
        split = row.pop("split", None)
        if split is not None and split not in SPLITS:
            raise DataError("the file names a split that does not exist", got=str(split), known=",".join(SPLITS))
        label = _label(row.pop("label", options.label or None), options)
        return LabelledStamp(name, {"image": pixels}, label, str(row.pop("host", name)), row, split)

    extra = [_field(name, of, unit="deg" if name in ("ra_deg", "dec_deg") else "") for name, of in values.items()
             if name in columns or name in ("ra_deg", "dec_deg")]  # fmt: skip
    return stream_stamps("hdf5", {"image": spec}, extra, items(), read, n=shape[0])


@dataclass(frozen=True)
class _Item:
    number: int
    pixels: NDArray[Any]

    def __str__(self) -> str:
        return str(self.number)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            yield opened
    except OSError as error:
        raise ConfigError(f"not an HDF5 file, or a damaged one ({error})", file=str(file)) from error


def _array(opened: Any, path: str, file: Path) -> Any:
    """An array of the file itself."""
    import h5py

    here, parts = opened, path.strip("/").split("/")
    for part in parts:
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            has = ",".join(here) if isinstance(here, h5py.Group) else ""
            raise ConfigError("the file has no such array", array=path, has=has[:200], file=file.name)
        if isinstance(link, h5py.ExternalLink):
            raise ConfigError("the array is a link to another file, which is not followed", array=path, file=file.name)
        here = here[part]
    if not isinstance(here, h5py.Dataset):
        raise ConfigError(
            "this is a group, not an array; name one in it", array=path, has=",".join(here), file=file.name
        )
    if here.is_virtual or here.external:
        raise ConfigError("the array's pixels lie in other files, which are not read", array=path, file=file.name)
    return here


def _shape(array: Any, options: Hdf5Options, file: Path) -> tuple[int, int, int, int]:
    """Shape (n, band, y, x), whatever the order of the axes."""
    shape, dtype = array.shape, array.dtype
    named = dict(zip(options.axes, shape, strict=False)) if len(shape) == len(options.axes) else {}
    side, n_band = named.get("x"), named.get("b", 1)
    if dtype.kind not in "fiu" or side is None or side != named["y"] or n_band != len(options.bands):
        raise ConfigError(
            f"the images must be numbers with the axes {options.axes}, square, and as many bands as are named",
            got=f"{dtype} {shape}",
            bands=",".join(options.bands),
            file=file.name,
        )
    return named["n"], n_band, side, side


def _values(opened: Any, path: str, n: int, file: Path) -> list[Any]:
    """The values of an array ``(n,)`` of numbers or words."""
    array = _array(opened, path, file)
    if array.shape != (n,) or array.dtype.kind not in "fiubSO":
        raise ConfigError(
            "an array beside the images must have one number or word per stamp",
            array=path,
            got=f"{array.dtype} {array.shape}",
            stamps=n,
            file=file.name,
        )
    values = array[:].tolist()
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]


def _label(value: Any, options: Hdf5Options) -> str | None:
    if value is None or value == "":
        return None
    if not options.classes:
        return str(value)
    if isinstance(value, str) or int(value) != value or not 0 <= value < len(options.classes):
        raise DataError("the label is not the number of a class", got=str(value), classes=",".join(options.classes))
    return options.classes[int(value)]


def _field(name: str, values: list[Any], *, unit: str) -> pa.Field:
    kind = pa.string() if any(isinstance(value, str) for value in values) else pa.float64()
    if kind == pa.float64() and values and all(isinstance(value, bool | int) for value in values):
        kind = pa.int64()
    return pa.field(name, kind, metadata={"unit": unit} if unit else None)
