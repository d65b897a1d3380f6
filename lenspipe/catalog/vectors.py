"""Vectors of candidates beside a run's tables, and beside a catalogue as a tree on the same pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.catalog.columns import HEALPIX, RUN_ID
from lenspipe.catalog.executor import Executor
from lenspipe.catalog.hats import Pixel, read_pixels, write_metadata, write_pixel
from lenspipe.errors import ConfigError
from lenspipe.schema import EMBEDDING
from lenspipe.tables import open_parquet, read_parquet, read_schema

EMBEDDINGS, GROUP_ROWS = "embeddings.parquet", 8192
"""A run's vectors, in the order of their identifiers, and rows of a group: what is read for one of them."""
_KEYS = [HEALPIX, "candidate_id", "run_id", "ra", "dec"]


def vectors_of(file: Path, candidate_ids: Sequence[str]) -> pa.FixedSizeListArray:
    """
    Vectors of candidates, in their order; null where there is none.

    Only row groups between whose identifiers one of them lies are read.
    """
    wanted, place = np.array(candidate_ids, object), pa.array(candidate_ids, pa.string())
    order = np.sort(wanted.astype(str))
    with open_parquet(file) as opened:
        kind = opened.schema_arrow.field(EMBEDDING).type
        found, rows = [pa.array([], kind)], np.full(len(wanted), -1)
        n_found = 0
        for group in range(opened.num_row_groups):
            stated = opened.metadata.row_group(group).column(0).statistics
            if stated is not None and stated.has_min_max:
                low, high = np.searchsorted(order, stated.min, "left"), np.searchsorted(order, stated.max, "right")
                if low == high:
                    continue
            ids = opened.read_row_group(group, columns=["candidate_id"])["candidate_id"].combine_chunks()
            index = pc.index_in(place, ids)
            here = index.is_valid().to_numpy(zero_copy_only=False)
            if here.any():
                of_group = opened.read_row_group(group, columns=[EMBEDDING])[EMBEDDING].combine_chunks()
                found.append(of_group.take(index.drop_null()))
                rows[here] = n_found + np.arange(here.sum())
                n_found += int(here.sum())
    return pa.concat_arrays(found).take(pa.array(rows, mask=rows < 0))


def as_numbers(vectors: pa.Array | pa.ChunkedArray) -> NDArray[np.float16]:
    """Vectors ``(n, size)``; NaN where one is missing."""
    column = vectors.combine_chunks() if isinstance(vectors, pa.ChunkedArray) else vectors
    size = column.type.list_size
    whole = pc.fill_null(column, pa.scalar([np.nan] * size, column.type)) if column.null_count else column
    return np.asarray(whole.flatten().to_numpy(zero_copy_only=False), np.float16).reshape(-1, size)


def check_same_embedding(run: dict[str, Any], before: Sequence[dict[str, Any]]) -> None:
    """
    Refuse a run whose vectors cannot be compared with those of runs before it, by their records.

    Raises
    ------
    ConfigError
        Another model made those.
    """
    mine = run.get("embedder")
    for entry in before:
        was = entry.get("embedder")
        if mine and was and mine["digest"] != was["digest"]:
            raise ConfigError(
                "the vectors in the catalogue are of another embedding and cannot be compared; scan with the same "
                "--embed, or give the run a catalogue of its own",
                catalogue=was["digest"],
                run=mine["digest"],
            )


@dataclasses.dataclass(frozen=True)
class _Work:
    """Writes the vectors of one pixel."""

    tree: Path
    """Of the catalogue's rows."""
    out: Path
    run_id: str
    run_file: Path | None
    """Vectors of the run that is added; None where it has none."""
    old: Path | None
    """Tree of the vectors of runs before it."""
    schema: pa.Schema

    def __call__(self, pixel: Pixel) -> int:
        """Number of vectors."""
        rows = read_parquet(self.tree / "dataset" / pixel.path, columns=_KEYS)
        is_new = pc.equal(rows["run_id"], self.run_id).to_numpy(zero_copy_only=False)
        vectors = pa.nulls(rows.num_rows, self.schema.field(EMBEDDING).type)
        if self.run_file is not None and is_new.any():
            mine = vectors_of(self.run_file, rows["candidate_id"].filter(pa.array(is_new)).to_pylist())
            vectors = _put(vectors, is_new, mine)
        if self.old is not None and not is_new.all():
            vectors = _put(vectors, ~is_new, self._earlier(rows.filter(pa.array(~is_new)), pixel))
        write_pixel(self.out / "dataset", pixel, rows.append_column(EMBEDDING, vectors).cast(self.schema))
        return len(vectors) - int(vectors.null_count)

    def _earlier(self, rows: pa.Table, pixel: Pixel) -> pa.Array:
        assert self.old is not None
        low, high = pixel.span
        near = [p for p in read_pixels(self.old) if p.span[0] < high and p.span[1] > low]
        columns = ["candidate_id", "run_id", EMBEDDING]
        tables = [read_parquet(self.old / "dataset" / p.path, columns=columns) for p in near]
        if not tables:
            return pa.nulls(rows.num_rows, self.schema.field(EMBEDDING).type)
        there = pa.concat_tables(tables).combine_chunks()
        return there[EMBEDDING].combine_chunks().take(pc.index_in(_key(rows), _key(there)))


def _key(rows: pa.Table) -> pa.Array:
    joined = pc.binary_join_element_wise(rows["run_id"], rows["candidate_id"], " ")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _put(vectors: pa.Array, where: NDArray[np.bool_], values: pa.Array) -> pa.Array:
    """``vectors`` with ``values`` in the rows that are ``where``."""
    place = np.arange(len(vectors))
    place[where] = len(vectors) + np.arange(int(where.sum()))
    return pa.concat_arrays([vectors, values]).take(pa.array(place))


def write_vectors(
    tree: Path,
    out: Path,
    *,
    run_id: str,
    run_file: Path | None,
    old: Path | None,
    name: str,
    executor: Executor,
    scratch: Path,
) -> int:
    """
    Write the vectors of a catalogue's rows as a HATS tree of the same pixels, row by row beside theirs.

    Parameters
    ----------
    tree : Path
        HATS tree of the rows.
    out : Path
        Folder to make.
    run_id, run_file : str and Path
        The run that is added, and its vectors.
    old : Path, optional
        Tree of the vectors of the runs before it.
    name : str
        Name of the collection.
    executor : Executor
        Carries out a task per pixel.
    scratch : Path
        Folder that all tasks see.

    Returns
    -------
    int
        Vectors that were written; rows of none have NaN.
    """
    if run_file is not None:
        vector = read_schema(run_file).field(EMBEDDING)
    else:
        assert old is not None
        vector = read_schema(old / "dataset" / "_common_metadata").field(EMBEDDING)
    of_rows = read_schema(tree / "dataset" / "_common_metadata")
    schema = pa.schema([*(RUN_ID if n == "run_id" else of_rows.field(n) for n in _KEYS), vector])
    work = _Work(tree, out, run_id, run_file, old, schema)
    pixels = read_pixels(tree)
    (out / "dataset").mkdir(parents=True)
    n_vector = sum(n for _, n in executor.each("vectors", work, pixels, scratch=scratch))
    write_metadata(out, schema, pixels, name=f"{name}_embedding")
    return n_vector
