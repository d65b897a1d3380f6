"""Rows on their way to the pixels of a tree: counted in cells, scattered into files by pixel, gathered again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.catalog.columns import HEALPIX
from lenspipe.catalog.hats import BASE, HIGHEST_ORDER, Pixel, divide, home_of
from lenspipe.disk import scratch_beside
from lenspipe.sky.healpix import ORDER, cells_around

MARGIN = 10
"""Rows this many radii outside a pixel take part in its merging; a chain of detections that is longer may be cut."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """Rows of one pixel in a scattered file."""

    pixel: int
    """Number of the pixel in the list that the rows were scattered over."""
    path: str
    batch: int


def cell_counts(index29: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells of the highest order that hold rows, and how many."""
    cells, n = np.unique(index29 >> (2 * (ORDER - HIGHEST_ORDER)), return_counts=True)
    return cells, n.astype(np.int64)


def cells_in(pixel: Pixel) -> slice:
    """Cells of the highest order inside a pixel."""
    width = 4 ** (HIGHEST_ORDER - pixel.order)
    return slice(pixel.number * width, (pixel.number + 1) * width)


def pixels_of_counts(
    counts: NDArray[np.int64], *, max_rows: int, inside: Iterable[Pixel] = BASE, apart_from: Iterable[Pixel] = ()
) -> list[Pixel]:
    """
    Adaptive pixels of a histogram over the cells of the highest order; as `adaptive_pixels` of the rows.

    Parameters
    ----------
    counts : array (12 * 4**HIGHEST_ORDER,)
        Rows in each cell.
    max_rows, inside, apart_from
        As in `lenspipe.catalog.hats.adaptive_pixels`.
    """
    total = np.concatenate([[0], np.cumsum(counts)])

    def bounds(pixel: Pixel) -> tuple[int, int]:
        cells = cells_in(pixel)
        return int(total[cells.start]), int(total[cells.stop])

    found = divide(bounds, max_rows=max_rows, highest_order=HIGHEST_ORDER, inside=inside, apart_from=apart_from)
    return [pixel for pixel, _, _ in found]


def scatter(chunks: Iterable[pa.Table], pixels: list[Pixel], path: Path, *, radius_arcsec: float) -> list[Piece]:
    """
    Write rows into one Arrow file, a batch for each pixel that they lie in or just outside of.

    The file appears whole; writing it again gives the same file. Memory is that of one chunk.

    Parameters
    ----------
    chunks : iterable of pa.Table
        Rows with ``_healpix_29``, all of one schema.
    pixels : list of Pixel
        Where to; rows near none of them are left out.
    path : Path
        File to write; there is none where nothing is written.
    radius_arcsec : float
        Radius of the merging that the rows are for; a row goes to every pixel within `MARGIN` radii.

    Returns
    -------
    list of Piece
    """
    pieces: list[Piece] = []
    temporary = scratch_beside(path)
    writer = None
    try:
        for rows in chunks:
            for pixel, members in _members(rows[HEALPIX].to_numpy(), pixels, MARGIN * radius_arcsec):
                batch = rows.take(pa.array(members)).combine_chunks().to_batches()[0]
                if writer is None:
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    writer = pa.ipc.new_file(temporary, rows.schema, options=options)
                writer.write_batch(batch)
                pieces.append(Piece(pixel, str(path), len(pieces)))
        if writer is not None:
            writer.close()
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return pieces


def _members(
    index29: NDArray[np.int64], pixels: list[Pixel], margin_arcsec: float
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Pixel by pixel the rows that lie in it or within the margin."""
    n = len(index29)
    if not n:
        return
    cells, order = cells_around(index29, margin_arcsec)
    homes = np.stack([home_of(np.maximum(c, 0) << (2 * (ORDER - order)), pixels) for c in cells.T], axis=1)
    homes[cells < 0] = -1
    key = np.unique((homes * n + np.arange(n)[:, None])[homes >= 0])
    home, member = key // n, key % n
    starts = np.flatnonzero(np.diff(home, prepend=-1))
    for low, high in zip(starts, [*starts[1:], len(home)], strict=True):
        yield int(home[low]), member[low:high]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Scattered rows of one pixel; a `lenspipe.catalog.sources.Source`."""

    batches: tuple[tuple[str, int], ...]
    """Files, and batches in them, in the order of the rows."""
    is_new: bool

    def index(self) -> NDArray[np.int64]:
        """``_healpix_29`` of the rows."""
        return np.asarray(gather(self.batches)[HEALPIX].to_numpy())

    def chunks(self, batch_rows: int | None = None) -> Iterator[pa.Table]:
        """The rows, at once."""
        yield gather(self.batches)


def gather(pieces: Sequence[tuple[str, int]]) -> pa.Table:
    """Rows of the (file, batch) pairs given, in their order."""
    batches = []
    for path in dict.fromkeys(path for path, _ in pieces):
        with pa.OSFile(path) as stream, pa.ipc.open_file(stream) as reader:
            batches += [reader.get_batch(batch) for p, batch in pieces if p == path]
    return pa.Table.from_batches(batches)


def pixels_near(index29: NDArray[np.int64], pixels: list[Pixel], radius_arcsec: float) -> list[Pixel]:
    """Pixels that hold a row or come within the radius of one."""
    if not len(index29) or not pixels:
        return []
    cells, order = cells_around(index29, radius_arcsec)
    cells = np.unique(cells)
    cells = cells[cells >= 0]
    return [pixels[i] for i in np.unique(home_of(cells << (2 * (ORDER - order)), pixels)) if i >= 0]
