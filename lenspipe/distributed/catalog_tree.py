"""A HATS tree by Ray: rows of many files merged in two passes, and rows added to a tree."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.catalog.append import Appended, link_pixels
from lenspipe.catalog.hats import MAX_ROWS, Pixel, read_pixels, write_metadata
from lenspipe.catalog.pieces import cells_in, pixels_of_counts
from lenspipe.distributed.catalog_passes import CatalogRows, Passes, Reader, sources_of


def write_tree_ray(
    sources: pa.Table,
    root: Path,
    *,
    schema: pa.Schema,
    name: str,
    radius_arcsec: float,
    reader: Reader | None = None,
    max_rows: int = MAX_ROWS,
    close_ranks: bool = False,
    n_worker: int | None = None,
) -> list[Pixel]:
    """
    Merge the rows of many sources and write them as a HATS tree, on the Ray that runs.

    Equal to `lenspipe.catalog.merge.merge_duplicates` and `lenspipe.catalog.hats.write_tree` of all rows. In the first
    pass each task counts the rows of a source in cells of the highest order; the sum of the counts gives the pixels
    (cut for the rows before merging). Before the second each task scatters a source into a file with a batch for each
    pixel, with the rows just outside it; then one task a pixel merges, sorts and writes. Rows travel by these files:
    a ``groupby`` would take all of them through the object store, and a reducer holds all groups of its hash. A task
    holds `BATCH_ROWS` rows of a source, or one pixel. All nodes must see ``root`` and the sources.

    Parameters
    ----------
    sources : pa.Table
        From `sources_of`; not merged with each other.
    root : Path
        Folder to make.
    schema : pa.Schema
        Schema of the rows.
    name : str
        Name of the collection.
    radius_arcsec : float
        Radius within which rows of different shards are one object.
    reader : Reader, optional
        How a source is read; as catalogue rows where not given.
    max_rows : int
        Rows of a pixel before merging, unless it is of the highest order.
    close_ranks : bool
        Make the ranks 1, 2, 3 ... where merging leaves gaps; the file of each pixel is written again.
    n_worker : int, optional
        CPUs to use; all where not given.

    Returns
    -------
    list of Pixel
        Pixels that hold rows.

    Raises
    ------
    ConfigError
        A row has no position, or a task's process died again and again.
    """
    work = Passes(root, reader or CatalogRows(), radius_arcsec, n_worker)
    with work.scratch():
        pixels = pixels_of_counts(work.histogram(sources)[0], max_rows=max_rows)
        written = [p for p, found in work.merge(sources, pixels) if found["n_row"]]
        if close_ranks:
            work.close_ranks(written)
    write_metadata(root, schema, written, name=name, max_rows=max_rows)
    return written


def append_tree_ray(
    old: Path,
    added: pa.Table,
    new: Path,
    *,
    name: str,
    radius_arcsec: float,
    max_rows: int = MAX_ROWS,
    n_worker: int | None = None,
) -> Appended:
    """
    Write tree ``new`` that holds the rows of tree ``old`` and those added, merged, on the Ray that runs.

    As `lenspipe.catalog.append.append_rows`; a pixel that grows is cut for the rows before merging. No task holds
    more than one pixel, and the files of pixels that do not change are linked.

    Parameters
    ----------
    old : Path
        A tree; it stays as it is.
    added : pa.Table
        From `sources_of`: rows in the old tree's schema, duplicates among them merged already.
    new, name, radius_arcsec, max_rows, n_worker
        As in `write_tree_ray`.

    Returns
    -------
    Appended
    """
    schema = pq.read_schema(old / "dataset" / "_common_metadata")
    pixels = read_pixels(old)
    work = Passes(new, CatalogRows(), radius_arcsec, n_worker)
    with work.scratch():
        counts, numbers = work.histogram(added, near=pixels)
        near = [pixels[i] for i in numbers]
        there = sources_of([old / "dataset" / pixel.path for pixel in near], is_new=False)
        crowded = [
            pixel
            for pixel in near
            if (n_new := counts[cells_in(pixel)].sum())
            and n_new + pq.read_metadata(old / "dataset" / pixel.path).num_rows > max_rows
        ]
        of_crowded = sources_of([old / "dataset" / pixel.path for pixel in crowded])
        all_counts = counts + work.histogram(of_crowded)[0]
        targets = [pixel for pixel in near if pixel not in crowded]
        targets += pixels_of_counts(all_counts, max_rows=max_rows, inside=crowded)
        for pixel in pixels:
            counts[cells_in(pixel)] = 0
        targets += pixels_of_counts(counts, max_rows=max_rows, apart_from=pixels)
        found = work.merge(pa.concat_tables([there, added]), targets, keep=near)
    changed = {pixel for pixel, of in found if of["changed"]}
    rewritten = [pixel for pixel, of in found if of["changed"] and of["n_row"]]
    gone = {pixel for pixel in near if pixel in changed or pixel not in targets}
    untouched = link_pixels(old, new, [pixel for pixel in pixels if pixel not in gone])
    write_metadata(new, schema, untouched + rewritten, name=name, max_rows=max_rows)
    n_new, n_merged = (sum(of[key] for _, of in found) for key in ("n_new", "n_merged"))
    return Appended(n_new, n_merged, untouched + rewritten, rewritten)
