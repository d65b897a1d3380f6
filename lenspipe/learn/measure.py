"""Numbers of a network on stamps with known answers, as a training watches them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax

from lenspipe.errors import ModelError
from lenspipe.learn.losses import Loss
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import Z95, auroc, auroc_interval, tpr_at_fpr
from lenspipe.stats.intervals import clopper_pearson

Array = NDArray[np.float64]


def scores_of(outputs: Array, task: str) -> Array:
    """Probabilities of logits ``(n,)`` to find or ``(n, class)`` to classify; outputs as they are to regress."""
    if task == "find":
        return np.asarray(expit(outputs.reshape(len(outputs))))
    return np.asarray(softmax(outputs, axis=1)) if task == "classify" else outputs


def score_counts(outputs: Array, labels: NDArray[np.integer], task: str) -> ScoreCounts:
    """Scores against truth: of a classifier all pairs of stamp and class at once, which makes the micro average."""
    scores = scores_of(outputs, task)
    if task == "find":
        return ScoreCounts.of(scores, labels == 1)
    return ScoreCounts.of(scores.ravel(), (labels[:, None] == np.arange(scores.shape[1])).ravel())


def measure(
    outputs: Array,
    labels: NDArray[np.integer],
    targets: NDArray[np.float32],
    *,
    task: str,
    loss: Loss,
    target_names: tuple[str, ...] = (),
    target_spreads: tuple[float, ...] = (),
) -> dict[str, Any]:
    """
    Loss, and of classes the area under the ROC curve and a rate, of targets the errors.

    Each but the loss comes with its 95 % interval, as ``NAME_low`` and ``NAME_high``, for which stamps are independent:
    DeLong's of the area, Clopper and Pearson's of ``accuracy`` and of ``tpr_at_fpr_1e-2`` (the threshold taken as
    given; null, as the rate, where too few stamps are no lenses), the normal one of the mean for ``mae_TARGET`` (cut at
    0; null for one stamp). ``val_rmse`` is of all targets in units of their spread in training, so that the mean
    predictor has 1; its interval is of the delta method.

    Parameters
    ----------
    outputs : array (n,) or (n, n_out)
        What the network gives.
    labels : array (n,)
        Classes.
    targets : array (n, target)
        Scaled targets.
    task : str
    loss : function
    target_names, target_spreads
        Errors are given in the target's own unit under these names.

    Raises
    ------
    ModelError
        An output is not finite.
    """
    if not np.isfinite(outputs).all():
        raise ModelError("the network gave numbers that are not finite: lower the learning rate", n=len(outputs))
    batch = {"label": torch.from_numpy(labels.astype(np.int64)), "target": torch.from_numpy(targets)}
    facts: dict[str, Any] = {"val_loss": float(loss(torch.from_numpy(outputs).float(), batch))}
    if task == "regress":
        values = outputs.reshape(len(outputs), -1)[:, : targets.shape[1]]
        square = ((values - targets) ** 2).mean(axis=1)
        facts["val_rmse"] = float(np.sqrt(square.mean()))
        half = 1.96 * float(square.std()) / len(square) ** 0.5 / (2 * max(facts["val_rmse"], 1e-12))
        facts["val_rmse_low"], facts["val_rmse_high"] = max(0.0, facts["val_rmse"] - half), facts["val_rmse"] + half
        for k, (name, spread) in enumerate(zip(target_names, target_spreads, strict=True)):
            errors = np.abs(values[:, k] - targets[:, k]) * spread
            facts |= _bounded(f"mae_{name}", float(errors.mean()), _mean_interval(errors))
        return facts
    counts = score_counts(outputs, labels, task)
    facts |= _bounded("auc", auroc(counts), _area_interval(outputs, labels, task, counts))
    if task == "find":
        found = tpr_at_fpr(counts, 1e-2)
        return facts | _bounded("tpr_at_fpr_1e-2", found["value"], found.get("interval95"))
    n_right = int((outputs.argmax(axis=1) == labels).sum())
    return facts | _bounded("accuracy", n_right / len(labels), clopper_pearson(n_right, len(labels)))


def _bounded(name: str, value: float | None, interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = (None, None) if interval is None else (float(edge) for edge in interval)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _mean_interval(errors: Array) -> tuple[float, float] | None:
    """95 % interval of the mean of absolute errors."""
    if len(errors) < 2:
        return None
    mean, half = float(errors.mean()), Z95 * float(errors.std(ddof=1)) / len(errors) ** 0.5
    return max(0.0, mean - half), mean + half


def _area_interval(outputs: Array, labels: NDArray[np.integer], task: str, counts: ScoreCounts) -> tuple[float, float]:
    """95 % interval of the area; of a classifier as wide as if each stamp, not each pair, were one draw."""
    low, high = auroc_interval(counts)
    if task == "find":
        return low, high
    area, n_class = auroc(counts), outputs.shape[1]
    widen = float(np.sqrt(n_class))
    return max(0.0, area - (area - low) * widen), min(1.0, area + (high - area) * widen)
