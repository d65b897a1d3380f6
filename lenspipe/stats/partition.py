"""How well clusters agree with labels: accuracy under the best assignment, mutual information, adjusted Rand index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
DRAWS = 400
"""Tables that are drawn for an interval."""


def contingency(labels: NDArray[np.integer], clusters: NDArray[np.integer], n_label: int, n_cluster: int) -> Counts:
    """Stamps ``(label, cluster)`` of labels and clusters ``(n,)``."""
    table = np.zeros((n_label, n_cluster), np.int64)
    np.add.at(table, (labels, clusters), 1)
    return table


def best_assignment(table: Counts) -> NDArray[np.int64]:
    """
    Label of each cluster ``(cluster,)``, each at most once, with the most stamps right (Kuhn 1955); -1 for none.

    Examples
    --------
    >>> best_assignment(np.array([[1, 9, 2], [8, 3, 1]]))
    array([ 1,  0, -1])
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(table, maximize=True)
    label = np.full(table.shape[1], -1, np.int64)
    label[columns] = rows
    return label


def right_under(table: Counts, label: NDArray[np.integer]) -> int:
    """Stamps whose label is that of their cluster."""
    known = np.flatnonzero(label >= 0)
    return int(table[label[known], known].sum())


def mutual_information(table: Counts) -> float:
    """
    Mutual information over the mean of both entropies (Strehl & Ghosh 2002), 0 to 1; 1 where there is one of each.

    Examples
    --------
    >>> mutual_information(np.array([[5, 0], [0, 5]])), mutual_information(np.array([[5, 5], [5, 5]]))
    (1.0, 0.0)
    """
    p = table / table.sum()
    label, cluster = p.sum(axis=1), p.sum(axis=0)
    there = p > 0
    shared = float((p[there] * np.log(p[there] / np.outer(label, cluster)[there])).sum())
    mean = (_entropy(label) + _entropy(cluster)) / 2
    return max(0.0, shared / mean) if mean > 0 else 1.0


def _entropy(p: Array) -> float:
    some = p[p > 0]
    return float(-(some * np.log(some)).sum())


def adjusted_rand(table: Counts) -> float:
    """
    Adjusted Rand index (Hubert & Arabie 1985, equation 5): 1 for the same partition, 0 on average for a random one.

    Examples
    --------
    >>> adjusted_rand(np.array([[5, 0], [0, 5]]))
    1.0
    """
    pairs = float((table * (table - 1.0)).sum() / 2)
    of_labels, of_clusters = (float((n * (n - 1.0)).sum() / 2) for n in (table.sum(axis=1), table.sum(axis=0)))
    n = int(table.sum())
    expected = of_labels * of_clusters / (n * (n - 1) / 2) if n > 1 else 0.0
    most = (of_labels + of_clusters) / 2
    return (pairs - expected) / (most - expected) if most != expected else 1.0


def agreement(table: Counts, label: NDArray[np.integer] | None = None) -> dict[str, Any]:
    """
    Accuracy under an assignment, ``nmi`` and ``ari`` of a table ``(label, cluster)``, each with its 95 % interval.

    The intervals are quantiles over tables drawn anew with the counts as their chances; the assignment is kept, which
    is the best one of the table where none is given.
    """
    there = best_assignment(table) if label is None else label
    n, rng = int(table.sum()), np.random.default_rng(0)
    drawn = rng.multinomial(n, (table / n).ravel(), size=DRAWS).reshape(-1, *table.shape)
    found: dict[str, Any] = {}
    for name, of in (
        ("accuracy", lambda one: right_under(one, there) / n),
        ("nmi", mutual_information),
        ("ari", adjusted_rand),
    ):
        found[name] = of(table)
        found[f"{name}_interval95"] = [float(x) for x in np.quantile([of(one) for one in drawn], (0.025, 0.975))]
    return found
