"""All numbers of a report: of a finder, of a classifier, of a regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import DataError
from lenspipe.nn.outputs import Calibration
from lenspipe.stats import curves
from lenspipe.stats.calibrate import probability
from lenspipe.stats.confusion import ClassCounts, at_threshold, best_f_beta
from lenspipe.stats.counts import ScoreCounts, Tally, sum_counts
from lenspipe.stats.reliability import reliability


def finder_metrics(
    counts: ScoreCounts, *, threshold: float = 0.5, beta: float = 1.0, calibration: Calibration | None = None
) -> dict[str, Any]:
    """
    Every number about a finder that its scores give.

    Parameters
    ----------
    counts : ScoreCounts
        Scores of both classes.
    threshold : float
        From this score on a source is called a lens, for the confusion and what follows from it.
    beta : float
        Weight of recall in F_beta.
    calibration : Calibration, optional
        Adds the reliability of its probabilities, at the fraction of lenses in these data.

    Raises
    ------
    DataError
        A class is empty.
    """
    if not (counts.n_lens and counts.n_other):
        raise DataError(
            "stamps of one class only: a finder is judged by lenses and others",
            n_lens=counts.n_lens,
            n_other=counts.n_other,
        )
    first, tenth = curves.tpr0(counts), curves.tpr10(counts)
    raw = reliability(counts)
    out: dict[str, Any] = {
        "n_lens": counts.n_lens,
        "n_other": counts.n_other,
        "auroc": curves.auroc(counts),
        "auroc_interval95": list(curves.auroc_interval(counts)),
        "auroc_error_max": curves.auroc_error_max(counts),
        "tpr0": first["value"],
        "tpr10": tenth["value"],
        "tpr0_detail": first,
        "tpr10_detail": tenth,
        "tpr_at_fpr": {curves.rate_name(rate): curves.tpr_at_fpr(counts, rate) for rate in curves.RATES},
        **at_threshold(counts, threshold, beta=beta),
        "best_f_beta": best_f_beta(counts, beta=beta),
        "ece": raw["ece"],
        "reliability": raw,
        "calibrated": None,
    }
    if calibration is not None:
        prior = counts.n_lens / (counts.n_lens + counts.n_other)
        prior = min(max(prior, 1e-12), 1 - 1e-12)
        stated = reliability(counts, probability(counts.scores, calibration, prior))
        out["calibrated"] = {"method": calibration.method, "prior": prior, **stated}
    return out


def thresholds_of(metrics: dict[str, Any]) -> dict[str, float | None]:
    """The thresholds of the measurable false positive rates, and the chosen one, by name."""
    rates = metrics["tpr_at_fpr"]
    found = {f"fpr {name}": rate["threshold"] for name, rate in rates.items() if rate["value"] is not None}
    return {**found, f"score {metrics['threshold']:g}": metrics["threshold"]}


class ClassTally:
    """
    Probabilities of several classes, added up batch by batch.

    Attributes
    ----------
    classes : tuple of str
    confusion : ClassCounts
    one_vs_rest : list of Tally
        Scores of each class against all others.
    top : Tally
        The highest probability, and whether it was right.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        n = len(self.classes)
        self.confusion = ClassCounts(np.zeros((n, n), np.int64))
        self.one_vs_rest = [Tally() for _ in self.classes]
        self.top = Tally()

    def add(self, probability: NDArray[np.float64], truth: ArrayLike) -> None:
        """Count probabilities ``(n, class)`` with the true class ``(n,)``."""
        index = np.asarray(truth, np.int64)
        self.confusion = self.confusion + ClassCounts.of(probability, index)
        for k, tally in enumerate(self.one_vs_rest):
            tally.add(probability[:, k], index == k)
        self.top.add(probability.max(axis=1).clip(0, 1), probability.argmax(axis=1) == index)

    def metrics(self) -> dict[str, Any]:
        """
        Accuracy with its confusion matrix, and AUROC of each class against the rest, micro and macro.

        Macro is the mean over classes; micro ranks all pairs of stamp and class at once. A class without stamps, or
        the only one with any, has no AUROC, and macro is over the others.

        Raises
        ------
        DataError
            All stamps are of one class.
        """
        per_class = {}
        for k, name in enumerate(self.classes):
            counts = self.one_vs_rest[k].total
            measured = counts.n_lens > 0 and counts.n_other > 0
            per_class[name] = {
                "n": counts.n_lens,
                "auroc": curves.auroc(counts) if measured else None,
                "auroc_interval95": list(curves.auroc_interval(counts)) if measured else None,
                "tpr_at_fpr": {curves.rate_name(r): curves.tpr_at_fpr(counts, r) for r in curves.RATES},
                **self.confusion.of_class(k),
            }
        areas = [c["auroc"] for c in per_class.values() if c["auroc"] is not None]
        if not areas:
            raise DataError("stamps of one class only: a classifier is judged by several", classes=str(self.classes))
        f1 = [c["f1"] for c in per_class.values() if c["f1"] is not None]
        pooled = sum_counts(tally.total for tally in self.one_vs_rest)
        top = reliability(self.top.total)
        return {
            "n": int(self.confusion.matrix.sum()),
            "classes": list(self.classes),
            "accuracy": self.confusion.accuracy,
            "confusion": self.confusion.matrix.tolist(),
            "auroc": float(np.mean(areas)),
            "auroc_macro": float(np.mean(areas)),
            "auroc_micro": curves.auroc(pooled),
            "f1_macro": float(np.mean(f1)) if f1 else None,
            "per_class": per_class,
            "ece": top["ece"],
            "reliability": top,
        }
