"""What the columns of a data set of labelled stamps are, and stamps to and from Arrow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import DataError

FORMAT_NAME, FORMAT_VERSION = "lenspipe-stamps", "1"
FORMAT_COLUMNS = ("stamp_id", "label", "recipe", "seed", "host", "split")
SPLITS = ("train", "validation", "test")

_DESCRIPTIONS = {
    "stamp_id": "unique name of the stamp",
    "label": "class of the stamp; null where it is not known",
    "recipe": "what made the stamp: a simulation recipe or the name of a reader",
    "seed": "seed of the run that drew the stamp; null for data that were not simulated here",
    "host": "what must not be shared by two splits: galaxy, lens or sky cell that the stamp shows",
    "split": "train, validation or test; null where it is not assigned",
}


@dataclass(frozen=True)
class ImageSpec:
    """
    What the pixels of one image column are.

    Parameters
    ----------
    bands : tuple of str
        Names of the bands in stored order.
    size_px : int
        Side of the square stamp, pixels.
    pixel_scale_arcsec : float
        Pixel scale, arcsec per pixel.
    unit : str
        Unit of the pixel values. ``nJy`` wherever a zero-point is known; challenge colour images that were
        stretched before they were published say so (``uint8 stretch``).

    Examples
    --------
    >>> ImageSpec(("g", "r", "i"), 64, 0.262).shape
    (3, 64, 64)
    """

    bands: tuple[str, ...]
    size_px: int
    pixel_scale_arcsec: float
    unit: str = "nJy"

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise DataError("the bands of an image must be named, each once", bands=",".join(self.bands))
        if self.size_px < 1 or not self.pixel_scale_arcsec > 0:
            raise DataError(
                "an image needs a positive size and pixel scale", size_px=self.size_px, arcsec=self.pixel_scale_arcsec
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(band, y, x)``."""
        return len(self.bands), self.size_px, self.size_px

    def field(self, name: str) -> pa.Field:
        """Arrow field of an image column: fixed-size list of float32 with shape, bands, scale and unit."""
        facts = {
            "shape": json.dumps(self.shape, separators=(",", ":")),
            "bands": json.dumps(self.bands),
            "pixel_scale_arcsec": repr(float(self.pixel_scale_arcsec)),
            "unit": self.unit,
        }
        return pa.field(name, pa.list_(pa.float32(), int(np.prod(self.shape))), nullable=False, metadata=facts)

    @classmethod
    def of_field(cls, field: pa.Field) -> ImageSpec | None:
        """Read a spec back from an Arrow field; None where the field is not an image column."""
        facts = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        if not pa.types.is_fixed_size_list(field.type) or not {"shape", "bands", "pixel_scale_arcsec"} <= set(facts):
            return None
        n_band, size_y, size_x = json.loads(facts["shape"])
        spec = cls(
            tuple(json.loads(facts["bands"])), size_x, float(facts["pixel_scale_arcsec"]), facts.get("unit", "nJy")
        )
        if spec.shape != (n_band, size_y, size_x) or field.type.list_size != np.prod(spec.shape):
            raise DataError(
                "an image column contradicts its own shape",
                column=field.name,
                shape=facts["shape"],
                bands=facts["bands"],
            )
        return spec


def stamp_schema(images: Mapping[str, ImageSpec], extra: Sequence[pa.Field] = ()) -> pa.Schema:
    """
    Arrow schema of a data set of labelled stamps.

    Parameters
    ----------
    images : mapping of column name to `ImageSpec`
        Usually ``{"image": spec}``; one column for each pixel grid.
    extra : sequence of Arrow fields
        True parameters and catalogue columns, scalars with their unit in the field's metadata.

    Raises
    ------
    DataError
        There is no image, or a name occurs twice.
    """
    if not images:
        raise DataError("a data set of stamps needs at least one image column")
    scalars = [
        pa.field(name, pa.int64() if name == "seed" else pa.string(), metadata={"description": text})
        for name, text in _DESCRIPTIONS.items()
    ]
    fields = [scalars[0], *(spec.field(name) for name, spec in images.items()), *scalars[1:], *extra]
    names = [field.name for field in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError("column names must differ", twice=",".join(twice))
    return pa.schema(fields, metadata={"format": FORMAT_NAME, "format_version": FORMAT_VERSION})


def image_column(stamps: ArrayLike, spec: ImageSpec) -> pa.FixedSizeListArray:
    """
    Arrow column of stamps ``(n, band, y, x)``.

    Raises
    ------
    DataError
        The shape is not the spec's, or a value is not finite (the rows are counted).
    """
    array = np.ascontiguousarray(stamps, dtype=np.float32)
    if array.ndim != 4 or array.shape[1:] != spec.shape:
        raise DataError("stamps do not have the shape of their spec", got=str(array.shape), want=f"(n, *{spec.shape})")
    broken = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if broken.any():
        raise DataError(
            "stamps must be finite: mask or drop these rows", n=int(broken.sum()), first=int(np.flatnonzero(broken)[0])
        )
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), int(np.prod(spec.shape)))


def image_array(table: pa.Table | pa.RecordBatch, name: str) -> NDArray[np.float32]:
    """Stamps ``(n, band, y, x)`` of an image column of a table; the data set's own unit, writable."""
    field = table.schema.field(name)
    spec = ImageSpec.of_field(field)
    if spec is None:
        raise DataError("not an image column", column=name)
    column = table.column(name)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, *spec.shape) for chunk in chunks]
    return np.concatenate(parts) if parts else np.empty((0, *spec.shape), np.float32)


def image_specs(schema: pa.Schema, where: str) -> dict[str, ImageSpec]:
    """Image columns of a schema and their specs; raises `DataError` where it is not a data set of stamps."""
    missing = [name for name in _DESCRIPTIONS if name not in schema.names]
    images = {field.name: spec for field in schema if (spec := ImageSpec.of_field(field)) is not None}
    if missing or not images:
        what = ",".join(missing) or "an image column"
        raise DataError("not a data set of stamps: columns are missing", where=where, missing=what)
    return images


def mask_fraction_fields(bands: Iterable[str]) -> list[pa.Field]:
    """Columns ``mask_fraction_<band>``: the fraction of a stamp's pixels that were masked and set to 0."""
    return [
        pa.field(
            f"mask_fraction_{band}",
            pa.float32(),
            metadata={"unit": "1", "description": f"fraction of masked pixels in band {band}; they are 0 in the image"},
        )
        for band in bands
    ]
