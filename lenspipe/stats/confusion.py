"""Confusion of classes: two at a threshold, several by the most probable."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import DataError
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import roc


def at_threshold(counts: ScoreCounts, threshold: float, *, beta: float = 1.0) -> dict[str, Any]:
    """
    Confusion and what follows from it where sources with ``score >= threshold`` are called lenses.

    Returns
    -------
    dict
        ``threshold``, ``tp``, ``fp``, ``tn``, ``fn``, ``accuracy``, ``precision``, ``recall``, ``f1``, ``f_beta``,
        ``beta``; a ratio of nothing is null.
    """
    tp, fp = counts.above(threshold)
    return {"threshold": threshold, **ratios(tp, fp, counts.n_other - fp, counts.n_lens - tp, beta=beta)}


def ratios(tp: int, fp: int, tn: int, fn: int, *, beta: float = 1.0) -> dict[str, Any]:
    """
    Accuracy, precision, recall, F1 and F_beta of a confusion of two classes; null where one divides by nothing.

    F_beta = (1 + beta^2) P R / (beta^2 P + R), written in counts; a small beta weighs precision.

    Examples
    --------
    >>> found = ratios(8, 2, 88, 2)
    >>> found["precision"], found["recall"], found["f1"], found["accuracy"]
    (0.8, 0.8, 0.8, 0.96)
    """
    f_of = {b: _ratio((1 + b**2) * tp, (1 + b**2) * tp + b**2 * fn + fp) for b in (1.0, beta)}
    return {
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "accuracy": _ratio(tp + tn, tp + fp + tn + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": f_of[1.0],
        "f_beta": f_of[beta],
        "beta": beta,
    }


def best_f_beta(counts: ScoreCounts, *, beta: float) -> dict[str, Any]:
    """Confusion at the threshold with the highest F_beta; it is chosen on the same scores, so it flatters."""
    false, true, threshold = roc(counts)
    b2 = beta**2
    f = (1 + b2) * true / np.maximum((1 + b2) * true + b2 * (counts.n_lens - true) + false, 1e-300)
    best = int(np.argmax(f[1:])) + 1
    return at_threshold(counts, float(threshold[best]), beta=beta)


class ClassCounts:
    """
    Stamps by true and by most probable class; adds up.

    Parameters
    ----------
    matrix : int array (class, class)
        Rows are the truth, columns what was said.
    """

    def __init__(self, matrix: NDArray[np.int64]) -> None:
        self.matrix = np.asarray(matrix, np.int64)

    @classmethod
    def of(cls, probability: ArrayLike, truth: ArrayLike) -> ClassCounts:
        """
        Count probabilities ``(n, class)`` by true class ``(n,)``; where two tie at the top, the first is said.

        Raises
        ------
        DataError
            A true class is none of the columns.
        """
        p, t = np.asarray(probability, float), np.asarray(truth, np.int64)
        n_class = p.shape[1]
        if len(t) and (t.min() < 0 or t.max() >= n_class):
            raise DataError("a true class is none of the model's", lowest=int(t.min()), highest=int(t.max()))
        matrix = np.zeros((n_class, n_class), np.int64)
        np.add.at(matrix, (t, p.argmax(axis=1)), 1)
        return cls(matrix)

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(self.matrix + other.matrix)

    def of_class(self, k: int) -> dict[str, Any]:
        """Confusion of one class against the rest."""
        tp = int(self.matrix[k, k])
        fp, fn = int(self.matrix[:, k].sum()) - tp, int(self.matrix[k].sum()) - tp
        return ratios(tp, fp, int(self.matrix.sum()) - tp - fp - fn, fn)

    @property
    def accuracy(self) -> float:
        """Part of the stamps whose class was said; with one class a stamp, also micro precision, recall and F1."""
        return float(np.trace(self.matrix) / self.matrix.sum())


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
