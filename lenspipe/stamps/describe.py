"""What is in a data set of stamps: classes by split, hosts, pixels, columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lenspipe.stamps.format import StampSet, image_array
from lenspipe.stamps.spec import FORMAT_COLUMNS

BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class PixelFacts:
    """Pixels of one image column, in its unit, over all stamps and bands."""

    lowest: float
    """Least finite value; NaN where there is none."""
    highest: float
    """Greatest finite value."""
    n_not_finite: int
    """Stamps with a pixel that is NaN or infinite."""
    zero_fraction: float
    """Fraction of pixels that are exactly 0: masked, or outside the data."""


@dataclass(frozen=True)
class ColumnFacts:
    """A numeric column beside the format's own."""

    name: str
    """Column."""
    unit: str
    """Unit that the schema states, empty where it states none."""
    n_null: int
    """Rows without a value."""
    low: float
    """5th percentile; NaN where every value is null."""
    median: float
    """Median."""
    high: float
    """95th percentile."""


@dataclass(frozen=True)
class Description:
    """A data set in numbers."""

    counts: dict[tuple[str | None, str | None], int]
    """Stamps by ``(label, split)``."""
    recipes: dict[str | None, int]
    """Stamps by what made them."""
    n_host: int
    """Distinct hosts."""
    size_bytes: int
    """Bytes on disk."""
    pixels: dict[str, PixelFacts]
    """By image column."""
    columns: tuple[ColumnFacts, ...]
    """Numeric columns beside the format's own."""


def describe(stamps: StampSet, *, progress: Callable[[int], None] = lambda _: None) -> Description:
    """
    Numbers that say what a data set holds; images are read once, in batches.

    Parameters
    ----------
    stamps : StampSet
        The data set.
    progress : callable
        Called with the number of stamps read.
    """
    pairs = zip(stamps.column("label"), stamps.column("split"), strict=True)
    return Description(
        counts=dict(Counter(pairs)),
        recipes=dict(Counter(stamps.column("recipe"))),
        n_host=len(set(stamps.column("host")) - {None, ""}),
        size_bytes=sum(part.stat().st_size for part in stamps.parts),
        pixels=_pixels(stamps, progress),
        columns=tuple(_column(stamps, field) for field in stamps.schema if _is_parameter(field)),
    )


def _pixels(stamps: StampSet, progress: Callable[[int], None]) -> dict[str, PixelFacts]:
    low, high = dict.fromkeys(stamps.images, np.inf), dict.fromkeys(stamps.images, -np.inf)
    broken, zeros, done = dict.fromkeys(stamps.images, 0), dict.fromkeys(stamps.images, 0), 0
    for table in stamps.iter_batches(list(stamps.images), batch_size=stamps.rows_within(BATCH_BYTES)):
        for image in stamps.images:
            pixels = image_array(table, image)
            finite = np.isfinite(pixels)
            low[image] = min(low[image], float(pixels.min(where=finite, initial=np.inf)))
            high[image] = max(high[image], float(pixels.max(where=finite, initial=-np.inf)))
            broken[image] += int((~finite.all(axis=(1, 2, 3))).sum())
            zeros[image] += int((pixels == 0).sum())
        done += len(table)
        progress(done)
    facts = {}
    for image, spec in stamps.images.items():
        n_pixel = stamps.n * int(np.prod(spec.shape))
        some = np.isfinite(low[image])
        facts[image] = PixelFacts(
            lowest=low[image] if some else np.nan,
            highest=high[image] if some else np.nan,
            n_not_finite=broken[image],
            zero_fraction=zeros[image] / n_pixel if n_pixel else np.nan,
        )
    return facts


def _is_parameter(field: pa.Field) -> bool:
    number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    return number and field.name not in FORMAT_COLUMNS


def _column(stamps: StampSet, field: pa.Field) -> ColumnFacts:
    values = np.asarray(stamps.column(field.name), dtype=np.float64)
    values = values[~np.isnan(values)]
    low, median, high = np.percentile(values, [5, 50, 95]) if len(values) else (np.nan,) * 3
    unit = (field.metadata or {}).get(b"unit", b"").decode()
    return ColumnFacts(field.name, unit, stamps.n - len(values), float(low), float(median), float(high))
