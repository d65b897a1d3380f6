"""A folder with one FITS cube ``(n, y, x)`` a band and a table of parameters by row (deeplenstronomy)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.stamps.readers.planes import native
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.spec import ImageSpec
from lenspipe.survey.files import open_fits
from lenspipe.toml import Table
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB


class FitsCubesOptions(Table):
    """Options of the reader."""

    bands: tuple[str, ...]
    """Bands; band ``g`` is the file ``g.fits``."""
    pixel_scale_arcsec: float
    """Pixel scale; cubes have no WCS."""
    zero_point_ab: float
    """AB zero-point of the pixels; cubes have none in their headers."""
    label: str = ""
    """Class of every stamp; null where empty."""
    table: str = ""
    """Text table with a header line and a row per stamp, columns between blanks (``map.txt``)."""
    columns: dict[str, str] = {}
    """Columns of the table to keep: ``{new_name = "name in the table"}``."""


def read_fits_cubes(folder: Path, options: FitsCubesOptions) -> StampStream:
    """
    Row ``k`` of every band's cube is stamp ``k``, in nJy; cubes are read a plane at a time.

    Raises
    ------
    ConfigError
        A band's file is missing, the cubes differ in shape, or the table has another length or lacks a column.
    """
    shapes = {band: _shape(folder / f"{band}.fits") for band in options.bands}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 3:
        raise ConfigError("the cubes must be (n, y, x) and alike", got=", ".join(f"{b} {s}" for b, s in shapes.items()))
    n, _, size_px = next(iter(shapes.values()))
    values = _parameters(folder / options.table, options.columns, n) if options.table else {}
    scale = np.float32(10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - options.zero_point_ab)))
    spec = ImageSpec(options.bands, size_px, options.pixel_scale_arcsec)

    def read(row: int) -> LabelledStamp:
        planes = [_plane(folder / f"{band}.fits", row) for band in options.bands]
        name = f"{folder.name}/{row:06d}"
        parameters = {column: float(array[row]) for column, array in values.items()}
        return LabelledStamp(name, {"image": np.stack(planes) * scale}, options.label or None, name, parameters)

    extra = [pa.field(name, pa.float64()) for name in values]
    return stream_stamps("fits-cubes", {"image": spec}, extra, range(n), read, n=n)


def _shape(file: Path) -> tuple[int, ...]:
    if not file.exists():
        raise ConfigError("the folder has no cube of this band", file=str(file))
    with open_fits(str(file)) as hdus:
        return tuple(hdus[0].shape)


def _plane(file: Path, row: int) -> NDArray[np.float32]:
    with ExitStack() as stack:
        hdus: fits.HDUList = stack.enter_context(open_fits(str(file)))
        return native(hdus[0].section[row])


def _parameters(file: Path, columns: dict[str, str], n: int) -> dict[str, NDArray[np.float64]]:
    table: NDArray[np.void] = np.genfromtxt(
        file, names=True, deletechars="", replace_space=" ", dtype=np.float64, ndmin=1
    )
    names = table.dtype.names or ()
    if missing := [name for name in columns.values() if name not in names]:
        raise ConfigError(
            "the table has no such columns", file=str(file), missing=",".join(missing), has=",".join(names)
        )
    if len(table) != n:
        raise ConfigError("the table and the cubes differ in length", file=str(file), rows=len(table), stamps=n)
    return {new: np.asarray(table[old]) for new, old in columns.items()}
