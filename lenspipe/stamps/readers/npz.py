"""One ``.npz`` of stamps in flux units and a CSV with a row per stamp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.catalog import Catalog, read_catalog
from lenspipe.stamps.readers.npy import members, open_array
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.spec import SPLITS, ImageSpec
from lenspipe.toml import Table
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB


class NpzOptions(Table):
    """Options of the reader."""

    bands: tuple[str, ...]
    """Bands in the order of their axis."""
    pixel_scale_arcsec: float
    """Pixel scale; arrays have no WCS."""
    zero_point_ab: float | None = None
    """AB zero-point of the pixels; they are nJy already where it is not stated."""
    unit: str = "nJy"
    """Unit of the pixels; anything but nJy stores them as they are."""
    images: str = "images"
    """Array of the ``.npz`` with the pixels."""
    axes: Literal["nbyx", "nyxb", "nyx"] = "nbyx"
    """Its axes: stamp, band, row, column; ``nyx`` for one band."""
    names: str = ""
    """Array ``(n,)`` of stamp names of the ``.npz``; where empty, the k-th row of the CSV is the k-th stamp."""
    catalogue: str = ""
    """CSV with a row per stamp; the only one of the folder where empty."""
    key: str = "name"
    """Column of the CSV with the stamp name."""
    label_column: str = ""
    """Column of the CSV with the class."""
    label: str = ""
    """Class of every stamp, where there is no such column; null where both are empty."""
    host_column: str = ""
    """Column of the CSV with the host; the stamp itself is its host where empty."""
    ra: str = "ra"
    """Column of the CSV with the right ascension, degrees; no positions where it is not there."""
    dec: str = "dec"
    """Column of the CSV with the declination, degrees."""


def read_npz(folder: Path, options: NpzOptions) -> StampStream:
    """
    Stamps out of an archive, row by row, in nJy; all columns of the CSV are kept, its position as ``ra_deg, dec_deg``.

    Raises
    ------
    ConfigError
        Not exactly one ``.npz`` and one CSV, or array, catalogue and options do not fit.
    """
    archives = sorted(folder.glob("*.npz"))
    catalogues = [folder / options.catalogue] if options.catalogue else sorted(folder.glob("*.csv"))
    if len(archives) != 1 or len(catalogues) != 1:
        raise ConfigError(
            "the folder needs one .npz and one CSV (or name the catalogue)", npz=len(archives), csv=len(catalogues)
        )
    (archive,) = archives
    catalogue = read_catalog(catalogues[0], options.key)
    _check_columns(catalogue, options, catalogues[0])
    shape = _shape(archive, options)
    keys = [str(value) for value in catalogue.table.column(options.key).to_pylist()]
    if options.names:
        with open_array(archive, options.names) as array:
            keys = [str(name) for name in array.all()]
    if len(keys) != shape[0]:
        raise ConfigError("the archive has another number of stamps than of names", stamps=shape[0], names=len(keys))
    spec = ImageSpec(options.bands, shape[-1], options.pixel_scale_arcsec, options.unit)
    factor = np.float32(1)
    if options.zero_point_ab is not None and options.unit == "nJy":
        factor = np.float32(10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - options.zero_point_ab)))

    def items() -> Iterator[_Item]:
        with open_array(archive, options.images) as array:
            yield from map(_Item, keys, array.rows())

    def read(item: _Item) -> LabelledStamp:
        row = catalogue.row(item.name)
        if row is None:
            raise DataError("the stamp is not in the catalogue", stamp=item.name)
        pixels = np.asarray(item.pixels, np.float32)
        pixels = {"nyx": pixels[None], "nyxb": np.moveaxis(pixels, -1, 0)}.get(options.axes, pixels) * factor
        label = row[options.label_column] if options.label_column else options.label
        host = str(row[options.host_column]) if options.host_column else item.name
        row |= {"ra_deg": row.get(options.ra), "dec_deg": row.get(options.dec)}
        split = row.get("split")
        if split is not None and split not in SPLITS:
            raise DataError("the catalogue names a split that does not exist", got=str(split), known=",".join(SPLITS))
        return LabelledStamp(
            item.name, {"image": pixels}, None if label in (None, "") else str(label), host, row, split
        )

    own = (options.key, options.label_column, options.host_column, options.ra, options.dec, "ra_deg", "dec_deg")
    extra = catalogue.fields(leave_out=own)
    if {options.ra, options.dec} <= set(catalogue.table.schema.names):
        extra += [pa.field(name, pa.float64(), metadata={"unit": "deg"}) for name in ("ra_deg", "dec_deg")]
    return stream_stamps("npz", {"image": spec}, extra, items(), read, n=len(keys))


@dataclass(frozen=True)
class _Item:
    name: str
    pixels: NDArray[Any]

    def __str__(self) -> str:
        return self.name


def _check_columns(catalogue: Catalog, options: NpzOptions, file: Path) -> None:
    wanted = [name for name in (options.label_column, options.host_column) if name]
    if missing := [name for name in wanted if name not in catalogue.table.schema.names]:
        raise ConfigError("the catalogue lacks a column that the options name", missing=missing[0], file=file.name)


def _shape(archive: Path, options: NpzOptions) -> tuple[int, int, int, int]:
    """Shape (n, band, y, x) of the images, whatever the order of their axes."""
    if options.images not in (known := members(archive)):
        raise ConfigError("the .npz has no such array; name it by images", images=options.images, has=",".join(known))
    with open_array(archive, options.images) as array:
        shape, dtype = array.shape, array.dtype
    named = dict(zip(options.axes, shape, strict=False)) if len(shape) == len(options.axes) else {}
    side, n_band = named.get("x"), named.get("b", 1)
    if dtype.kind not in "fiu" or side is None or side != named["y"] or n_band != len(options.bands):
        raise ConfigError(
            f"the images must be numbers with the axes {options.axes}, square, and as many bands as are named",
            got=f"{dtype} {shape}",
            bands=",".join(options.bands),
        )
    return named["n"], n_band, side, side
