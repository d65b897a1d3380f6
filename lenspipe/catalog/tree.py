"""
A tree of many sources: rows are merged and written region by region, by the tasks of an executor.

Where one task may hold all rows there is one region, the sky, and nothing travels. Elsewhere a first pass counts the
rows of each source in cells of the highest order; the sum of the counts gives the pixels, each a region. Before the
second each task scatters a source into a file with a batch for each pixel, with the rows just outside it; then one task
per pixel merges, sorts and writes. Rows travel by these files: a shuffle would take all of them through memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.catalog.executor import Executor, Here
from lenspipe.catalog.folder import link_or_copy
from lenspipe.catalog.hats import HIGHEST_ORDER, MAX_ROWS, Pixel, read_pixels, write_metadata
from lenspipe.catalog.pieces import Pieces, cell_counts, cells_in, pixels_near, pixels_of_counts, scatter
from lenspipe.catalog.regions import Merging, Outcome, Region, ranks_of, rewrite_ranks
from lenspipe.catalog.sources import Held, Source, tree_groups
from lenspipe.runner import SILENT, Progress
from lenspipe.sky.healpix import N_BASE
from lenspipe.tables import read_footer, read_schema

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")
Finish = Callable[[pa.Table], pa.Table] | None
SCRATCH = ".scatter"
HERE = Here()


@dataclasses.dataclass(frozen=True)
class Appended:
    """What an append came to."""

    n_new: int
    """Rows that were added."""
    n_merged: int
    """Rows, old or new, that another row now stands for."""
    pixels: list[Pixel]
    rewritten: list[Pixel]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeWriter:
    """Writes trees by an executor, whose tasks must all see the trees and the sources."""

    name: str
    """Name of the collection."""
    radius_arcsec: float
    """Radius within which rows of different shards are one object."""
    max_rows: int = MAX_ROWS
    """Rows of a pixel, unless it is of the highest order; before merging where rows are scattered."""
    executor: Executor = HERE
    progress: Progress = SILENT

    def merge(
        self, sources: Sequence[Source], *, schema: pa.Schema, scratch: Path, finish: Finish = None
    ) -> tuple[list[Source], int]:
        """
        Merge sources with each other; what comes out is held here, or is in a tree in the folder ``scratch``.

        Parameters
        ----------
        sources : sequence of Source
            Not merged with each other.
        schema : pa.Schema
            Of catalogue rows.
        scratch : Path
            Folder to make.
        finish : function, optional
            Makes catalogue rows of merged ones, where they are none yet.

        Returns
        -------
        sources : list of Source
        n_row : int
            Rows in them.
        """
        if self.executor.batch_rows is None:
            rows = self._held(sources, schema, finish, None)[1]
            return [Held(rows)], rows.num_rows
        pixels, _ = self.write(sources, scratch, schema=schema, finish=finish)
        files = [scratch / "dataset" / pixel.path for pixel in pixels]
        return list(tree_groups(files)), sum(read_footer(file).num_rows for file in files)

    def write(
        self, sources: Sequence[Source], root: Path, *, schema: pa.Schema, finish: Finish = None
    ) -> tuple[list[Pixel], pa.Table | None]:
        """
        Merge sources with each other and write them as a tree; their ranks become 1, 2, 3 ...

        Parameters
        ----------
        sources, schema, finish
            As in `merge`.
        root : Path
            Folder to make.

        Returns
        -------
        pixels : list of Pixel
            Those that hold rows.
        rows : pa.Table or None
            All rows that stay, in the order of the sources, where one task held them.

        Raises
        ------
        ConfigError
            A row has no position.
        """
        dataset = root / "dataset"
        dataset.mkdir(parents=True)
        if self.executor.batch_rows is None:
            pixels, rows = self._held(sources, schema, finish, dataset)
        else:
            rows = None
            with self._scratch(root) as scratch:
                regions = [
                    ((p,), False) for p in pixels_of_counts(self._counts(sources, scratch), max_rows=self.max_rows)
                ]
                merging = Merging(self.radius_arcsec, self.max_rows, dataset, finish)
                pixels = [p for found in self._regions(sources, regions, merging, scratch) for p in found.written]
                self._close_ranks(dataset, pixels, scratch)
        write_metadata(root, schema, pixels, name=self.name, max_rows=self.max_rows)
        return pixels, rows

    def append(self, old: Path, added: Sequence[Source], new: Path) -> Appended:
        """
        Write tree ``new`` that holds the rows of tree ``old`` and those added, merged.

        Files of pixels that do not change are linked, not copied, where the file system has hard links.

        Parameters
        ----------
        old : Path
            A tree; it stays as it is.
        added : sequence of Source
            Rows in the old tree's schema; duplicates among them are merged already.
        new : Path
            Folder to make.
        """
        schema, pixels = read_schema(old / "dataset" / "_common_metadata"), read_pixels(old)
        dataset = new / "dataset"
        dataset.mkdir(parents=True)
        merging = Merging(self.radius_arcsec, self.max_rows, dataset)
        gone: set[Pixel] = set()
        if self.executor.batch_rows is None:
            close = {p for source in added for p in pixels_near(source.index(), pixels, self.radius_arcsec)}
            near = [pixel for pixel in pixels if pixel in close]
            sources = (*_of_pixels(old, near), *added)
            region = Region(sources, tuple(near), keep=True, beyond=tuple(pixels))
            found = merging.outcomes(region) if sources else []
        else:
            with self._scratch(new) as scratch:
                near, crowded, cut = self._plan_append(old, pixels, added, scratch)
                gone.update(crowded)
                regions = [((p,), True) for p in near if p not in gone] + [((p,), False) for p in cut]
                found = self._regions([*_of_pixels(old, near), *added], regions, merging, scratch)
        gone.update(of.pixel for of in found if of.pixel and of.changed)
        rewritten = [pixel for of in found for pixel in of.written]
        untouched = [pixel for pixel in pixels if pixel not in gone]
        for pixel in untouched:
            (dataset / pixel.path).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(old / "dataset" / pixel.path, dataset / pixel.path)
        write_metadata(new, schema, untouched + rewritten, name=self.name, max_rows=self.max_rows)
        n_new, n_merged = sum(of.n_new for of in found), sum(of.n_merged for of in found)
        return Appended(n_new, n_merged, untouched + rewritten, rewritten)

    def _held(
        self, sources: Sequence[Source], schema: pa.Schema, finish: Finish, dataset: Path | None
    ) -> tuple[list[Pixel], pa.Table]:
        """One region, the sky."""
        if not sources:
            return [], schema.empty_table()
        merging = Merging(self.radius_arcsec, self.max_rows, dataset, finish, close_ranks=True)
        (found,), rows = merging.merged(Region(tuple(sources), (), beyond=()))
        return list(found.written), rows

    def _plan_append(
        self, old: Path, pixels: list[Pixel], added: Sequence[Source], scratch: Path
    ) -> tuple[list[Pixel], list[Pixel], list[Pixel]]:
        """Pixels of the old tree near a new row, those of them that grow too large, and the pixels to cut anew."""
        close: set[int] = set()
        counts = self._counts(added, scratch, near=pixels, close=close)
        near = [pixels[i] for i in sorted(close)]
        crowded = [
            pixel
            for pixel in near
            if (n_new := counts[cells_in(pixel)].sum())
            and n_new + read_footer(old / "dataset" / pixel.path).num_rows > self.max_rows
        ]
        all_counts = counts + self._counts(_of_pixels(old, crowded), scratch)
        cut = pixels_of_counts(all_counts, max_rows=self.max_rows, inside=crowded)
        for pixel in pixels:
            counts[cells_in(pixel)] = 0
        return near, crowded, cut + pixels_of_counts(counts, max_rows=self.max_rows, apart_from=pixels)

    @contextlib.contextmanager
    def _scratch(self, root: Path) -> Iterator[Path]:
        """A folder for what travels between tasks."""
        scratch = root / SCRATCH
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _each(
        self, stage: str, work: Callable[[ItemT], AnswerT], items: Sequence[ItemT], scratch: Path
    ) -> Iterator[tuple[int, AnswerT]]:
        if items:
            self.progress.stage(stage, len(items))
        for answer in self.executor.each(stage, work, items, scratch=scratch):
            yield answer
            self.progress.advance()

    def _counts(
        self, sources: Sequence[Source], scratch: Path, *, near: Sequence[Pixel] = (), close: set[int] | None = None
    ) -> NDArray[np.int64]:
        """Rows in each cell of the highest order; into ``close`` the pixels of ``near`` that hold or touch a row."""
        counts = np.zeros(N_BASE * 4**HIGHEST_ORDER, np.int64)
        work = partial(count_rows, list(near), self.radius_arcsec)
        for _, (cells, n, numbers) in self._each("count", work, sources, scratch):
            np.add.at(counts, cells, n)
            if close is not None:
                close.update(numbers)
        return counts

    def _regions(
        self,
        sources: Sequence[Source],
        regions: Sequence[tuple[tuple[Pixel, ...], bool]],
        merging: Merging,
        scratch: Path,
    ) -> list[Outcome]:
        """Scatter sources over regions of a pixel each, then merge and write these."""
        if not regions:
            return []
        pixels = [pixel for (pixel,), _ in regions]
        batches: list[dict[bool, list[tuple[str, int]]]] = [{False: [], True: []} for _ in pixels]
        work = partial(scatter_source, pixels, scratch, self.radius_arcsec, self.executor.batch_rows)
        scattered = self._each("scatter", work, list(enumerate(sources)), scratch)
        for number, pieces in sorted(scattered, key=lambda answer: answer[0]):
            for pixel, path, batch in pieces:
                batches[pixel][sources[number].is_new].append((path, batch))
        items = [
            Region(tuple(Pieces(tuple(of[new]), new) for new in (False, True) if of[new]), pixel, keep)
            for (pixel, keep), of in zip(regions, batches, strict=True)
        ]
        found = self._each("merge", merging.outcomes, items, scratch)
        return [outcome for _, outcomes in sorted(found, key=lambda answer: answer[0]) for outcome in outcomes]

    def _close_ranks(self, dataset: Path, pixels: Sequence[Pixel], scratch: Path) -> None:
        """Make ranks 1, 2, 3 ... where merging left gaps; eight bytes per row are held here."""
        there = [ranks for _, ranks in self._each("ranks", partial(ranks_of, dataset), pixels, scratch)]
        known = scratch / "ranks.npy"
        np.save(known, np.sort(np.concatenate([np.zeros(0, np.int64), *there])))
        for _ in self._each("close ranks", partial(rewrite_ranks, dataset, known), pixels, scratch):
            pass


def count_rows(
    near: list[Pixel], radius_arcsec: float, source: Source
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    """Cells of the highest order that hold rows of a source, how many, and which pixels of ``near`` come close."""
    index = source.index()
    cells, n = cell_counts(index)
    return cells, n, [near.index(pixel) for pixel in pixels_near(index, near, radius_arcsec)]


def scatter_source(
    pixels: list[Pixel], scratch: Path, radius_arcsec: float, batch_rows: int | None, source: tuple[int, Source]
) -> list[tuple[int, str, int]]:
    """Scatter a numbered source over pixels; returns the number of the pixel, file and batch of each piece."""
    number, of = source
    file = scratch / f"{number:06d}.arrow"
    pieces = scatter(of.chunks(batch_rows), pixels, file, radius_arcsec=radius_arcsec)
    return [(piece.pixel, piece.path, piece.batch) for piece in pieces]


def _of_pixels(tree: Path, pixels: Sequence[Pixel]) -> list[Source]:
    return list(tree_groups([tree / "dataset" / pixel.path for pixel in pixels], is_new=False))
