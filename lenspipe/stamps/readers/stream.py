"""What every reader gives: a schema and tables that are made one at a time, and the stamps it had to drop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import DataError, TileError
from lenspipe.stamps.spec import ImageSpec, image_column, mask_fraction_fields, stamp_schema

TABLE_BYTES = 32 << 20
"""Image bytes a table: the memory of a conversion, whatever the size of the data set."""

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class LabelledStamp:
    """One stamp as a reader found it; NaN pixels are masked ones."""

    stamp_id: str
    """Unique name."""
    images: Mapping[str, NDArray[np.floating]]
    """Pixels ``(band, y, x)`` by image column."""
    label: str | None
    """Class, None where the data do not tell."""
    host: str
    """What two splits must not share."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values of the extra columns; what is left out is null."""
    split: str | None = None
    """Split that the data themselves assign."""


@dataclass(frozen=True)
class StampStream:
    """A data set of somebody's, read as tables of bounded size."""

    schema: pa.Schema
    """Schema of every table (`lenspipe.stamps.spec.stamp_schema`)."""
    tables: Iterator[pa.Table]
    """Tables in the reader's order, at most `TABLE_BYTES` of pixels each."""
    dropped: list[tuple[str, str]]
    """``(stamp, reason)`` of stamps that cannot be read; grows while the tables are read."""
    n: int | None
    """Number of stamps that the reader will try, where it is known beforehand."""
    notes: tuple[str, ...] = ()
    """What the files did not tell, in sentences for who converts them."""


def stream_stamps(
    recipe: str,
    images: Mapping[str, ImageSpec],
    extra: Sequence[pa.Field],
    items: Iterable[ItemT],
    read: Callable[[ItemT], LabelledStamp],
    *,
    n: int | None,
    notes: Sequence[str] = (),
) -> StampStream:
    """
    Read stamps one by one into tables of bounded size.

    Masked pixels (NaN) become 0 and are counted in ``mask_fraction_<band>``. A stamp without any other pixel, and one
    that raises `DataError` or `TileError`, is dropped and named; any other exception is a bug and passes.

    Parameters
    ----------
    recipe : str
        Value of the column ``recipe``: the reader's name.
    images : mapping of column name to `ImageSpec`
        Image columns. No two of them may share a band.
    extra : sequence of Arrow fields
        Columns beside the format's own.
    items : iterable
        What ``read`` is called with.
    read : callable
        One item to a `LabelledStamp`.
    n : int or None
        Number of items where it is known.
    notes : sequence of str
        Of the `StampStream`.
    """
    bands = [band for spec in images.values() for band in spec.bands]
    schema = stamp_schema(images, [*mask_fraction_fields(bands), *extra])
    rows = max(1, TABLE_BYTES // (4 * sum(int(np.prod(spec.shape)) for spec in images.values())))
    dropped: list[tuple[str, str]] = []

    def tables() -> Iterator[pa.Table]:
        waiting: list[LabelledStamp] = []
        for item in items:
            try:
                stamp = read(item)
                _check_shapes(stamp, images)
                _check_pixels(stamp)
            except (DataError, TileError) as error:
                dropped.append((str(item), str(error)))
                continue
            waiting.append(stamp)
            if len(waiting) == rows:
                yield _table(waiting, recipe, images, schema)
                waiting = []
        if waiting:
            yield _table(waiting, recipe, images, schema)

    return StampStream(schema, tables(), dropped, n, tuple(notes))


def _check_shapes(stamp: LabelledStamp, images: Mapping[str, ImageSpec]) -> None:
    for name, spec in images.items():
        if stamp.images[name].shape != spec.shape:
            raise DataError(
                "the stamp's shape differs from the data set's",
                stamp=stamp.stamp_id,
                column=name,
                got=str(stamp.images[name].shape),
                want=str(spec.shape),
            )


def _check_pixels(stamp: LabelledStamp) -> None:
    if not any((np.isfinite(pixels) & (pixels != 0)).any() for pixels in stamp.images.values()):
        raise DataError(
            "all pixels of the stamp are NaN or zero; mend the file, or leave it out: it is not an example of a class",
            stamp=stamp.stamp_id,
            label=stamp.label,
        )


def _table(stamps: list[LabelledStamp], recipe: str, images: Mapping[str, ImageSpec], schema: pa.Schema) -> pa.Table:
    columns: dict[str, Any] = {
        "stamp_id": [stamp.stamp_id for stamp in stamps],
        "label": [stamp.label for stamp in stamps],
        "recipe": [recipe] * len(stamps),
        "seed": [None] * len(stamps),
        "host": [stamp.host for stamp in stamps],
        "split": [stamp.split for stamp in stamps],
    }
    for name, spec in images.items():
        pixels = np.stack([np.asarray(stamp.images[name], np.float32) for stamp in stamps])
        masked = ~np.isfinite(pixels)
        columns[name] = image_column(np.where(masked, np.float32(0), pixels), spec)
        for band, fraction in zip(spec.bands, masked.mean(axis=(2, 3), dtype=np.float64).T, strict=True):
            columns[f"mask_fraction_{band}"] = pa.array(fraction, pa.float32())
    arrays = []
    for column in schema:
        values = columns.get(column.name)
        if values is None:
            values = [stamp.values.get(column.name) for stamp in stamps]
        arrays.append(values if isinstance(values, pa.Array) else pa.array(values, column.type))
    return pa.Table.from_arrays(arrays, schema=schema)
