"""Rows of a catalogue by likeness to one vector: all of them are compared, a pixel's vectors at a time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.catalog import folder as names
from lenspipe.catalog.hats import Pixel, read_pixels
from lenspipe.catalog.vectors import as_numbers
from lenspipe.errors import ConfigError
from lenspipe.schema import EMBEDDING, field
from lenspipe.sky.sphere import separation_arcsec
from lenspipe.tables import read_parquet

SHOWN = ("candidate_id", "name", "ra", "dec", "rank", "score", "probability", "run_id")
SIMILARITY = field("similarity", pa.float32(), "Cosine of the angle between the vectors", ucd="stat.correlation")
_POSITION = re.compile(r"\s*([+-]?\d+(?:\.\d*)?)\s*,\s*([+-]?\d+(?:\.\d*)?)\s*")
BLOCK = 65_536


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
    root, position = _vectors(catalogue), _POSITION.fullmatch(target)
    best: tuple[float, Pixel, int] | None = None
    for pixel in read_pixels(root):
        columns = ["ra", "dec"] if position else ["candidate_id"]
        rows = read_parquet(root / "dataset" / pixel.path, columns=columns, partitioning=None)
        if position:
            ra, dec = (float(number) for number in position.groups())
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
    found = read_parquet(root / "dataset" / pixel.path, columns=columns, partitioning=None).slice(row, 1)
    vector = as_numbers(found[EMBEDDING])[0].astype(np.float32)
    if not np.isfinite(vector).all():
        raise ConfigError(
            "the row has no vector: a band of the embedding was missing there", candidate_id=found[0][0].as_py()
        )
    return found["candidate_id"][0].as_py(), vector


def most_similar(catalogue: Path, vector: NDArray[np.floating], k: int) -> pa.Table:
    """
    The ``k`` rows whose vectors have the most similar direction, most similar first; rows without one are left out.

    Exact: every vector is compared, in float32; memory holds those of one pixel.

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
    root, asked = _vectors(catalogue), np.asarray(vector, np.float32)
    asked = asked / np.linalg.norm(asked)
    best: list[tuple[float, int, int]] = []
    pixels = read_pixels(root)
    for number, pixel in enumerate(pixels):
        rows = read_parquet(root / "dataset" / pixel.path, columns=[EMBEDDING], partitioning=None)
        size = rows[EMBEDDING].type.list_size
        if size != len(asked):
            raise ConfigError("the catalogue's vectors are of another size", has=size, got=len(asked))
        near = _cosines(as_numbers(rows[EMBEDDING]), asked)
        some = np.argsort(-near, kind="stable")[:k]
        best += [(float(near[i]), number, int(i)) for i in some if np.isfinite(near[i])]
        best = sorted(best, key=lambda one: -one[0])[:k]
    if not best:
        raise ConfigError("no row of the catalogue has a vector: a band of the embedding was missing in all")
    tables = []
    for number in sorted({number for _, number, _ in best}):
        mine = [place for place, (_, n, _) in enumerate(best) if n == number]
        rows = read_parquet(catalogue / names.HATS / "dataset" / pixels[number].path, partitioning=None)
        some_rows = rows.select([n for n in SHOWN if n in rows.column_names]).take([best[place][2] for place in mine])
        tables.append(some_rows.append_column("place", pa.array(mine, pa.int64())))
    found = pa.concat_tables(tables).sort_by("place").drop_columns(["place"])
    return found.add_column(0, SIMILARITY, pa.array([cosine for cosine, _, _ in best], pa.float32()))


def _cosines(vectors: NDArray[np.float16], asked: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines with a vector of length 1; minus infinity where there is no vector."""
    near = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), BLOCK):
        some = vectors[start : start + BLOCK].astype(np.float32)
        length = np.linalg.norm(some, axis=1)
        near[start : start + BLOCK] = (some @ asked) / np.where(length > 0, length, 1)
    return np.where(np.isnan(near), np.float32(-np.inf), near)


def _vectors(catalogue: Path) -> Path:
    root = catalogue / names.VECTORS
    if not root.is_dir():
        raise ConfigError(
            "the catalogue has no vectors: scan with --embed and write the catalogue anew", catalog=str(catalogue)
        )
    return root
