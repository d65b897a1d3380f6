"""A HATS tree of more rows than one machine holds: a histogram, then one task a pixel."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from lenspipe.catalog import folder as names
from lenspipe.catalog.columns import HEALPIX, KNOWN, catalogue_schema
from lenspipe.catalog.footprint import footprint, write_footprint
from lenspipe.catalog.hats import HIGHEST_ORDER, MAX_ROWS, Pixel, home_of, write_metadata, write_pixel, write_tree
from lenspipe.catalog.healpix import N_BASE, ORDER, cells_around
from lenspipe.catalog.match import fates, recall, with_known_lenses
from lenspipe.catalog.merge import merge_rows
from lenspipe.catalog.run_rows import Run, unmerged_entries
from lenspipe.catalog.write import FULL_SKY_DEG2, Matching, provenance, tiles_of, with_run_id
from lenspipe.rundir import write_json

ROWS_PER_FILE = 500_000
MARGIN = 10
"""Rows this many radii outside a pixel take part in its merging; a chain of detections that is longer may be cut."""


def write_tree_ray(
    sources: Sequence[Path], root: Path, *, name: str, radius_arcsec: float, max_rows: int = MAX_ROWS
) -> list[Pixel]:
    """
    Merge the rows of many files and write them as a HATS tree, on the Ray that runs.

    Equal to `merge_rows` of all rows and `lenspipe.catalog.hats.write_tree`. In the first pass each task counts the
    rows of a file in cells of the highest order, which gives the pixels (cut for the rows before merging). In the
    second each task scatters a file into one small file a pixel, with the rows just outside it; then one task a
    pixel merges, sorts and writes. A task holds one source file, or one pixel. All nodes must see ``root``.

    Parameters
    ----------
    sources : sequence of Path
        Parquet files in catalogue schema, not merged with each other.
    root : Path
        Folder to make.
    name : str
        Name of the collection.
    radius_arcsec : float
        Radius within which rows of different shards are one object.
    max_rows : int
        Rows of a pixel before merging, unless it is of the highest order.

    Returns
    -------
    list of Pixel
        Pixels that hold rows.
    """
    schema = pq.read_schema(sources[0])
    counts = np.zeros(N_BASE * 4**HIGHEST_ORDER, np.int64)
    count, scatter, gather = (ray.remote(task) for task in (_count, _scatter, _gather))
    for cells, n in ray.get([count.remote(source) for source in sources]):
        counts[cells] += n
    pixels = pixels_of_counts(counts, max_rows=max_rows)
    scratch = root / ".scatter"
    scratch.mkdir(parents=True)
    (root / "dataset").mkdir()
    try:
        for number in range(len(pixels)):
            (scratch / str(number)).mkdir()
        known = ray.put(pixels)
        ray.get([scatter.remote(s, known, scratch, i, radius_arcsec) for i, s in enumerate(sources)])
        rows = ray.get([gather.remote(root, scratch, i, p, radius_arcsec) for i, p in enumerate(pixels)])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    pixels = [pixel for pixel, n in zip(pixels, rows, strict=True) if n]
    write_metadata(root, schema, pixels, name=name, max_rows=max_rows)
    return pixels


def write_catalogue_ray(
    run: Run,
    out: Path,
    *,
    radius_arcsec: float,
    acronym: str,
    matching: Matching | None,
    max_rows: int = MAX_ROWS,
    rows_per_file: int = ROWS_PER_FILE,
) -> dict[str, Any]:
    """
    Write the catalogue of a run that one machine cannot hold, on the Ray that runs.

    The HATS tree, footprint, shards, tiles, known lenses and provenance of `lenspipe.catalog.write.write_catalogue`;
    no single table of all rows. The driver holds one file of rows at a time, and eight bytes for each row.

    Parameters
    ----------
    run : Run
    out : Path
        Folder to make, on a disk that all nodes see.
    radius_arcsec, acronym, matching, max_rows
        As in `write_catalogue`; ``max_rows`` counts rows before they are merged.
    rows_per_file : int
        Rows of the files that are merged.

    Returns
    -------
    dict
        The record that is written as ``provenance.json``.

    Raises
    ------
    ConfigError
        ``out`` exists.
    """
    schema = catalogue_schema(run.bands)
    moc, searched = footprint(run.shards), with_run_id(run.shards, run.run_id)
    with names.replaced_folder(out, replace=False) as new:
        chunks = new / ".chunks"
        chunks.mkdir()
        sources: list[Path] = []
        for number, rows in enumerate(unmerged_entries(run, acronym=acronym, rows_per_chunk=rows_per_file)):
            if matching:
                rows = with_known_lenses(rows, matching.lenses, radius_arcsec=matching.radius_arcsec)
            sources.append(chunks / f"{number:06d}.parquet")
            pq.write_table(rows, sources[-1])
        if sources:
            pixels = write_tree_ray(
                sources, new / names.HATS, name=out.name, radius_arcsec=radius_arcsec, max_rows=max_rows
            )
            close_ranks(new / names.HATS, pixels)
            write_metadata(new / names.HATS, schema, pixels, name=out.name, max_rows=max_rows)
        else:
            write_tree(schema.empty_table(), new / names.HATS, name=out.name, max_rows=max_rows)
            pixels = []
        shutil.rmtree(chunks)
        kept = {"rows": 0, "scored_rows": 0, "detections": 0}
        matched: list[pa.Table] = []
        for pixel in pixels:
            rows = pq.read_table(new / names.HATS / "dataset" / pixel.path, partitioning=None).cast(schema)
            kept["rows"] += rows.num_rows
            kept["scored_rows"] += rows.num_rows - rows["score"].null_count
            kept["detections"] += pc.sum(rows["n_detection"]).as_py()
            matched.append(rows.filter(pc.is_valid(rows[KNOWN[-1]])))
        found = None
        if matching:
            near = pa.concat_tables([schema.empty_table(), *matched])
            table = fates(
                near, matching.lenses, moc, radius_arcsec=matching.radius_arcsec, trained_on=matching.trained_on
            )
            pq.write_table(table, new / names.KNOWN_LENSES, compression="zstd")
            found = recall(table)
        pq.write_table(searched, new / names.SHARDS, compression="zstd")
        pq.write_table(tiles_of(run), new / names.TILES, compression="zstd")
        write_footprint(moc, new / names.FOOTPRINT)
        added = {"rows": kept["rows"], "merged": run.record["counts"]["candidates"] - kept["rows"]}
        record = provenance(run, None, kept, added, searched, radius_arcsec, acronym, matching, found)
        record["area"]["footprint_deg2"] = moc.sky_fraction * FULL_SKY_DEG2
        write_json(new / names.PROVENANCE, record)
    return record


def close_ranks(root: Path, pixels: Sequence[Pixel]) -> None:
    """
    Make the ranks of a tree's rows 1, 2, 3 ... where merging left gaps; each task rewrites the file of one pixel.

    The driver holds eight bytes a row. What describes the files is to be written again.
    """
    read, rewrite = ray.remote(_ranks), ray.remote(_rewrite_ranks)
    there = ray.get([read.remote(root, pixel) for pixel in pixels])
    known = ray.put(np.sort(np.concatenate([np.zeros(0, np.int64), *there])))
    ray.get([rewrite.remote(root, pixel, known) for pixel in pixels])


def pixels_of_counts(counts: NDArray[np.int64], *, max_rows: int) -> list[Pixel]:
    """Adaptive pixels of a histogram over the cells of the highest order; as `adaptive_pixels` of the rows."""
    total = np.concatenate([[0], np.cumsum(counts)])
    found: list[Pixel] = []

    def visit(pixel: Pixel) -> None:
        width = 4 ** (HIGHEST_ORDER - pixel.order)
        n = total[(pixel.number + 1) * width] - total[pixel.number * width]
        if n and (n <= max_rows or pixel.order == HIGHEST_ORDER):
            found.append(pixel)
        elif n:
            for child in pixel.children:
                visit(child)

    for number in range(N_BASE):
        visit(Pixel(0, number))
    return found


def _count(source: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    index = pq.read_table(source, columns=[HEALPIX])[HEALPIX].to_numpy()
    return np.unique(index >> (2 * (ORDER - HIGHEST_ORDER)), return_counts=True)


def _scatter(source: Path, pixels: list[Pixel], scratch: Path, number: int, radius_arcsec: float) -> None:
    rows = pq.read_table(source)
    index = rows[HEALPIX].to_numpy()
    cells, order = cells_around(index, MARGIN * radius_arcsec)
    homes = np.stack([home_of(np.maximum(c, 0) << (2 * (ORDER - order)), pixels) for c in cells.T], axis=1)
    homes[cells < 0] = -1
    for pixel in np.unique(homes[homes >= 0]):
        members = np.flatnonzero((homes == pixel).any(axis=1))
        pq.write_table(rows.take(pa.array(members)), scratch / str(pixel) / f"{number}.parquet")


def _gather(root: Path, scratch: Path, number: int, pixel: Pixel, radius_arcsec: float) -> int:
    files = sorted((scratch / str(number)).iterdir())
    rows = merge_rows(pa.concat_tables([pq.read_table(f) for f in files]), radius_arcsec=radius_arcsec)
    index = rows[HEALPIX].to_numpy()
    first, last = pixel.span
    members = np.flatnonzero((index >= first) & (index < last))
    members = members[np.argsort(index[members], kind="stable")]
    if len(members):
        write_pixel(root / "dataset", pixel, rows.take(pa.array(members)))
    return len(members)


def _ranks(root: Path, pixel: Pixel) -> NDArray[np.int64]:
    rank = pq.read_table(root / "dataset" / pixel.path, columns=["rank"], partitioning=None)["rank"]
    return rank.drop_null().to_numpy()


def _rewrite_ranks(root: Path, pixel: Pixel, known: NDArray[np.int64]) -> None:
    rows = pq.read_table(root / "dataset" / pixel.path, partitioning=None)
    place, missing = rows.schema.get_field_index("rank"), rows["rank"].is_null().to_numpy()
    closed = np.searchsorted(known, pc.fill_null(rows["rank"], 0).to_numpy()) + 1
    rows = rows.set_column(place, rows.schema.field(place), pa.array(closed, pa.int64(), mask=missing))
    write_pixel(root / "dataset", pixel, rows)
