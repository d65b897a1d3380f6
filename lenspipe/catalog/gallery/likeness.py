"""What a page knows of likeness: the nearest of each candidate among the others, and a map of all in two dimensions."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.catalog import folder as names
from lenspipe.catalog.columns import HEALPIX
from lenspipe.catalog.hats import home_of, read_pixels
from lenspipe.catalog.similar import nearest
from lenspipe.catalog.vectors import as_numbers
from lenspipe.errors import ConfigError
from lenspipe.schema import EMBEDDING
from lenspipe.tables import read_parquet

N_NEAR, NOWHERE = 24, 65_535
"""Neighbours of each candidate, and the coordinate of one that has no vector."""
BLOCK, KEEP = 1024, 0.995
"""Candidates whose neighbours are looked for at a time; part of the points that the map is scaled to."""
SEED, LEAST = 1, 50
"""Of t-SNE, and points below which it has nothing to arrange."""
MapMethod = Literal["auto", "tsne", "pca"]
METHODS = get_args(MapMethod)
SAID = {
    "tsne": "t-SNE of the vectors (openTSNE): near points are alike, far distances mean little",
    "pca": "The first two principal components of the vectors",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Likeness:
    """Of the candidates of a page."""

    near: NDArray[np.int64]
    """(n, k) rows of the page, most alike first; -1 where there is none."""
    place: NDArray[np.float64]
    """(n, 2) from 0 to 1; NaN without a vector."""
    said: str
    """What the map is."""

    def to_json(self) -> dict[str, Any]:
        """Numbers as base64 of little-endian arrays: 4 bytes per neighbour, 2 per coordinate."""
        place = np.where(np.isnan(self.place), NOWHERE, np.rint(np.nan_to_num(self.place) * (NOWHERE - 1)))
        return {
            "k": self.near.shape[1],
            "near": _base64(self.near.astype("<i4")),
            "place": _base64(place.astype("<u2")),
            "said": self.said,
        }


def likeness_of(catalogue: Path, rows: pa.Table, *, method: MapMethod = "auto") -> Likeness | None:
    """
    Neighbours and map of a page's rows; None where the catalogue has no vector of two of them.

    Parameters
    ----------
    catalogue : Path
    rows : pa.Table
        Rows of the catalogue.
    method : str
        ``tsne`` by openTSNE, ``pca``, or ``auto``: t-SNE where the package is there.

    Raises
    ------
    ConfigError
        t-SNE is asked for, and openTSNE is not installed.
    """
    vectors = vectors_of_rows(catalogue, rows)
    if vectors is None:
        return None
    there = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if len(there) < 2:
        return None
    known = vectors[there].astype(np.float32)
    known /= np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-12)
    near = np.full((len(vectors), min(N_NEAR, len(there) - 1)), -1)
    near[there] = there[neighbours(known, near.shape[1])]
    used = _method(method, len(there))
    place = np.full((len(vectors), 2), np.nan)
    place[there] = _within(tsne(known) if used == "tsne" else principal(known))
    said = SAID[used]
    if used == "pca" and method == "auto" and len(there) >= LEAST:
        said += "; with lenspipe[map] installed it is t-SNE, which shows groups better"
    return Likeness(near, place, said)


def vectors_of_rows(catalogue: Path, rows: pa.Table) -> NDArray[np.float16] | None:
    """
    Vectors of rows of a catalogue ``(n, size)``, NaN where one is missing; None where the catalogue has none.

    Only the pixels that hold some of the rows are read, one after the other.
    """
    root = catalogue / names.VECTORS
    if not root.is_dir():
        return None
    pixels = read_pixels(root)
    home = home_of(rows[HEALPIX].to_numpy(), pixels)
    found: NDArray[np.float16] | None = None
    key = pc.binary_join_element_wise(rows["run_id"], rows["candidate_id"], " ")
    for number in np.unique(home[home >= 0]):
        columns = ["run_id", "candidate_id", EMBEDDING]
        table = read_parquet(root / "dataset" / pixels[number].path, columns=columns)
        mine = np.flatnonzero(home == number)
        joined = pc.binary_join_element_wise(table["run_id"], table["candidate_id"], " ").combine_chunks()
        at = pc.index_in(key.take(mine), joined)
        vectors = as_numbers(table[EMBEDDING].take(at))
        found = np.full((rows.num_rows, vectors.shape[1]), np.nan, np.float16) if found is None else found
        found[mine] = vectors
    return found


def neighbours(vectors: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The ``k`` nearest of each of the vectors ``(n, size)``, itself left out, most alike first: ``(n, k)``."""
    found = np.empty((len(vectors), k), np.int64)
    for start in range(0, len(vectors), BLOCK):
        asked = vectors[start : start + BLOCK]
        rows, _ = nearest(_blocks(vectors), asked, k + 1)
        # of equal vectors the row itself may come late, or not at all
        others = [line[line != start + i][:k] for i, line in enumerate(rows)]
        found[start : start + len(asked)] = np.stack(others)
    return found


def _blocks(vectors: NDArray[np.float32]) -> Any:
    return (vectors[start : start + 8 * BLOCK] for start in range(0, len(vectors), 8 * BLOCK))


def principal(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The first two principal components ``(n, 2)``, each with the sign that makes its largest weight positive."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    axes = axes[:, :-3:-1]
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0, keepdims=True), 0))
    return np.asarray(centred @ axes, np.float64)


def tsne(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Map ``(n, 2)`` by t-SNE (van der Maaten & Hinton 2008, JMLR 9, 2579) of cosines, from principal components on."""
    openTSNE = _open_tsne()
    fit = openTSNE.TSNE(
        perplexity=min(30, (len(vectors) - 1) / 3), metric="cosine", initialization="pca", random_state=SEED, n_jobs=1
    )
    return np.asarray(fit.fit(vectors), np.float64)


def _method(asked: MapMethod, n: int) -> str:
    if asked == "tsne":
        _open_tsne()
        return "tsne"
    if asked == "pca" or n < LEAST:
        return "pca"
    try:
        _open_tsne()
    except ConfigError:
        return "pca"
    return "tsne"


def _open_tsne() -> Any:
    try:
        import openTSNE
    except ImportError as error:
        raise ConfigError(
            "a map by t-SNE needs the package openTSNE: pip install 'lenspipe[map]'; or take --map pca"
        ) from error
    return openTSNE


def _within(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points from 0 to 1 with one scale for both axes; the few outermost come to lie on the edge."""
    low, high = np.quantile(points, [1 - KEEP, KEEP], axis=0)
    side = max(float((high - low).max()), 1e-12) * 1.06
    return np.clip((points - (low + high) / 2) / side + 0.5, 0, 1)


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()
