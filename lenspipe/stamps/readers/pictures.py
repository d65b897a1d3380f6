"""A folder of PNG or JPEG pictures, with classes by subfolder or in a CSV. Their pixels are not flux."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.catalog import Catalog, read_catalog
from lenspipe.stamps.readers.planes import central_crop
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.readers.walk import files_matching
from lenspipe.stamps.spec import SPLITS, ImageSpec
from lenspipe.toml import Table

FILE = re.compile(r".+\.(png|jpe?g)", re.IGNORECASE)
FORMATS = ("PNG", "JPEG")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE_PX = 4096
"""Side of the largest picture that is unpacked."""


class PicturesOptions(Table):
    """Options of the reader."""

    pixel_scale_arcsec: float
    """Pixel scale; pictures do not tell it."""
    bands: tuple[str, ...] = ("red", "green", "blue")
    """Bands behind the channels R, G, B; one name for grey pictures."""
    size_px: int | None = None
    """Side of the stamp, cropped around the middle; the side of the first picture where absent. Others are dropped."""
    labels: str = ""
    """CSV with a row per picture, relative to the folder. Where empty, the class is the name of a picture's folder."""
    key: str = "file"
    """Column of the CSV that names the picture: its path in the folder, or its name where that is the only one, with or
    without suffix."""
    label_column: str = "label"
    """Column of the CSV with the class."""
    host_column: str = ""
    """Column of the CSV with the host; the picture itself is its host where empty."""
    flip_y: bool = True
    """Turn the pictures upside down: pictures count rows from the top, stamps from the bottom."""


def read_pictures(folder: Path, options: PicturesOptions) -> StampStream:
    """
    Pictures as float32 with the unit ``uint8 stretch`` or ``uint16 stretch``: values for the eye, not flux.

    What a picture shows went through a stretch that cannot be undone in general, so nothing measures magnitudes in
    these stamps, and no network that takes nJy may score them. JPEG has lost the noise as well. Transparent pixels
    are masked. All columns of the CSV are kept. The whole data set has the depth of its first picture.

    Raises
    ------
    ConfigError
        No pictures below the folder, the first of them cannot be read, or options and CSV do not fit each other.
    """
    files = [here / match.group() for here, match in files_matching(folder, FILE)]
    if not files:
        raise ConfigError("no PNG or JPEG files below this folder", folder=str(folder))
    stems = Counter(file.relative_to(folder).with_suffix("") for file in files)
    if twice := [stem for stem, n in stems.items() if n > 1]:
        raise ConfigError(
            "two pictures have one name but for their suffix: a stamp's name would stand for both",
            picture=str(twice[0]),
        )
    once = {name for name, n in Counter(n for f in files for n in {f.name, f.stem}).items() if n == 1}
    if len(options.bands) not in (1, 3):
        raise ConfigError("a picture has one channel or three: name one band or three", bands=" ".join(options.bands))
    catalogue = read_catalog(folder / options.labels, options.key) if options.labels else None
    wanted = [options.label_column, *([options.host_column] if options.host_column else [])]
    if catalogue and (missing := [name for name in wanted if name not in catalogue.table.schema.names]):
        raise ConfigError("the CSV lacks a column that the options name", missing=missing[0], labels=options.labels)
    try:
        deep, side = _depth_and_side(files[0])
    except DataError as error:
        raise ConfigError(f"the first picture cannot be read: {error.message}", file=str(files[0])) from error
    unit = f"uint{16 if deep else 8} stretch"
    spec = ImageSpec(options.bands, options.size_px or side, options.pixel_scale_arcsec, unit)

    def read(path: Path) -> LabelledStamp:
        inside = path.relative_to(folder)
        name = inside.with_suffix("").as_posix()
        planes = picture_planes(path, len(options.bands), deep=deep)
        planes = planes[:, ::-1] if options.flip_y else planes
        if options.size_px is not None:
            planes = np.stack([central_crop(plane, options.size_px, file=path.name) for plane in planes])
        if catalogue is None:
            label = None if inside.parent == Path() else inside.parent.name
            return LabelledStamp(name, {"image": planes}, label, name)
        bare = [one for one in (inside.name, inside.stem) if one in once]  # of another folder's picture elsewhere
        row = _row(catalogue, (inside.as_posix(), name, *bare))
        label = row[options.label_column]
        host = str(row[options.host_column]) if options.host_column else name
        split = row.get("split")
        if split is not None and split not in SPLITS:
            raise DataError("the CSV names a split that does not exist", got=str(split), known=",".join(SPLITS))
        return LabelledStamp(name, {"image": planes}, None if label is None else str(label), host, row, split)

    own = (options.key, options.label_column, options.host_column)
    extra = catalogue.fields(leave_out=own) if catalogue else []
    return stream_stamps("pictures", {"image": spec}, extra, files, read, n=len(files))


def _row(catalogue: Catalog, names: tuple[str, ...]) -> dict[str, Any]:
    """Row of a picture by the first of its names that the CSV has."""
    for name in names:
        if (row := catalogue.row(name)) is not None:
            return row
    raise DataError("the picture is not in the CSV", picture=names[0])


def _depth_and_side(path: Path) -> tuple[bool, int]:
    """Whether a picture has more than 8 bits per channel, and its shorter side; only its header is read."""
    try:
        _refuse_deep_colour(path)
        with Image.open(path, formats=FORMATS) as picture:
            return picture.mode.startswith("I"), min(picture.size)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"not a PNG or JPEG picture, or a damaged one ({error})", file=path.name) from error


def _refuse_deep_colour(path: Path) -> None:
    """Of PNG with colours and 16 bits per channel Pillow gives 8 bits without a word: raise `DataError`."""
    with path.open("rb") as stream:
        head = stream.read(26)
    if head.startswith(PNG_SIGNATURE) and head[24:25] == b"\x10" and head[25:26] in (b"\x02", b"\x04", b"\x06"):
        raise DataError(
            "colours of 16 bits per channel cannot be read: write one grey PNG per band, or FITS", file=path.name
        )


def picture_planes(path: Path, n_band: int, *, deep: bool) -> NDArray[np.float32]:
    """Pixels ``(band, y, x)`` of a picture, rows from the top; NaN where it is transparent."""
    try:
        _refuse_deep_colour(path)
        with Image.open(path, formats=FORMATS) as picture:
            if max(picture.size) > MAX_SIDE_PX:
                raise DataError("the picture is too large for a stamp", file=path.name, side_px=max(picture.size))
            if picture.mode.startswith("I") != deep:
                raise DataError("the picture has another depth than the first one", file=path.name, mode=picture.mode)
            if deep:
                pixels = np.asarray(picture, np.float32)[..., None]
                alpha = None
            else:
                whole = np.asarray(picture.convert("RGBA"), np.float32)
                pixels, alpha = whole[..., :3], whole[..., 3]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the picture is damaged ({error})", file=path.name) from error
    if n_band == 1 and pixels.shape[-1] == 3:
        if (pixels != pixels[..., :1]).any():
            raise DataError("the picture has colours, and one band is named: name three", file=path.name)
        pixels = pixels[..., :1]
    if pixels.shape[-1] != n_band:
        raise DataError("the picture has no colours, and three bands are named: name one", file=path.name)
    planes = np.moveaxis(pixels, -1, 0)
    return planes if alpha is None else np.where(alpha == 0, np.float32(np.nan), planes)
