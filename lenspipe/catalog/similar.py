"""Rows of a catalogue by likeness to one vector: all of them are compared, a block of vectors at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.catalog import folder as names
from lenspipe.catalog.hats import Pixel, read_pixels
from lenspipe.catalog.records import catalog_record
from lenspipe.catalog.vectors import as_numbers
from lenspipe.errors import ConfigError, DataError
from lenspipe.schema import EMBEDDING, field
from lenspipe.sky.healpix import cells_around, healpix29
from lenspipe.sky.sphere import separation_arcsec
from lenspipe.tables import open_parquet, read_parquet

SHOWN = ("candidate_id", "name", "ra", "dec", "rank", "score", "probability", "run_id")
SIMILARITY = field("similarity", pa.float32(), "Cosine of the angle between the vectors", ucd="stat.correlation")
_POSITION = re.compile(r"\s*([+-]?\d+(?:\.\d*)?)\s*,\s*([+-]?\d+(?:\.\d*)?)\s*")
BLOCK = 65_536
"""Vectors that are compared at a time."""


def vector_at(catalogue: Path, target: str, *, radius_arcsec: float = 2.0) -> tuple[str, NDArray[np.float32]]:
    """
    Identifier and vector of the row that is asked for.

    Parameters
    ----------
    catalogue : Path
    target : str
        A ``candidate_id``, or ``RA,DEC`` in degrees, whose nearest row is taken.
    radius_arcsec : float
        How far that may be.

    Raises
    ------
    ConfigError
        The catalogue has no vectors, no such row, or none for it.
    """
    root, position = vectors_folder(catalogue), _POSITION.fullmatch(target)
    ra, dec = (float(number) for number in position.groups()) if position else (0.0, 0.0)
    best: tuple[float, Pixel, int] | None = None
    for pixel in _around(read_pixels(root), ra, dec, radius_arcsec) if position else read_pixels(root):
        columns = ["ra", "dec"] if position else ["candidate_id"]
        rows = read_parquet(root / "dataset" / pixel.path, columns=columns)
        if position:
            away = separation_arcsec(rows["ra"].to_numpy(), rows["dec"].to_numpy(), ra, dec)
        else:
            same = pc.equal(rows["candidate_id"], target).to_numpy(zero_copy_only=False)
            away = np.where(same, 0.0, np.inf)
        nearest = int(np.argmin(away))
        if away[nearest] <= radius_arcsec and (best is None or away[nearest] < best[0]):
            best = float(away[nearest]), pixel, nearest
    if best is None:
        where = f"within {radius_arcsec:g} arcsec of this position" if position else "of this identifier"
        raise ConfigError(f"the catalogue has no row {where}", target=target, catalog=str(catalogue))
    _, pixel, row = best
    columns = ["candidate_id", EMBEDDING]
    found = _with_vectors(root / "dataset" / pixel.path, columns).slice(row, 1)
    vector = as_numbers(found[EMBEDDING])[0].astype(np.float32)
    if not np.isfinite(vector).all():
        raise ConfigError(
            "the row has no vector: a band of the embedding was missing there", candidate_id=found[0][0].as_py()
        )
    return found["candidate_id"][0].as_py(), vector


def _around(pixels: Iterable[Pixel], ra: float, dec: float, radius_arcsec: float) -> list[Pixel]:
    """Pixels in which a row so near a position can lie."""
    cells, order = cells_around(healpix29(np.array([ra]), np.array([dec])), radius_arcsec)
    spans = [Pixel(order, int(cell)).span for cell in cells.ravel() if cell >= 0]
    return [one for one in pixels if any(one.span[0] < last and first < one.span[1] for first, last in spans)]


def embedder_of(catalogue: Path) -> tuple[str, str]:
    """
    Folder of the model that a catalogue's vectors are of, as its scan was told, and the name of its exact content.

    Raises
    ------
    ConfigError
        The catalogue has no vectors.
    """
    vectors_folder(catalogue)
    runs = catalog_record(catalogue / names.PROVENANCE)["runs"]
    run = next(run for run in runs if run.get("embedder"))
    return run["request"]["config"]["embedder"], run["embedder"]["digest"]


def most_similar(catalogue: Path, vector: NDArray[np.floating], k: int) -> pa.Table:
    """
    The ``k`` rows whose vectors have the most similar direction, most similar first; rows without one are left out.

    Exact: every vector is compared, in float32; memory holds a block of them.

    Parameters
    ----------
    catalogue : Path
    vector : array (size,)
    k : int

    Returns
    -------
    pa.Table
        `SIMILARITY` and `SHOWN`.

    Raises
    ------
    ConfigError
        The catalogue has no vectors, of no row, or of another size.
    """
    rows, cosines = nearest(blocks_of(catalogue), np.asarray(vector, np.float32)[None], k)
    return rows_at(catalogue, rows[0], cosines[0])


def blocks_of(catalogue: Path, *, block: int = BLOCK) -> Iterator[NDArray[np.float16]]:
    """
    Vectors of a catalogue ``(n, size)`` in the order of its rows, ``block`` at a time; NaN where one is missing.

    Raises
    ------
    ConfigError
        The catalogue has no vectors.
    """
    root = vectors_folder(catalogue)
    for pixel in read_pixels(root):
        path = root / "dataset" / pixel.path
        with open_parquet(path, pre_buffer=False) as file:
            _demand_vectors(file.schema_arrow, path)
            for rows in file.iter_batches(block, columns=[EMBEDDING]):
                yield as_numbers(rows.column(EMBEDDING))


def nearest(
    blocks: Iterable[NDArray[np.float16]], asked: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """
    Rows with the most similar directions, by comparing all.

    Parameters
    ----------
    blocks : iterable of array (n, size)
        Vectors; those that are not finite have no neighbours and are none.
    asked : array (m, size)
    k : int

    Returns
    -------
    rows, cosines : arrays (m, k), or less where there are fewer
        Most similar first, of equals the earlier row; rows are counted over all blocks.

    Raises
    ------
    ConfigError
        The vectors are of another size.
    """
    asked = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    rows = np.empty((len(asked), 0), np.int64)
    best = np.empty((len(asked), 0), np.float32)
    first = 0
    for block in blocks:
        if block.shape[1] != asked.shape[1]:
            raise ConfigError("the catalogue's vectors are of another size", has=block.shape[1], got=asked.shape[1])
        near = np.concatenate([best, _cosines(block, asked)], axis=1)
        named = np.concatenate([rows, np.broadcast_to(first + np.arange(len(block)), (len(asked), len(block)))], axis=1)
        places = np.stack([_largest(line, k) for line in near])
        rows, best = np.take_along_axis(named, places, 1), np.take_along_axis(near, places, 1)
        first += len(block)
    there = int(np.isfinite(best).sum(axis=1).min()) if best.size else 0
    return rows[:, :there], best[:, :there]


def _largest(values: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the ``k`` largest values, the largest first and of equals the earlier."""
    if len(values) > k:
        least = np.partition(values, len(values) - k)[len(values) - k]
        some = np.flatnonzero(values >= least)
    else:
        some = np.arange(len(values))
    return np.asarray(some[np.argsort(-values[some], kind="stable")][:k])


def rows_at(catalogue: Path, rows: NDArray[np.int64], cosines: NDArray[np.float32]) -> pa.Table:
    """
    Rows of a catalogue by their place in the order of its pixels.

    Parameters
    ----------
    catalogue : Path
    rows : array (n,)
    cosines : array (n,)
        What is told beside them.

    Returns
    -------
    pa.Table
        `SIMILARITY` and `SHOWN`, in the order of ``rows``.

    Raises
    ------
    ConfigError
        There are none.
    """
    if not len(rows):
        raise ConfigError("no row of the catalogue has a vector: a band of the embedding was missing in all")
    root = catalogue / names.HATS / "dataset"
    first, tables = 0, []
    for pixel in read_pixels(catalogue / names.HATS):
        with open_parquet(root / pixel.path) as file:
            n, known = file.metadata.num_rows, file.schema_arrow.names
        mine = np.flatnonzero((rows >= first) & (rows < first + n))
        if len(mine):
            columns = [name for name in SHOWN if name in known]
            here = read_parquet(root / pixel.path, columns=columns).take(rows[mine] - first)
            tables.append(here.append_column("place", pa.array(mine, pa.int64())))
        first += n
    found = pa.concat_tables(tables).sort_by("place").drop_columns(["place"])
    return found.add_column(0, SIMILARITY, pa.array(cosines, pa.float32()))


def _with_vectors(file: Path, columns: list[str]) -> pa.Table:
    rows = read_parquet(file, columns=columns)
    _demand_vectors(rows.schema, file)
    return rows


def _demand_vectors(schema: pa.Schema, file: Path) -> None:
    """Raise `DataError` where a table, which may be anybody's, has no vectors."""
    if EMBEDDING not in schema.names or not pa.types.is_fixed_size_list(schema.field(EMBEDDING).type):
        raise DataError("the table has no vectors", file=str(file))


def _cosines(vectors: NDArray[np.float16], asked: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines ``(m, n)`` with vectors of length 1; minus infinity where there is no vector."""
    some = vectors.astype(np.float32)
    length = np.linalg.norm(some, axis=1)
    near = asked @ some.T / np.where(length > 0, length, 1)
    return np.where(np.isnan(near), np.float32(-np.inf), near)


def vectors_folder(catalogue: Path) -> Path:
    """
    Tree of a catalogue's vectors.

    Raises
    ------
    ConfigError
        It has none.
    """
    root = catalogue / names.VECTORS
    if not root.is_dir():
        raise ConfigError(
            "the catalogue has no vectors: scan with --embed and write the catalogue anew", catalog=str(catalogue)
        )
    return root
