"""The rows of a part of the sky become files of a tree: merged, cut into pixels, written. One task's work."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.catalog.columns import HEALPIX
from lenspipe.catalog.hats import BASE, Pixel, adaptive_pixels, home_of, write_pixel
from lenspipe.catalog.merge import merge_duplicates
from lenspipe.catalog.sources import Source
from lenspipe.tables import read_parquet

N_DETECTION, RANK = "n_detection", "rank"


@dataclasses.dataclass(frozen=True)
class Region:
    """A part of the sky whose rows are merged together."""

    sources: tuple[Source, ...]
    """Its rows and those close by; those that are in the catalogue come first."""
    pixels: tuple[Pixel, ...]
    """Pixels, each to be cut anew where it holds too many rows."""
    keep: bool = False
    """Whether the pixels are in a tree already: one whose rows do not change is not written."""
    beyond: tuple[Pixel, ...] | None = None
    """With the sky outside of these pixels, where not None: new pixels keep clear of them. No row of the region lies in
    one that is not in `pixels`."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the rows of one pixel of a region, or those beyond all pixels (None), came to."""

    pixel: Pixel | None
    changed: bool
    """Whether it is to be written, or is gone."""
    written: tuple[Pixel, ...]
    n_new: int
    """New rows that stay."""
    n_merged: int
    """Rows, old or new, that another row now stands for."""


@dataclasses.dataclass(frozen=True)
class Merging:
    """How the rows of regions are merged and written."""

    radius_arcsec: float
    """Radius within which rows of different shards are one object."""
    max_rows: int
    """Rows of a pixel."""
    dataset: Path | None = None
    """Folder of the pixels' files; none are written where None."""
    finish: Callable[[pa.Table], pa.Table] | None = None
    """Makes catalogue rows of merged ones, where they are none yet."""
    close_ranks: bool = False
    """Make the ranks of all rows that stay 1, 2, 3 ..."""

    def outcomes(self, region: Region) -> list[Outcome]:
        """Merge and write a region."""
        return self.merged(region, in_order=True)[0]

    def merged(self, region: Region, *, in_order: bool = False) -> tuple[list[Outcome], pa.Table]:
        """
        Merge and write a region.

        Parameters
        ----------
        region : Region
            With a source at least.
        in_order : bool
            Whether rows are returned by position; in the order of the sources where not.

        Returns
        -------
        outcomes : list of Outcome
        rows : pa.Table
            Those that stay, of what changed.
        """
        rows, is_new = _read(region.sources)
        found = _look(rows, is_new, region, radius_arcsec=self.radius_arcsec, in_order=in_order)
        rows = rows.take(pa.array(found.members))  # the copy of all rows is most of the memory
        rows = _with_column(rows, N_DETECTION, pa.array(found.n_detection))
        if self.close_ranks:
            rows = _with_column(rows, RANK, closed_ranks(rows[RANK], np.sort(rows[RANK].drop_null().to_numpy())))
        if self.finish is not None:
            rows = self.finish(rows)
        written = self._write(rows, found, region)
        pixels = [*region.pixels, *([] if region.beyond is None else [None])]
        outcomes = [
            Outcome(pixel, bool(found.changed[i]), tuple(written[i]), int(found.n_new[i]), int(found.n_merged[i]))
            for i, pixel in enumerate(pixels)
        ]
        return outcomes, rows

    def _write(self, rows: pa.Table, found: _Found, region: Region) -> list[list[Pixel]]:
        """Write the rows by home; returns the pixels of each."""
        written: list[list[Pixel]] = [[] for _ in found.changed]
        if self.dataset is None:
            return written
        order = np.lexsort((found.index, found.home))
        in_order = bool((np.diff(order) == 1).all())

        def part(first: int, last: int) -> pa.Table:
            return rows.slice(first, last - first) if in_order else rows.take(pa.array(order[first:last]))

        bounds = np.searchsorted(found.home[order], np.arange(len(written) + 1))
        for number, (first, last) in enumerate(itertools.pairwise(bounds)):
            inside = [region.pixels[number]] if number < len(region.pixels) else BASE
            apart = () if number < len(region.pixels) else region.beyond or ()
            cells = found.index[order[first:last]]
            for pixel, low, high in adaptive_pixels(cells, max_rows=self.max_rows, inside=inside, apart_from=apart):
                write_pixel(self.dataset, pixel, part(first + low, first + high))
                written[number].append(pixel)
        return written


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """Rows that stay of what changed in a region, and what became of its homes: its pixels, and all beyond them."""

    members: NDArray[np.int64]
    """Numbers of the rows."""
    n_detection: NDArray[np.int32]
    index: NDArray[np.int64]
    home: NDArray[np.int64]
    changed: NDArray[np.bool_]
    """By home, as `n_new` and `n_merged`."""
    n_new: NDArray[np.int64]
    n_merged: NDArray[np.int64]


def _look(rows: pa.Table, is_new: NDArray[np.bool_], region: Region, *, radius_arcsec: float, in_order: bool) -> _Found:
    merged = merge_duplicates(rows, radius_arcsec=radius_arcsec)
    before = rows[N_DETECTION].to_numpy().astype(np.int64)
    after, kept, index = merged.counts(before), merged.kept, rows[HEALPIX].to_numpy()
    home = _home(index, region)
    there, n_home = home >= 0, len(region.pixels) + 1
    n_new = np.bincount(home[there & kept & is_new], minlength=n_home)
    n_merged = np.bincount(home[there & ~kept], minlength=n_home)
    # whether the rows that were there would be something else alone
    changed = np.bincount(home[there & np.where(is_new, kept, after != before)], minlength=n_home) > 0
    if not region.keep:
        changed[:] = True
    members = np.flatnonzero(there & kept & changed[home])
    if in_order:
        members = members[np.lexsort((index[members], home[members]))]
    n_detection = after[members].astype(np.int32)
    return _Found(members, n_detection, index[members], home[members], changed, n_new, n_merged)


def _read(sources: Sequence[Source]) -> tuple[pa.Table, NDArray[np.bool_]]:
    tables = [(table, source.is_new) for source in sources for table in source.chunks()]
    is_new = np.repeat([new for _, new in tables], [table.num_rows for table, _ in tables])
    return pa.concat_tables([table for table, _ in tables]), is_new


def _home(index: NDArray[np.int64], region: Region) -> NDArray[np.int64]:
    """Number of the region's pixel of each row, the one after the last beyond them; -1 outside of the region."""
    home = home_of(index, list(region.pixels))
    return home if region.beyond is None else np.where(home < 0, len(region.pixels), home)


def _with_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), values)


def closed_ranks(rank: pa.ChunkedArray, known: NDArray[np.int64]) -> pa.Array:
    """
    Ranks 1, 2, 3 ... in the place of ranks with gaps.

    Parameters
    ----------
    rank : pa.ChunkedArray of int64
        Null without a score.
    known : array (n,)
        All ranks there are, sorted.
    """
    return pa.array(np.searchsorted(known, pc.fill_null(rank, 0).to_numpy()) + 1, mask=rank.is_null().to_numpy())


def ranks_of(dataset: Path, pixel: Pixel) -> NDArray[np.int64]:
    """Ranks of the rows of a pixel's file that have one."""
    rank = read_parquet(dataset / pixel.path, columns=[RANK])[RANK]
    return np.asarray(rank.drop_null().to_numpy())


def rewrite_ranks(dataset: Path, known: Path, pixel: Pixel) -> None:
    """Write a pixel's file again with `closed_ranks`; ``known`` is a file of all ranks, mapped and not read."""
    rows = read_parquet(dataset / pixel.path)
    write_pixel(dataset, pixel, _with_column(rows, RANK, closed_ranks(rows[RANK], np.load(known, mmap_mode="r"))))
