"""Tell classes apart: a logit per class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lenspipe.errors import ConfigError, DataError
from lenspipe.learn.losses import Loss, cross_entropy
from lenspipe.learn.measure import bounded
from lenspipe.learn.objectives.contract import Array, Chance, Objective, no_targets
from lenspipe.learn.settings import LabelSettings, TrainSettings
from lenspipe.learn.truth import Answers, Truth
from lenspipe.nn.outputs import Classify
from lenspipe.stamps.format import StampSet
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval
from lenspipe.stats.intervals import clopper_pearson

if TYPE_CHECKING:
    from lenspipe.learn.order import Rows


class ClassifyStamps(Objective):
    """One of several classes."""

    outputs = Classify
    metric = "auc"
    chance = Chance("auc", 0.5)

    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """Place of each label among ``labels.classes``, or among all labels of the training split, sorted."""
        no_targets(settings, self.task)
        label = data.column("label")
        there = sorted({value for value in label[train] if value is not None})
        classes = settings.classes or tuple(there)
        if unknown := [name for name in classes if name not in there]:
            raise ConfigError(
                "labels.classes that no training stamp has", unknown=",".join(unknown), has=",".join(there)
            )
        if len(classes) < 2:
            raise DataError("stamps of one class only: there is nothing to tell apart", labels=",".join(there))
        labels = self.numbered(label, settings, classes)
        return Answers(labels >= 0, labels, classes)

    def numbered(
        self, label: NDArray[np.object_], settings: LabelSettings, classes: tuple[str, ...]
    ) -> NDArray[np.int16]:
        """Place of each label among the classes, -1 where it is none of them."""
        number = {name: k for k, name in enumerate(classes)}
        return np.array([number.get(value, -1) for value in label], np.int16)

    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Classify:
        """The classes, in the order of their numbers."""
        return Classify(classes=truth.classes)

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``cross-entropy``."""
        return {"cross-entropy": cross_entropy(settings.loss.label_smoothing, settings.loss.smooth_from_epoch)}

    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """
        Area under the ROC curve of all pairs of stamp and class at once (the micro average), and the accuracy.

        DeLong's interval of the area, as wide as if each stamp, not each pair, were one draw; Clopper and Pearson's of
        the accuracy.
        """
        labels, scores = truth.labels[rows], softmax(outputs, axis=1)
        counts = ScoreCounts.of(scores.ravel(), (labels[:, None] == np.arange(scores.shape[1])).ravel())
        area, (low, high), widen = auroc(counts), auroc_interval(counts), float(np.sqrt(scores.shape[1]))
        interval = max(0.0, area - (area - low) * widen), min(1.0, area + (high - area) * widen)
        n_right = int((outputs.argmax(axis=1) == labels).sum())
        return bounded("auc", area, interval) | bounded(
            "accuracy", n_right / len(labels), clopper_pearson(n_right, len(labels))
        )

    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """``roc.png``, a curve per class."""
        from lenspipe.report.plots import roc_plot

        labels, scores = truth.labels[rows], softmax(outputs, axis=1)
        curves = {name: ScoreCounts.of(scores[:, k], labels == k) for k, name in enumerate(truth.classes)}
        return {"roc.png": roc_plot(curves)}
