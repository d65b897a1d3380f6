"""In which order an epoch shows the stamps of a data set: shuffled by windows, classes balanced, large lenses first."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """Rows in the order in which they are shown, and the window of row groups that each comes from."""

    rows: Rows
    """Row numbers; one may come twice."""
    windows: Rows
    """Number of each row's window, rising."""

    def share(self, rank: int, n_worker: int) -> Order:
        """
        A worker's part: one run of the whole, so that workers read different row groups.

        Runs are of equal length where the number of rows is a multiple of that of the workers.
        """
        edges = np.arange(n_worker + 1) * len(self.rows) // n_worker
        part = slice(int(edges[rank]), int(edges[rank + 1]))
        return Order(self.rows[part], self.windows[part])

    def blocks(self, batch_size: int) -> list[Rows]:
        """Runs of whole batches, one a window: what is read at a time. Only the last may end within a batch."""
        ends = (np.flatnonzero(np.diff(self.windows)) + 1) // batch_size * batch_size
        edges = np.unique(np.concatenate([[0], ends, [len(self.rows)]]))
        return [self.rows[a:b] for a, b in itertools.pairwise(edges)]


def in_turn(rows: Rows, group_starts: Rows, window: int) -> Order:
    """Rows as they come, without a shuffle."""
    return Order(rows, (np.searchsorted(group_starts, rows, side="right") - 1) // window)


def epoch_order(
    rows: Rows, weights: NDArray[np.float64], group_starts: Rows, *, n_total: int, window: int, seed: int, epoch: int
) -> Order:
    """
    Row numbers of an epoch in the order of training.

    Every row comes ``n_total * weight / sum of weights`` times, rounded up or down at random such that there are
    ``n_total`` in all (systematic resampling); equal weights and as many places as rows give each row once. Row
    groups are drawn in random order, ``window`` of them at a time, and the rows of a window are shuffled: a reader
    holds one window and reads every group once, whatever the size of the data set.

    Parameters
    ----------
    rows : array (n,), rising
        Rows that may be shown.
    weights : array (n,)
        How often each is shown, relatively; at least one is positive.
    group_starts : array (group,), rising
        First row of each row group.
    n_total : int
        Places in the epoch.
    window : int
        Row groups that are shuffled together.
    seed, epoch : int
        The same pair gives the same order.

    Examples
    --------
    >>> rows = np.arange(6)
    >>> order = epoch_order(rows, np.ones(6), np.array([0, 3]), n_total=6, window=1, seed=1, epoch=0)
    >>> sorted(order.rows.tolist()), sorted(order.rows[:3].tolist()) in ([0, 1, 2], [3, 4, 5])
    ([0, 1, 2, 3, 4, 5], True)
    """
    rng = np.random.default_rng([seed, 31, epoch])
    place = rng.permutation(len(rows))  # so that no class or file lines up with the steps of the resampling
    steps = np.cumsum(weights[place])
    edges = np.floor(steps * (n_total / steps[-1]) + rng.uniform(1e-6, 1 - 1e-6)).astype(np.int64)
    edges[-1] = n_total
    counts = np.empty(len(rows), np.int64)
    counts[place] = np.diff(edges, prepend=0)
    shown = np.repeat(rows, counts)
    group = np.searchsorted(group_starts, shown, side="right") - 1
    turn = rng.permutation(len(group_starts))
    windows = turn[group] // window
    order = np.lexsort((rng.random(len(shown)), windows))
    return Order(shown[order], windows[order])


def class_weights(labels: NDArray[np.integer], allowed: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Weights that give each class present the same sum; 0 where a row is not allowed."""
    use = np.ones(len(labels), bool) if allowed is None else allowed
    classes, inverse, counts = np.unique(labels[use], return_inverse=True, return_counts=True)
    weights = np.zeros(len(labels))
    weights[use] = 1.0 / (len(classes) * counts[inverse])
    return weights


def shared_weights(
    labels: NDArray[np.integer],
    data_set: NDArray[np.integer],
    shares: NDArray[np.floating],
    allowed: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """
    Weights that give each class present the same sum, and within each class the data sets their shares of it.

    A data set without rows of a class has none of it, and the others share. Rows that are not allowed weigh 0. Where
    classes are not balanced, call it with labels that are all the same.

    Examples
    --------
    >>> shared_weights(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.array([1.0, 3.0]))
    array([0.125, 0.375, 0.25 , 0.25 ])
    """
    use = np.ones(len(labels), bool) if allowed is None else allowed
    weights = np.zeros(len(labels))
    classes = np.unique(labels[use])
    for one in classes:
        of_class = use & (labels == one)
        counts = np.bincount(data_set[of_class], minlength=len(shares))
        parts = np.where(counts > 0, shares, 0.0)
        parts /= parts.sum() * len(classes)
        weights[of_class] = (parts / np.maximum(counts, 1))[data_set[of_class]]
    return weights


def curriculum_mask(values: NDArray[np.floating], *, epoch: int, start: float, epochs: int) -> NDArray[np.bool_]:
    """
    Which rows a curriculum admits: of those with a value the largest, first a part ``start``, all after ``epochs``.

    Rows without a value (NaN), such as stamps that are no lens, are always admitted.
    """
    known = np.isfinite(values)
    part = start + (1 - start) * min(1.0, epoch / epochs)
    if part >= 1 or not known.any():
        return np.ones(len(values), bool)
    least = np.quantile(values[known], 1 - part)
    return ~known | (np.where(known, values, -np.inf) >= least)
