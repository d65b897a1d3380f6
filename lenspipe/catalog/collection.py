"""A catalogue as a HATS collection: its tree, the margin of every pixel, an index of identifiers, a thumbnail."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cdshealpix.nested import vertices
from numpy.typing import NDArray

from lenspipe.catalog import folder as names
from lenspipe.catalog.columns import HEALPIX
from lenspipe.catalog.executor import Executor
from lenspipe.catalog.hats import (
    Pixel,
    home_of,
    of_the_builder,
    properties_text,
    read_pixels,
    write_metadata,
    write_pixel,
    write_properties,
)
from lenspipe.catalog.pieces import gather
from lenspipe.footers import seal
from lenspipe.sky.healpix import ORDER, cells_around, healpix29
from lenspipe.sky.sphere import chord, unit_vectors
from lenspipe.tables import open_parquet, read_footer, read_parquet, read_schema, write_table

MARGIN_ARCSEC = 10.0
"""Width of the margin: matches by up to this radius see both sides of every border."""
INDEXED = "candidate_id"
N_RING = 16
_RING = 1 / np.cos(np.pi / N_RING)
"""A polygon of so many corners around a circle has them at this many radii."""
_INDEX_SCHEMA = pa.schema([(INDEXED, pa.string()), ("Norder", pa.uint8()), ("Dir", pa.int64()), ("Npix", pa.int64())])


def write_collection(catalogue: Path, *, name: str, executor: Executor, scratch: Path) -> None:
    """
    Make the folder of a tree a collection (HATS 1.0, section "collections").

    Parameters
    ----------
    catalogue : Path
        Holds the tree of the rows; gets the margin, the index, the thumbnail and the collection's properties.
    name : str
        Name of the collection.
    executor : Executor
        Carries out a task per pixel.
    scratch : Path
        Folder that all tasks see; made and removed here.
    """
    tree, margin, index = (catalogue / part for part in (names.HATS, names.MARGIN, names.ID_INDEX))
    pixels, schema = read_pixels(tree), read_schema(tree / "dataset" / "_common_metadata")
    (index / "dataset" / "index").mkdir(parents=True)
    (margin / "dataset").mkdir(parents=True)
    scratch.mkdir()
    try:
        look = _Look(tree, index, tuple(pixels), scratch)
        looked = sorted(executor.each("index", look, list(enumerate(pixels)), scratch=scratch), key=lambda a: a[0])
        pieces: dict[int, list[tuple[str, int]]] = {}
        for _, (_, found) in looked:
            for target, path, batch in found:
                pieces.setdefault(target, []).append((path, batch))
        items = [(pixels[target], pieces[target]) for target in sorted(pieces)]
        if items:
            for _ in executor.each("margin", _Gather(margin), items, scratch=scratch):
                pass
        firsts = [first.cast(schema) for _, (first, _) in looked]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_table(pa.concat_tables([schema.empty_table(), *firsts]), tree / names.THUMBNAIL)
    of_margin = [pixel for pixel, _ in items]
    write_metadata(margin, schema, of_margin, name=f"{name}_margin", is_margin_of=(names.HATS, MARGIN_ARCSEC))
    _write_index_metadata(index, pixels, name)
    stated = {
        "obs_collection": name,
        "hats_primary_table_url": names.HATS,
        "all_margins": names.MARGIN,
        "default_margin": names.MARGIN,
        "all_indexes": f"{INDEXED} {names.ID_INDEX}",
        "default_index": INDEXED,
        **of_the_builder(),
    }
    (catalogue / names.COLLECTION).write_text(properties_text("HATS Collection", stated))


@dataclasses.dataclass(frozen=True)
class _Look:
    """Writes the index of one pixel; finds its first row, and which of its rows lie in the margins of others."""

    tree: Path
    index: Path
    pixels: tuple[Pixel, ...]
    scratch: Path

    def __call__(self, item: tuple[int, Pixel]) -> tuple[pa.Table, list[tuple[int, str, int]]]:
        """First row; number of the pixel, file and batch of each piece of a margin."""
        number, pixel = item
        file = self.tree / "dataset" / pixel.path
        keys = read_parquet(file, columns=[INDEXED, HEALPIX, "ra", "dec"])
        _write_part(self.index, pixel, keys[INDEXED])
        members = list(
            in_margins(keys[HEALPIX].to_numpy(), keys["ra"].to_numpy(), keys["dec"].to_numpy(), number, self.pixels)
        )
        rows = read_parquet(file) if members else _first(file)
        pieces: list[tuple[int, str, int]] = []
        if members:
            path = str(self.scratch / f"{number:06d}.arrow")
            with pa.ipc.new_file(path, rows.schema) as writer:
                for target, some in members:
                    writer.write_batch(rows.take(pa.array(some)).combine_chunks().to_batches()[0])
                    pieces.append((target, path, len(pieces)))
        return rows.slice(0, 1), pieces


@dataclasses.dataclass(frozen=True)
class _Gather:
    """Writes the margin of one pixel."""

    margin: Path

    def __call__(self, item: tuple[Pixel, list[tuple[str, int]]]) -> int:
        """Number of rows."""
        pixel, pieces = item
        rows = gather(pieces).sort_by([(HEALPIX, "ascending"), (INDEXED, "ascending")])
        write_pixel(self.margin / "dataset", pixel, rows)
        return int(rows.num_rows)


def in_margins(
    index29: NDArray[np.int64],
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    own: int,
    pixels: tuple[Pixel, ...],
    width_arcsec: float = MARGIN_ARCSEC,
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """
    Which rows of a pixel lie within a width of others.

    A row is near a pixel where one of the corners of a polygon around its circle lies in it, or a corner of the pixel
    in the circle; so none that is nearer than the width is missed, and none further than 1.04 widths is found.

    Parameters
    ----------
    index29, ra_deg, dec_deg : array (n,)
        Rows of the pixel.
    own : int
        The pixel's number.
    pixels : tuple of Pixel
        All that hold rows.

    Yields
    ------
    number : int
        Of another pixel.
    rows : array
        Numbers of the rows in its margin.
    """
    if len(pixels) < 2 or not len(index29):
        return
    known = list(pixels)
    cells, order = cells_around(index29, width_arcsec)
    homes = np.stack([home_of(np.maximum(c, 0) << (2 * (ORDER - order)), known) for c in cells.T], axis=1)
    homes[cells < 0] = -1
    other = (homes >= 0) & (homes != own)
    rows = np.flatnonzero(other.any(axis=1))
    if not len(rows):
        return
    at = unit_vectors(ra_deg[rows], dec_deg[rows])
    angles = 2 * np.pi * np.arange(N_RING) / N_RING
    east = np.stack([-np.sin(np.radians(ra_deg[rows])), np.cos(np.radians(ra_deg[rows])), np.zeros(len(rows))], axis=1)
    north = np.cross(at, east)
    radius = np.radians(width_arcsec / 3600)
    ring = at[:, None] + np.tan(radius * _RING) * (
        np.cos(angles)[:, None] * east[:, None] + np.sin(angles)[:, None] * north[:, None]
    )
    ring /= np.linalg.norm(ring, axis=-1, keepdims=True)
    lon = np.degrees(np.arctan2(ring[..., 1], ring[..., 0])) % 360
    lat = np.degrees(np.arcsin(np.clip(ring[..., 2], -1, 1)))
    touched = home_of(healpix29(lon.ravel(), lat.ravel()), known).reshape(lon.shape)
    for target in np.unique(homes[rows][other[rows]]):
        pixel = known[target]
        lon_v, lat_v = vertices(np.array([pixel.number], np.uint64), pixel.order)
        corners = unit_vectors(np.asarray(lon_v.deg)[0], np.asarray(lat_v.deg)[0])
        apart = np.linalg.norm(at[:, None] - corners, axis=-1).min(axis=1)
        near = (touched == target).any(axis=1) | (apart <= chord(1.04 * width_arcsec))
        if near.any():
            yield int(target), rows[near]


def _first(file: Path) -> pa.Table:
    with open_parquet(file) as opened:
        return pa.Table.from_batches([next(opened.iter_batches(1))])


def _part(index: Path, pixel: Pixel) -> Path:
    return index / "dataset" / "index" / f"part.{pixel.order}.{pixel.number}.parquet"


def _write_part(index: Path, pixel: Pixel, ids: pa.ChunkedArray) -> None:
    where = {"Norder": pixel.order, "Dir": pixel.number // 10_000 * 10_000, "Npix": pixel.number}
    columns = [ids, *(pa.array(np.full(len(ids), value)) for value in where.values())]
    rows = pa.table(dict(zip(_INDEX_SCHEMA.names, columns, strict=True))).cast(_INDEX_SCHEMA)
    write_table(rows.sort_by(INDEXED), _part(index, pixel))


def _write_index_metadata(index: Path, pixels: list[Pixel], name: str) -> None:
    dataset, footers = index / "dataset", []
    for pixel in pixels:
        part = _part(index, pixel)
        footer = read_footer(part)
        footer.set_file_path(os.path.relpath(part, dataset))
        footers.append(footer)
    pq.write_metadata(_INDEX_SCHEMA, dataset / "_common_metadata")
    pq.write_metadata(_INDEX_SCHEMA, dataset / "_metadata", metadata_collector=footers)
    for file in ("_common_metadata", "_metadata"):
        seal(dataset / file)
    stated = {
        "obs_collection": f"{name}_index",
        "dataproduct_type": "index",
        "hats_nrows": sum(footer.num_rows for footer in footers),
        "hats_primary_table_url": names.HATS,
        "hats_index_column": INDEXED,
        **of_the_builder(),
    }
    write_properties(index, stated)
