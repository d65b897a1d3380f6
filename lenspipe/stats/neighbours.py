"""What vectors tell of labels: votes of the nearest neighbours, and a linear probe, at parts of the labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval
from lenspipe.stats.intervals import clopper_pearson

K, SHARPNESS = 20, 0.07
"""Neighbours that vote, and the temperature of their votes (Wu et al. 2018)."""
BLOCK = 1024
Array = NDArray[np.float64]


def unit(vectors: NDArray[np.floating]) -> Array:
    """Vectors ``(n, size)`` over their length; one of zeros stays as it is."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0), np.float64)


def votes(
    query: NDArray[np.floating],
    known: NDArray[np.floating],
    labels: NDArray[np.integer],
    n_class: int,
    *,
    k: int = K,
    itself: bool = False,
) -> Array:
    """
    Share of each class in the votes of the k nearest by direction, weighted by ``exp(cosine / 0.07)`` [1]_.

    Parameters
    ----------
    query : array (n, size)
    known : array (m, size)
        Vectors with a label.
    labels : array (m,)
        Class of each, 0 to ``n_class - 1``.
    n_class : int
    k : int
        Neighbours; all where there are fewer.
    itself : bool
        Whether ``query`` is ``known``: then no vector votes for itself.

    Returns
    -------
    array (n, class)
        Each row sums to 1.

    References
    ----------
    .. [1] Wu et al. 2018, CVPR, 3733.
    """
    query, known = unit(query), unit(known)
    k = min(k, len(known) - itself)
    out = np.empty((len(query), n_class))
    for start in range(0, len(query), BLOCK):
        near = query[start : start + BLOCK] @ known.T
        if itself:
            here = np.arange(len(near))
            near[here, start + here] = -np.inf
        best = np.argsort(-near, axis=1, kind="stable")[:, :k]
        weight = np.exp((np.take_along_axis(near, best, 1) - 1) / SHARPNESS)
        for c in range(n_class):
            out[start : start + BLOCK, c] = (weight * (labels[best] == c)).sum(axis=1)
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def nearest(vectors: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Rows of the k nearest by direction of each of ``(n, size)``, itself left out, the nearest first ``(n, k)``."""
    there = unit(vectors)
    k = min(k, len(there) - 1)
    out = np.empty((len(there), k), np.int64)
    for start in range(0, len(there), BLOCK):
        near = there[start : start + BLOCK] @ there.T
        here = np.arange(len(near))
        near[here, start + here] = -np.inf
        out[start : start + BLOCK] = np.argsort(-near, axis=1, kind="stable")[:, :k]
    return out


def linear_probe(
    query: NDArray[np.floating], known: NDArray[np.floating], labels: NDArray[np.integer], n_class: int
) -> Array:
    """
    Class probabilities ``(n, class)`` of a logistic regression on standardised vectors; arrays as of `votes`.

    Classes have equal weight. A class without a labelled vector has probability 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(known, labels)
    out = np.zeros((len(query), n_class))
    out[:, model.classes_.astype(int)] = model.predict_proba(query)
    return out


def told(scores: Array, labels: NDArray[np.integer]) -> dict[str, Any]:
    """
    Area under the ROC curve and accuracy of class scores, each with its 95 % interval.

    The area is that of all pairs of row and class (micro average), with DeLong's interval as wide as if each row were
    one draw; the interval of the accuracy is Clopper and Pearson's.
    """
    n_class = scores.shape[1]
    counts = ScoreCounts.of(scores.ravel(), (labels[:, None] == np.arange(n_class)).ravel())
    area, (low, high), widen = auroc(counts), auroc_interval(counts), float(np.sqrt(n_class))
    right = int((scores.argmax(axis=1) == labels).sum())
    return {
        "auc": area,
        "auc_interval95": [max(0.0, area - (area - low) * widen), min(1.0, area + (high - area) * widen)],
        "accuracy": right / len(labels),
        "accuracy_interval95": list(clopper_pearson(right, len(labels))),
    }


def labelled_part(labels: NDArray[np.integer], fraction: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of a part of the labels, the same part of each class, one row at least."""
    place, kept = rng.random(len(labels)), []
    for value in np.unique(labels):
        rows = np.flatnonzero(labels == value)
        kept.append(rows[np.argsort(place[rows])[: max(1, round(fraction * len(rows)))]])
    return np.sort(np.concatenate(kept))


def uniformity(vectors: NDArray[np.floating]) -> float:
    """
    Logarithm of the mean of ``exp(-2 |a - b|^2)`` over pairs of unit vectors (Wang & Isola 2020, equation 5).

    0 where all are one (a collapse); about -4 where they are spread evenly over a sphere of many dimensions.
    """
    there = unit(vectors)
    square = np.clip(2 - 2 * there @ there.T, 0, None)[np.triu_indices(len(there), 1)]
    return float(np.log(np.exp(-2 * square).mean()))


def at_parts(
    query: NDArray[np.floating],
    answers: NDArray[np.integer],
    known: NDArray[np.floating],
    labels: NDArray[np.integer],
    n_class: int,
    *,
    parts: Sequence[float],
    seed: int,
) -> list[dict[str, Any]]:
    """
    What neighbours and a linear probe tell with parts of the labels.

    Parameters
    ----------
    query, answers : arrays (n, size) and (n,)
        Vectors to be told, and their classes.
    known, labels : arrays (m, size) and (m,)
        Vectors to learn from, and their classes.
    n_class : int
    parts : sequence of float
        Parts of the labels.
    seed : int
        Which labels; a smaller part lies within a larger one.

    Returns
    -------
    list of dict
        Per part ``part``, ``n_label``, and ``knn`` and ``linear`` as of `told`.
    """
    rows = []
    for part in parts:
        some = labelled_part(labels, part, np.random.default_rng(seed))
        rows.append(
            {
                "part": part,
                "n_label": len(some),
                "knn": told(votes(query, known[some], labels[some], n_class), answers),
                "linear": told(linear_probe(query, known[some], labels[some], n_class), answers),
            }
        )
    return rows
