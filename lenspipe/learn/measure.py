"""Numbers of a network on stamps with known answers, as a training watches them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax

from lenspipe.errors import ModelError
from lenspipe.evaluate.counts import ScoreCounts
from lenspipe.evaluate.curves import auroc, auroc_interval, tpr_at_fpr
from lenspipe.learn.losses import Loss

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
    Loss, and of classes the area under the ROC curve with its 95 % interval, of targets the errors.

    ``val_rmse`` is of all targets in units of their spread in training, so that the mean predictor has 1; its 95 %
    interval takes stamps as independent (delta method).

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
            facts[f"mae_{name}"] = float(np.abs(values[:, k] - targets[:, k]).mean() * spread)
        return facts
    counts = score_counts(outputs, labels, task)
    facts["auc"] = auroc(counts)
    facts["auc_low"], facts["auc_high"] = (float(edge) for edge in _interval(outputs, labels, task, counts))
    if task == "find":
        facts["tpr_at_fpr_1e-2"] = tpr_at_fpr(counts, 1e-2)["value"]
    else:
        facts["accuracy"] = float((outputs.argmax(axis=1) == labels).mean())
    return facts


def _interval(outputs: Array, labels: NDArray[np.integer], task: str, counts: ScoreCounts) -> tuple[float, float]:
    """95 % interval of the area; of a classifier as wide as if each stamp, not each pair, were one draw."""
    low, high = auroc_interval(counts)
    if task == "find":
        return low, high
    area, n_class = auroc(counts), outputs.shape[1]
    widen = float(np.sqrt(n_class))
    return max(0.0, area - (area - low) * widen), min(1.0, area + (high - area) * widen)
