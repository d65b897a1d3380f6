"""An index of a catalogue's vectors: most of the nearest, at once, where there are too many to compare all."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.catalog import folder as names
from lenspipe.catalog.hats import read_pixels
from lenspipe.catalog.similar import BLOCK, blocks_of, nearest, rows_at, vectors_folder
from lenspipe.disk import replaced_folder
from lenspipe.errors import ConfigError
from lenspipe.rundir import read_json, utc_now, write_json
from lenspipe.tables import open_parquet

if TYPE_CHECKING:
    from usearch.index import Index

GRAPH, FACTS = "graph.usearch", "index.json"
ROWS_EXACT = 3_000_000
"""Vectors up to which all of them are compared unless an index is asked for."""
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 64, 256
EQUAL = 1e-6
"""Cosines that differ by less are one."""
RECALL_OF, QUERIES = 100, 200
"""Recall is that of so many neighbours, over so many rows drawn from the catalogue."""


def build_index(
    catalogue: Path, *, threads: int = 0, on_rows: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """
    Write an index beside a catalogue's vectors, and measure what part of the true neighbours it finds.

    A graph of near neighbours in layers (HNSW; Malkov & Yashunin 2020, IEEE TPAMI 42, 824) by usearch, of the float16
    numbers as they are. Memory holds the graph and the vectors, about 500 bytes for a row of 128 numbers.

    Parameters
    ----------
    catalogue : Path
    threads : int
        0 for all cores.
    on_rows : callable
        Called with numbers of rows that were added.

    Returns
    -------
    dict
        What is known of it: ``rows``, ``recall`` and its standard error ``recall_err``, files of the vectors.

    Raises
    ------
    ConfigError
        The catalogue has no vectors or of no row, or the extra is not installed.
    """
    made, first, size = None, 0, 0
    for block in blocks_of(catalogue):
        if made is None:
            size = block.shape[1]
            made = _usearch().Index(
                ndim=size,
                metric="cos",
                dtype="f16",
                connectivity=CONNECTIVITY,
                expansion_add=EXPANSION_ADD,
                expansion_search=EXPANSION_SEARCH,
            )
        there = np.isfinite(block).all(axis=1)
        made.add((first + np.flatnonzero(there)).astype(np.uint64), block[there], threads=threads)
        first += len(block)
        on_rows(len(block))
    if made is None or not len(made):
        raise ConfigError("no row of the catalogue has a vector: there is nothing to index", catalog=str(catalogue))
    facts = {
        "made": utc_now(),
        "rows": first,
        "vectors": len(made),
        "size": size,
        **_recall(catalogue, made, first, threads),
        "files": files_of(catalogue),
    }
    with replaced_folder(catalogue / names.INDEX, replace=True, ours=names.INDEX_FILE.fullmatch) as new:
        made.save(new / GRAPH)
        write_json(new / FACTS, facts)
    return facts


def n_vector(catalogue: Path) -> int:
    """Rows of a catalogue with vectors, those without one among them."""
    root = vectors_folder(catalogue)
    total = 0
    for pixel in read_pixels(root):
        with open_parquet(root / "dataset" / pixel.path) as file:
            total += file.metadata.num_rows
    return total


def facts_of(catalogue: Path) -> dict[str, Any] | None:
    """
    What is known of a catalogue's index; None where it has none.

    Raises
    ------
    ConfigError
        It is of other vectors than the catalogue has now.
    """
    path = catalogue / names.INDEX / FACTS
    if not path.exists():
        return None
    facts: dict[str, Any] = read_json(path)
    root, files = vectors_folder(catalogue), facts["files"]
    now = _same(root, files)
    if now is None:
        raise ConfigError(
            "the index is of other vectors than the catalogue has now; build it anew by --reindex",
            index=str(path.parent),
            made=facts["made"],
        )
    if now != files:
        facts["files"] = now
        with contextlib.suppress(OSError):  # a catalogue may be read-only: its vectors are then read again each time
            write_json(path, facts)
    return facts


def most_similar_by_index(catalogue: Path, vector: NDArray[np.floating], k: int) -> pa.Table:
    """
    As `lenspipe.catalog.similar.most_similar`, of the rows that the index finds; cosines are exact.

    The index is read from the disk where it lies: memory does not grow with the catalogue.
    """
    found = _usearch().Index.restore(catalogue / names.INDEX / GRAPH, view=True)
    if found.ndim != len(vector):
        raise ConfigError("the catalogue's vectors are of another size", has=found.ndim, got=len(vector))
    rows, cosines = _search(found, np.asarray(vector, np.float32)[None], k, threads=1)
    return rows_at(catalogue, rows[0], cosines[0])


def files_of(catalogue: Path) -> dict[str, dict[str, Any]]:
    """Checksum, size and time of each file of a catalogue's vectors, by its path in their tree."""
    root = vectors_folder(catalogue)
    found = {}
    for pixel in read_pixels(root):
        path = root / "dataset" / pixel.path
        found[pixel.path] = {"sha256": _sha256(path), **_stat(path)}
    return found


def _same(root: Path, files: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]] | None:
    """These files with the times that they have now, or None for others; of the same size and time none is read."""
    if {pixel.path for pixel in read_pixels(root)} != set(files):
        return None
    found = {}
    for name, was in files.items():
        path = root / "dataset" / name
        now = _stat(path)
        if now["bytes"] != was["bytes"] or (now["mtime_ns"] != was["mtime_ns"] and _sha256(path) != was["sha256"]):
            return None
        found[name] = was | now
    return found


def _stat(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _recall(catalogue: Path, index: Index, n_row: int, threads: int) -> dict[str, Any]:
    """Part of the true nearest that the index finds, the row itself left out, over rows drawn evenly."""
    k = min(RECALL_OF, max(1, len(index) - 1))
    wanted = np.linspace(0, n_row - 1, min(QUERIES, n_row)).astype(np.uint64)
    wanted = wanted[np.asarray(index.contains(wanted))]
    asked = np.asarray(index.get(wanted), np.float32)
    blocks = blocks_of(catalogue, block=max(1, BLOCK // 4))  # cosines of all that ask with a block: 13 MB
    _, true = nearest(blocks, asked, k + 1)
    _, found = _search(index, asked, k + 1, threads)
    # by cosines, the row itself left out: one of several equal vectors is as near as another
    shared = ((found >= true[:, -1:] - EQUAL).sum(axis=1) - 1) / k
    return {
        "recall": float(shared.mean()),
        "recall_err": float(shared.std(ddof=1) / np.sqrt(len(shared))) if len(shared) > 1 else None,
        "recall_of": k,
        "recall_rows": len(shared),
    }


def _search(
    index: Index, asked: NDArray[np.float32], k: int, threads: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and cosines ``(m, k)`` by the index, ordered by the exact cosines of the stored numbers."""
    index.expansion_search = max(EXPANSION_SEARCH, 2 * k)
    k = min(k, len(index))
    found = index.search(asked.astype(np.float16), k, threads=threads)
    rows = np.asarray(found.keys, np.int64).reshape(len(asked), -1)
    cosines = np.empty(rows.shape, np.float32)
    for i, line in enumerate(rows):
        near, cosines[i] = nearest([np.asarray(index.get(line.astype(np.uint64)), np.float16)], asked[i : i + 1], k)
        rows[i] = line[near[0]]
    return rows, cosines


def _usearch() -> Any:
    try:
        from usearch import index
    except ImportError as error:
        raise ConfigError(
            "an index needs the package usearch: pip install 'lenspipe[index]'; or compare every vector by --exact"
        ) from error
    return index
