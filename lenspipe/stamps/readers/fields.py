"""Pictures of fields that hold many objects, the class of a field in its name: a stamp around each object."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.image.detect import detect_sep
from lenspipe.robust import robust_sigma
from lenspipe.stamps.readers.pictures import FILE, picture_planes
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.readers.walk import files_matching
from lenspipe.stamps.spec import ImageSpec
from lenspipe.toml import Table

SEARCH: dict[str, Any] = {"threshold_sigma": 5.0, "min_area_px": 12, "deblend_levels": 32, "deblend_contrast": 0.01}
"""How objects are found: pictures are for the eye, and what is faint in them is noise of eight bits."""


class FieldsOptions(Table):
    """Options of the reader."""

    pixel_scale_arcsec: float
    """Pixel scale; pictures do not tell it."""
    bands: tuple[str, ...] = ("i", "r", "g")
    """Bands behind the channels R, G, B."""
    size_px: int = 101
    """Side of a stamp, odd, so that the object lies in its middle; objects nearer to an edge are left out."""
    field_class: str = r"[^_]+__(?P<field>.+)__.+"
    """Pattern of a picture's name without suffix, whose group ``field`` becomes the column ``field_class``;
    null where a name does not fit, which the command says."""
    label: str = ""
    """Class of every stamp; null where empty, for a field's class is that of one object in it, which nobody names."""
    max_per_field: int = 50
    """Objects that are taken from a field, the largest first."""
    flip_y: bool = True
    """Turn the pictures upside down: pictures count rows from the top, stamps from the bottom."""


def read_fields(folder: Path, options: FieldsOptions) -> StampStream:
    """
    Stamps as float32 0-255 with the unit ``uint8 stretch`` around the objects of each field.

    Objects are found in the mean of the channels, 5 standard deviations of its sky above it, and ordered by their
    area. The host is the field: its stamps may share pixels. What is said of pictures (`read_pictures`) holds here.

    Raises
    ------
    ConfigError
        No pictures below the folder; the pattern has no group ``field``; an even side.
    """
    files = [here / match.group() for here, match in files_matching(folder, FILE)]
    if not files:
        raise ConfigError("no PNG or JPEG files below this folder", folder=str(folder))
    if options.size_px < 3 or options.size_px % 2 == 0:
        raise ConfigError("size_px must be odd, so that the object lies in the middle", got=options.size_px)
    if len(options.bands) != 3:
        raise ConfigError("pictures of fields have three channels: name three bands", bands=",".join(options.bands))
    try:
        pattern = re.compile(options.field_class)
    except re.error as error:
        raise ConfigError(f"field_class is not a regular expression: {error}", got=options.field_class) from error
    if "field" not in pattern.groupindex:
        raise ConfigError("field_class needs a group named field", got=options.field_class)
    items: list[_Object] = []
    for file in files:
        try:
            items += _objects(file, options)
        except DataError as error:
            items.append(_Object(file, 0, 0, 0, 0, error))
    last: tuple[Path, NDArray[np.float32]] | None = None

    def read(item: _Object) -> LabelledStamp:
        nonlocal last
        if item.error is not None:
            raise item.error
        if last is None or last[0] != item.file:
            last = item.file, _planes(item.file, options)
        planes = last[1]
        name = re.fullmatch(pattern, item.file.stem)
        inside = item.file.relative_to(folder).with_suffix("").as_posix()
        cut, _ = extract_cutouts(
            planes,
            ~np.isfinite(planes),
            np.array([item.x_px]),
            np.array([item.y_px]),
            size_px=options.size_px,
            fill=np.nan,
        )
        return LabelledStamp(
            f"{inside}-{item.number}",
            {"image": cut[0]},
            options.label or None,
            inside,
            {
                "field_class": name["field"] if name else None,
                "x_px": float(item.x_px),
                "y_px": float(item.y_px),
                "area_px": item.area_px,
            },
        )

    said = {
        "x_px": (pa.float64(), "pixel", "place of the object in its field, 0-based, rows as in the stamps"),
        "y_px": (pa.float64(), "pixel", "place of the object in its field, 0-based, rows as in the stamps"),
        "area_px": (pa.int32(), "pixel", "pixels of the object above the threshold"),
    }
    extra = [
        pa.field(
            "field_class",
            pa.string(),
            metadata={"description": "class that the field's name gives; null where the name does not fit the pattern"},
        )
    ]
    extra += [pa.field(n, t, metadata={"unit": u, "description": d}) for n, (t, u, d) in said.items()]
    spec = ImageSpec(options.bands, options.size_px, options.pixel_scale_arcsec, "uint8 stretch")
    return stream_stamps(
        "fields", {"image": spec}, extra, items, read, n=len(items), notes=_unnamed(items, pattern, options.field_class)
    )


@dataclass(frozen=True)
class _Object:
    file: Path
    number: int
    x_px: float
    y_px: float
    area_px: int
    error: DataError | None = None

    def __str__(self) -> str:
        return self.file.name if self.error else f"{self.file.name} object {self.number}"


def _unnamed(items: Sequence[_Object], pattern: re.Pattern[str], said: str) -> list[str]:
    """A line where names of pictures tell no class."""
    read = [item for item in items if item.error is None]
    without = [item for item in read if not re.fullmatch(pattern, item.file.stem)]
    if not without:
        return []
    files = list(dict.fromkeys(item.file.name for item in without))
    return [
        f"field_class is null for {len(without)} of {len(read)} stamps: {len(files)} pictures have names that the "
        f"pattern {said!r} does not fit, {files[0]} for one; say how yours are named by --set field_class=..."
    ]


def _planes(file: Path, options: FieldsOptions) -> NDArray[np.float32]:
    planes = picture_planes(file, len(options.bands), deep=False)
    return np.ascontiguousarray(planes[:, ::-1]) if options.flip_y else planes


def _objects(file: Path, options: FieldsOptions) -> list[_Object]:
    """Objects of a field that lie whole in it, the largest first."""
    planes = _planes(file, options)
    lost = np.asarray(~np.isfinite(planes).all(axis=0))
    mean = np.where(lost, 0, np.nan_to_num(planes).mean(axis=0, dtype=np.float64)).astype(np.float32)
    if lost.all():
        return []
    sky = np.float32(np.median(mean[~lost]))
    rms = np.full(mean.shape, max(float(robust_sigma(mean[~lost])), 0.5), np.float32)  # half a step of eight bits
    found, _ = detect_sep(mean - sky, rms, lost, **SEARCH)
    half = options.size_px // 2
    height, width = mean.shape
    x, y = np.floor(found.x_px + 0.5), np.floor(found.y_px + 0.5)
    whole = (x >= half) & (y >= half) & (x < width - half) & (y < height - half)
    rows = np.flatnonzero(whole)
    rows = rows[np.argsort(-found.n_px[rows], kind="stable")][: options.max_per_field]
    return [
        _Object(file, number, float(found.x_px[k]), float(found.y_px[k]), int(found.n_px[k]))
        for number, k in enumerate(rows)
    ]
