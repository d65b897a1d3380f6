"""Detections of one object from overlapping tiles, shards and runs become one row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lenspipe.errors import ConfigError
from lenspipe.sky.sphere import chord, unit_vectors

EDGE = 2
"""Bit of ``flags`` for a source cut by the edge of the tile."""


@dataclasses.dataclass(frozen=True, eq=False)
class Merged:
    """For each row, the row that stands for it; itself where it stays."""

    stands_for: NDArray[np.int64]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Rows that stay."""
        return self.stands_for == np.arange(len(self.stands_for))

    def counts(self, weight: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum of ``weight`` over the rows that each row stands for; 0 for rows that go."""
        total = np.zeros(len(weight), np.int64)
        np.add.at(total, self.stands_for, weight)
        return total


def merge_duplicates(table: pa.Table, *, radius_arcsec: float) -> Merged:
    """
    Find the rows that show an object that a better row shows too.

    From the best row on, a row takes from every other shard (of any run) the nearest row within the radius that is
    still free. Two sources of one shard are never merged: the detection told them apart. Rows are better that are
    scored, not cut by an edge, less masked, better covered, deeper (smaller errors of the flux); the score itself has
    no say, for the best of several scores is biased high. Equal rows are ordered by identifier, so that the result
    does not depend on the order of rows.

    Parameters
    ----------
    table : pa.Table
        Rows with ``ra``, ``dec`` (deg), ``run_id``, ``shard_id``, ``candidate_id`` and the columns of quality.
    radius_arcsec : float
        Radius, positive.

    Returns
    -------
    Merged

    Raises
    ------
    ConfigError
        The radius is not positive, or a position is not finite.
    """
    if not 0 < radius_arcsec < 3600:
        raise ConfigError("the radius of merging must lie between 0 and 3600 arcsec", radius_arcsec=radius_arcsec)
    stands_for = np.arange(table.num_rows)
    if table.num_rows < 2:
        return Merged(stands_for)
    demand_positions(table)
    positions = unit_vectors(table["ra"].to_numpy(), table["dec"].to_numpy())
    tree = cKDTree(positions, balanced_tree=False, compact_nodes=False)
    pairs = tree.query_pairs(chord(radius_arcsec), output_type="ndarray").astype(np.int64)
    if not len(pairs):
        return Merged(stands_for)
    rows, pairs = _only(np.unique(pairs), pairs)
    some = table.take(pa.array(rows))
    shard = _shard_number(some)
    pairs = pairs[shard[pairs[:, 0]] != shard[pairs[:, 1]]]
    apart = np.linalg.norm(positions[rows[pairs[:, 0]]] - positions[rows[pairs[:, 1]]], axis=1)
    stands_for[rows] = rows[_greedy(pairs, apart, shard, _quality_rank(some))]
    return Merged(stands_for)


def demand_positions(table: pa.Table) -> None:
    """
    Refuse rows without a position.

    Raises
    ------
    ConfigError
        ``ra`` or ``dec`` of a row is not finite; its ``candidate_id`` is said.
    """
    bad = ~(np.isfinite(table["ra"].to_numpy()) & np.isfinite(table["dec"].to_numpy()))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ConfigError("a row has no position", candidate_id=table["candidate_id"][first].as_py())


def _only(rows: NDArray[np.int64], pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs renumbered to positions in ``rows``."""
    return rows, np.searchsorted(rows, pairs)


def _shard_number(table: pa.Table) -> NDArray[np.int64]:
    both = pc.binary_join_element_wise(table["run_id"].cast(pa.string()), table["shard_id"].cast(pa.string()), "\n")
    return both.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _quality_rank(table: pa.Table) -> NDArray[np.int64]:
    """Place of each row in the order of quality, 0 the best."""
    errors = [name for name in table.column_names if name.startswith("flux_err_")]
    keys = {
        "unscored": pc.cast(pc.is_null(table["score"], nan_is_null=True), pa.int8()),
        "edge": pc.bit_wise_and(pc.fill_null(table["flags"], 0), EDGE),
        "masked": pc.fill_null(table["mask_fraction"], 1.0),
        "uncovered": pc.subtract(1.0, pc.fill_null(table["covered_fraction"], 0.0)),
        "error": pa.array(sum((_error(table[name]) for name in errors), np.zeros(table.num_rows))),
        "candidate_id": table["candidate_id"].cast(pa.string()),
        "run_id": table["run_id"].cast(pa.string()),
    }
    order = pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys]).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _error(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Flux errors; infinite where a band has none."""
    values = column.to_numpy().astype(float)
    return np.where(np.isfinite(values), values, np.inf)


def _greedy(
    pairs: NDArray[np.int64], apart: NDArray[np.floating], shard: NDArray[np.int64], rank: NDArray[np.int64]
) -> NDArray[np.int64]:
    n = len(shard)
    stands_for = np.arange(n)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, group = connected_components(graph, directed=False)
    size = np.bincount(group)
    two = size[group[pairs[:, 0]]] == 2  # nearly all: settled at once
    first, second = pairs[two, 0], pairs[two, 1]
    better = np.where(rank[first] < rank[second], first, second)
    stands_for[np.where(better == first, second, first)] = better
    near: dict[int, list[tuple[float, int, int]]] = {}
    for (i, j), distance in zip(pairs[~two].tolist(), apart[~two].tolist(), strict=True):
        near.setdefault(i, []).append((distance, int(rank[j]), j))
        near.setdefault(j, []).append((distance, int(rank[i]), i))
    free = set(near)
    for i in sorted(near, key=lambda row: rank[row]):
        if i not in free:
            continue
        free.discard(i)
        taken = set()
        for _, _, j in sorted(near[i]):
            if j in free and shard[j] not in taken:
                taken.add(shard[j])
                free.discard(j)
                stands_for[j] = i
    return stands_for
