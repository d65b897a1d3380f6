"""What an adaptation watches: both domains apart, how well they are told apart, and what needs no label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from lenspipe.learn.measure import bounded
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval

Array = NDArray[np.float64]
N_COMPONENT, N_FOLD, RIDGE = 20, 5, 1e-2
N_PROBE = 400
"""Stamps of each domain that the probe looks at."""


@dataclass(frozen=True)
class Both:
    """What a network says of the validation stamps of both domains."""

    source: Array
    """Outputs ``(n, n_out)`` or ``(n,)``."""
    target: Array
    labels: NDArray[np.int16]
    """Labels of the target's stamps that are kept to judge; -1 where there is none."""
    source_features: Array
    """Their features in the `N_COMPONENT` directions of largest variance of both."""
    target_features: Array

    def packed(self) -> Array:
        """One array, a row per stamp, as an objective's outputs are passed on."""
        sides = [(self.source, np.full(len(self.source), -2.0), self.source_features)]
        sides += [(self.target, self.labels.astype(float), self.target_features)]
        return np.concatenate([np.column_stack([label, feature, out]) for out, label, feature in sides])

    @classmethod
    def unpacked(cls, packed: Array) -> Both:
        """What `packed` holds."""
        label, features, out = packed[:, 0], packed[:, 1 : 1 + N_COMPONENT], packed[:, 1 + N_COMPONENT :]
        if out.shape[1] == 1:
            out = out[:, 0]
        of_source = label == -2
        return cls(
            source=out[of_source],
            target=out[~of_source],
            labels=label[~of_source].astype(np.int16),
            source_features=features[of_source],
            target_features=features[~of_source],
        )


def directions(source: Array, target: Array) -> tuple[Array, Array]:
    """Standardised features of both domains in their `N_COMPONENT` directions of largest variance, zeros beyond."""
    some = np.concatenate([source[:N_PROBE], target[:N_PROBE]])
    mean, spread = some.mean(axis=0), some.std(axis=0)
    keep = spread > 1e-9
    scaled = [(x[:, keep] - mean[keep]) / spread[keep] for x in (some, source, target)]
    _, _, axes = np.linalg.svd(scaled[0], full_matrices=False)
    axes = axes[:N_COMPONENT]
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    turned = [x @ (axes * signs[:, None]).T for x in scaled[1:]]
    one, two = (np.pad(x, ((0, 0), (0, N_COMPONENT - x.shape[1]))) for x in turned)
    return one, two


def domain_probe(both: Both) -> dict[str, float | None]:
    """
    Area of a classifier that tells the domains by the features, 0.5 where it cannot, with DeLong's interval.

    A ridge regression on which domain a stamp is of, each fifth of the stamps scored by one of the others; it takes
    a hundredth of a second, so every epoch has it (`lenspipe.stats.probe.tell_apart` draws intervals by bootstrap).
    """
    some = [x[:N_PROBE] for x in (both.source_features, both.target_features)]
    features = np.column_stack([np.concatenate(some), np.ones(sum(map(len, some)))])
    is_source = np.arange(len(features)) < len(some[0])
    fold = np.concatenate([np.arange(len(x)) % N_FOLD for x in some])
    share = np.where(is_source, 1 / len(some[0]), 1 / len(some[1]))
    score = np.zeros(len(features))
    for k in range(N_FOLD):
        train = fold != k
        x, weight = features[train], share[train]
        normal = x.T @ (weight[:, None] * x) + RIDGE * np.eye(x.shape[1])
        score[~train] = features[~train] @ np.linalg.solve(normal, x.T @ (weight * np.where(is_source[train], 1, -1)))
    counts = ScoreCounts.of(expit(score), is_source)
    return bounded("domain_auc", auroc(counts), auroc_interval(counts))


def information(outputs: Array) -> float:
    """
    Mutual information of stamps and answers over the logarithm of the classes, from 0 to 1.

    The entropy of the mean answer less the mean entropy of answers: large where answers are sure and of all classes
    (Krause et al. 2010; as a choice among models without labels, Musgrave et al. 2022).
    """
    of_one = outputs.ndim == 1
    p = np.stack([expit(-outputs), expit(outputs)], axis=1) if of_one else softmax(outputs, axis=1)
    return float((_entropy(p.mean(axis=0)) - _entropy(p).mean()) / np.log(p.shape[1]))


def _entropy(p: Array) -> Array:
    return -np.sum(p * np.log(np.clip(p, 1e-12, 1)), axis=-1)


def guard(
    history: Sequence[Mapping[str, Any]], measured: Mapping[str, Any], metric: str, from_epoch: int, kept: int
) -> dict[str, Any]:
    """
    Whether the target is better served than by the source alone, on the labels that were kept to judge.

    Before is the last epoch without adaptation, after the finished model, of epoch ``kept`` (from 0). They differ where
    their difference is larger than both half intervals in quadrature, which is careful: both are measured on the same
    stamps.

    Returns
    -------
    dict
        ``verdict`` (``better``, ``worse``, ``no difference``, ``not adapted``, ``not judged``), ``said`` in words,
        ``before`` and ``after`` with intervals.
    """
    name = f"target_{metric}"
    keys = (name, f"{name}_low", f"{name}_high")
    if not 0 < from_epoch <= len(history):
        return {"verdict": "not judged", "said": "nothing to compare: no epoch without adaptation, or none with it"}
    if kept < from_epoch:
        said = f"NOT ADAPTED: the best epoch ({kept + 1}) is before adaptation sets in (after {from_epoch})"
        return {"verdict": "not adapted", "said": f"{said}: this is a model of the source alone"}
    before, after = (
        [float(row[key]) for key in keys if row.get(key) is not None] for row in (history[from_epoch - 1], measured)
    )
    if len(before) + len(after) < 2 * len(keys):
        return {
            "verdict": "not judged",
            "said": "the target's validation labels are too few, or not of every class, to judge",
        }
    half = np.hypot(before[2] - before[1], after[2] - after[1]) / 2
    change = after[0] - before[0]
    verdict = "no difference" if abs(change) <= half else "better" if change > 0 else "worse"
    words = {
        "better": "adaptation served the target",
        "worse": "ADAPTATION MADE THE TARGET WORSE: use the model of the source alone",
        "no difference": "no difference can be told on the labels that were kept to judge",
    }[verdict]
    said = f"{words}: {metric} {_told(before)} before, {_told(after)} after"
    return {"verdict": verdict, "said": said, "before": before, "after": after, "metric": metric}


def _told(three: Sequence[float]) -> str:
    value, low, high = three
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
