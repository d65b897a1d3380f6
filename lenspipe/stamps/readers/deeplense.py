"""DeepLense data sets: a folder for each class with one ``.npy`` or ``.npz`` file a stamp, or stacks of stamps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.npy import members, open_array
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.readers.walk import files_matching
from lenspipe.stamps.spec import ImageSpec
from lenspipe.toml import Table

FILE = re.compile(r".+\.np[yz]")


class DeeplenseOptions(Table):
    """Options of the reader."""

    pixel_scale_arcsec: float
    """Pixel scale: 0.05 for model I; the files do not tell it."""
    bands: tuple[str, ...] = ("unknown",)
    """Names of the bands; as many as the images have."""
    image: str = "image"
    """Array of an ``.npz`` file that holds the pixels, unless it holds one array only."""
    channels_last: bool = False
    """Images are ``(y, x, band)`` instead of ``(y, x)`` or ``(band, y, x)``."""
    unit: str = "arbitrary"
    """Unit of the pixels; the simulations state none."""


@dataclass(frozen=True)
class _Item:
    """Where one stamp lies: a file, or a row of a stack that is read in order."""

    name: str
    label: str | None
    pixels: NDArray[np.generic] | Path

    def __str__(self) -> str:
        return self.name


def read_deeplense(folder: Path, options: DeeplenseOptions) -> StampStream:
    """
    Stamps below ``folder``; the name of the folder that holds a file is its class (axion, cdm, no_sub, ...).

    A file is one stamp ``(y, x)`` or ``(band, y, x)``, or a stack ``(n, band, y, x)``, which is read row by row.
    Scalars of an ``.npz`` file (``axion_mass``) become columns. Object arrays, which the published axion files are,
    need pickle and are refused with the command that converts them. Files straight in ``folder`` have a null label.

    Raises
    ------
    ConfigError
        No arrays in the folder, or an object array among them (the first file of each class is looked at before
        any work, the others as they come).
    """
    files = [(here, match.group()) for here, match in files_matching(folder, FILE)]
    if not files:
        raise ConfigError("no .npy or .npz files below this folder", folder=str(folder))
    firsts = {here: here / name for here, name in reversed(files)}
    shapes = {path: _shape(path, options) for path in firsts.values()}
    spec = ImageSpec(
        options.bands,
        next(iter(shapes.values()))[-2 if options.channels_last else -1],
        options.pixel_scale_arcsec,
        options.unit,
    )
    stacks = any(len(shape) == 4 for shape in shapes.values())
    scalars = sorted({name for path in firsts.values() for name in members(path)} - {"", _member(files, options)})

    def items() -> Iterator[_Item]:
        for here, name in files:
            label = None if here == folder else here.name
            base = f"{here.relative_to(folder.parent)}/{name.rsplit('.', 1)[0]}"
            if _is_stack(here / name, options):
                with open_array(here / name, _pixels_of(here / name, options)) as stack:
                    for row, pixels in enumerate(stack.rows()):
                        yield _Item(f"{base}/{row}", label, pixels)
            else:
                yield _Item(base, label, here / name)

    def read(item: _Item) -> LabelledStamp:
        values: dict[str, float] = {}
        pixels = item.pixels
        if isinstance(pixels, Path):
            values = {name: _scalar(pixels, name) for name in members(pixels) if name in scalars}
            with open_array(pixels, _pixels_of(pixels, options)) as array:
                pixels = array.all()
        image = np.asarray(pixels, np.float32)
        if options.channels_last and image.ndim == 3:
            image = np.moveaxis(image, -1, 0)
        return LabelledStamp(
            item.name, {"image": image[None] if image.ndim == 2 else image}, item.label, item.name, values
        )

    extra = [pa.field(name, pa.float64(), metadata={"description": "scalar stored with the image"}) for name in scalars]
    return stream_stamps("deeplense", {"image": spec}, extra, items(), read, n=None if stacks else len(files))


def _pixels_of(path: Path, options: DeeplenseOptions) -> str:
    names = members(path)
    if len(names) > 1 and options.image not in names:
        raise ConfigError("no such array in the .npz file", option="image", got=options.image, has=",".join(names))
    return options.image if options.image in names else names[0]


def _member(files: list[tuple[Path, str]], options: DeeplenseOptions) -> str:
    return next((_pixels_of(here / name, options) for here, name in files if name.endswith(".npz")), "")


def _shape(path: Path, options: DeeplenseOptions) -> tuple[int, ...]:
    with open_array(path, _pixels_of(path, options)) as array:
        if len(array.shape) not in (2, 3, 4):
            raise DataError("not an image: two to four axes are known", file=str(path), shape=str(array.shape))
        return array.shape


def _is_stack(path: Path, options: DeeplenseOptions) -> bool:
    try:
        return len(_shape(path, options)) == 4
    except DataError:
        return False  # reading it as a stamp gives the same error, which then drops this file alone


def _scalar(path: Path, name: str) -> float:
    with open_array(path, name) as array:
        if np.prod(array.shape) != 1:
            raise DataError("an array beside the image is not a scalar", file=str(path), array=name)
        return float(array.all().reshape(-1)[0])
