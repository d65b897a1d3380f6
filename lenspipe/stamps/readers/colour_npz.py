"""One ``.npz`` of uint8 colour stamps and a CSV of grades: Space Warps (More et al. 2016, MNRAS 455, 1191)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.catalog import read_catalog
from lenspipe.stamps.readers.npy import open_array
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.spec import ImageSpec
from lenspipe.toml import Table


class ColourNpzOptions(Table):
    """Options of the reader; the defaults fit the Space Warps stamps."""

    pixel_scale_arcsec: float
    """Pixel scale; 0.186 for the CFHTLS stamps of Space Warps."""
    bands: tuple[str, ...] = ("i", "r", "g")
    """Bands behind the colour channels R, G, B."""
    images: str = "images"
    """Array ``(n, y, x, channel)`` uint8 of the ``.npz``."""
    names: str = "name"
    """Array ``(n,)`` of stamp names of the ``.npz``."""
    catalogue: str = ""
    """CSV with a row per stamp; the only CSV of the folder where empty."""
    key: str = "name"
    """Column of the CSV with the stamp name."""
    label: str = ""
    """Column of the CSV with the class. Where empty the class follows from ``grade``."""
    grade: str = "expert_grade"
    """Column of the CSV with a grade."""
    lens_grade: float = 2.0
    """Stamps graded this or higher are labelled ``lens``."""
    nonlens_grade: float = 0.3
    """Stamps graded this or lower are labelled ``nonlens`` (hard look-alikes); between the two ``candidate``."""
    flip_y: bool = False
    """Turn the images upside down: pictures count rows from the top, FITS from the bottom."""


def read_colour_npz(folder: Path, options: ColourNpzOptions) -> StampStream:
    """
    Colour stamps as float32 0-255 with the unit ``uint8 stretch``: the stretch cannot be undone in general.

    Images are read row by row out of the archive. All columns of the CSV are kept, ``ra_deg`` and ``dec_deg``
    among them; the host is the stamp's name.

    Raises
    ------
    ConfigError
        Not exactly one ``.npz``, or catalogue and options do not fit.
    """
    archives = sorted(folder.glob("*.npz"))
    catalogues = [folder / options.catalogue] if options.catalogue else sorted(folder.glob("*.csv"))
    if len(archives) != 1 or len(catalogues) != 1:
        raise ConfigError(
            "the folder needs one .npz and one CSV (or name the catalogue)", npz=len(archives), csv=len(catalogues)
        )
    catalogue = read_catalog(catalogues[0], options.key)
    column = options.label or options.grade
    if column not in catalogue.table.schema.names:
        raise ConfigError("the catalogue has no column for the class", column=column, file=catalogues[0].name)
    with open_array(archives[0], options.names) as array:
        names = [str(name) for name in array.all()]
    with open_array(archives[0], options.images) as array:
        shape, dtype = array.shape, array.dtype
    if len(shape) != 4 or dtype != np.uint8 or shape[0] != len(names) or shape[3] != len(options.bands):
        raise ConfigError("images must be uint8 (n, y, x, channel)", got=f"{dtype} {shape}", names=len(names))
    spec = ImageSpec(options.bands, shape[2], options.pixel_scale_arcsec, "uint8 stretch")

    def items() -> Iterator[_Picture]:
        with open_array(archives[0], options.images) as array:
            yield from map(_Picture, names, array.rows())

    def read(picture: _Picture) -> LabelledStamp:
        row = catalogue.row(picture.name)
        if row is None:
            raise DataError("the stamp is not in the catalogue", stamp=picture.name)
        pixels = np.moveaxis(picture.pixels[::-1] if options.flip_y else picture.pixels, -1, 0)
        label = _class_of(row[column], options)
        return LabelledStamp(picture.name, {"image": pixels.astype(np.float32)}, label, picture.name, row)

    extra = [_described(f) for f in catalogue.fields(leave_out=(options.key,))]
    return stream_stamps("colour-npz", {"image": spec}, extra, items(), read, n=len(names))


class _Picture:
    def __init__(self, name: str, pixels: NDArray[np.uint8]) -> None:
        self.name, self.pixels = name, pixels

    def __str__(self) -> str:
        return self.name


def _described(field: pa.Field) -> pa.Field:
    return field.with_metadata({"unit": "deg"}) if field.name in ("ra_deg", "dec_deg") else field


def _class_of(value: object, options: ColourNpzOptions) -> str | None:
    if options.label or value is None:
        return None if value is None else str(value)
    grade = float(str(value))
    if grade >= options.lens_grade:
        return "lens"
    return "nonlens" if grade <= options.nonlens_grade else "candidate"
