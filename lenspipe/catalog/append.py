"""Add rows to a HATS tree: only pixels whose rows change are written, duplicates are merged with what is there."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lenspipe.catalog.columns import HEALPIX
from lenspipe.catalog.hats import MAX_ROWS, Pixel, adaptive_pixels, home_of, read_pixels, write_metadata, write_pixel
from lenspipe.catalog.merge import merge_duplicates
from lenspipe.sky.healpix import ORDER, cells_around

N_DETECTION = "n_detection"


@dataclasses.dataclass(frozen=True)
class Appended:
    """What an append came to."""

    n_new: int
    """Rows that were added."""
    n_merged: int
    """Rows, old or new, that another row now stands for."""
    pixels: list[Pixel]
    rewritten: list[Pixel]


def append_rows(
    old: Path, rows: pa.Table, new: Path, *, name: str, radius_arcsec: float, max_rows: int = MAX_ROWS
) -> Appended:
    """
    Write tree ``new`` that holds the rows of tree ``old`` and ``rows``, merged.

    Files of pixels that do not change are linked, not copied, where the file system has hard links.

    Parameters
    ----------
    old : Path
        A tree; it stays as it is.
    rows : pa.Table
        Rows with the old tree's schema; duplicates among them are merged already.
    new : Path
        Folder to make.
    name : str
        Name of the collection.
    radius_arcsec : float
        Radius within which rows of different shards are one object.

    Returns
    -------
    Appended
    """
    pixels = read_pixels(old)
    schema = pq.read_schema(old / "dataset" / "_common_metadata")
    rows = rows.cast(schema)
    index = rows[HEALPIX].to_numpy()
    near = pixels_near(index, pixels, radius_arcsec)
    known = {pixel: pq.read_table(old / "dataset" / pixel.path, partitioning=None).cast(schema) for pixel in near}
    there = pa.concat_tables([schema.empty_table(), *known.values()])
    both = pa.concat_tables([there, rows])
    merged = merge_duplicates(both, radius_arcsec=radius_arcsec)
    n_before = both[N_DETECTION].to_numpy().astype(np.int64)
    n_after = merged.counts(n_before)
    kept = merged.kept
    both = both.set_column(
        both.schema.get_field_index(N_DETECTION), schema.field(N_DETECTION), pa.array(n_after.astype(np.int32))
    )
    home = home_of(both[HEALPIX].to_numpy(), pixels)
    is_new = np.arange(len(kept)) >= there.num_rows
    changed = np.where(is_new, kept, n_after != n_before)
    touched = sorted({int(i) for i in home[changed] if i >= 0})
    (new / "dataset").mkdir(parents=True)
    result = link_pixels(old, new, [p for i, p in enumerate(pixels) if i not in touched])
    untouched, rewritten = list(result), []
    # Rows where no pixel was, then the rows of each pixel that changed; a pixel that grew too large is cut in four.
    for number in [-1, *touched]:
        members = np.flatnonzero((home == number) & kept)
        cells = both[HEALPIX].to_numpy()[members]
        order = members[np.argsort(cells, kind="stable")]
        cells = np.sort(cells)
        if number < 0:
            cut = adaptive_pixels(cells, max_rows=max_rows, apart_from=pixels)
        else:
            cut = adaptive_pixels(cells, max_rows=max_rows, inside=[pixels[number]])
        for pixel, low, high in cut:
            write_pixel(new / "dataset", pixel, both.take(pa.array(order[low:high])))
            rewritten.append(pixel)
    write_metadata(new, schema, untouched + rewritten, name=name, max_rows=max_rows)
    n_new = int((is_new & kept).sum())
    return Appended(n_new, int((~kept).sum()), untouched + rewritten, rewritten)


def link_pixels(old: Path, new: Path, pixels: list[Pixel]) -> list[Pixel]:
    """Give the files of pixels that do not change a second name in the new tree."""
    for pixel in pixels:
        target = new / "dataset" / pixel.path
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(old / "dataset" / pixel.path, target)
    return pixels


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file that will not be changed; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def pixels_near(index29: NDArray[np.int64], pixels: list[Pixel], radius_arcsec: float) -> list[Pixel]:
    """Pixels that hold a row or come within the radius of one."""
    if not len(index29) or not pixels:
        return []
    cells, order = cells_around(index29, radius_arcsec)
    cells = np.unique(cells)
    cells = cells[cells >= 0]
    return [pixels[i] for i in np.unique(home_of(cells << (2 * (ORDER - order)), pixels)) if i >= 0]
