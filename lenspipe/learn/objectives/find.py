"""Find lenses: one logit per stamp, lens or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from lenspipe.errors import DataError
from lenspipe.learn.losses import Loss, binary_cross_entropy, focal
from lenspipe.learn.measure import bounded
from lenspipe.learn.objectives.contract import Array, Chance, Objective, no_targets
from lenspipe.learn.settings import LabelSettings, TrainSettings
from lenspipe.learn.truth import Answers, Truth
from lenspipe.nn.outputs import Find
from lenspipe.stamps.format import StampSet
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval, tpr_at_fpr

if TYPE_CHECKING:
    from lenspipe.learn.order import Rows


class FindLenses(Objective):
    """Lenses against everything else."""

    outputs = Find
    metric = "auc"
    chance = Chance("auc", 0.5)

    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """1 for the labels that ``labels.lens_labels`` names, 0 for all others."""
        no_targets(settings, self.task)
        label = data.column("label")
        known = np.array([value is not None for value in label], bool)
        there = sorted(set(label[known & train]))
        if not set(settings.lens_labels) & set(there) or not set(there) - set(settings.lens_labels):
            raise DataError(
                "to find lenses the training split needs lenses and others; labels.lens_labels says which are lenses",
                labels=",".join(there),
                lens_labels=",".join(settings.lens_labels),
            )
        return Answers(known, np.isin(label, settings.lens_labels).astype(np.int16), ("nonlens", "lens"))

    def numbered(
        self, label: NDArray[np.object_], settings: LabelSettings, classes: tuple[str, ...]
    ) -> NDArray[np.int16]:
        """1 for the labels of lenses, 0 for others, -1 where there is none."""
        known = np.array([value is not None for value in label], bool)
        return np.where(known, np.isin(label, settings.lens_labels), -1).astype(np.int16)

    def check_surveys(self, truth: Truth, surveys: NDArray[np.object_]) -> None:
        """Each survey that gives lenses gives others, and the reverse; rows without a survey (None) do not count."""
        counts: dict[str, list[int]] = {}
        for survey, label in zip(surveys[truth.train], truth.labels[truth.train], strict=True):
            if survey is not None:
                counts.setdefault(str(survey), [0, 0])[int(label)] += 1
        alone, lenses = ([n for n, c in counts.items() if c[k] and not c[1 - k]] for k in (0, 1))
        if not (alone or lenses):
            return
        raise DataError(
            "a survey gives lenses and no others, or others and no lenses, so the network would learn to tell surveys: "
            "add stamps of the other kind (`lenspipe stamps cut`), name the survey of a data set ([[data]] survey), "
            "leave it out, or set sampling.one_sided_surveys = true",
            **({"lenses_alone": ", ".join(f"{n} ({counts[n][1]})" for n in sorted(lenses))} if lenses else {}),
            **({"no_lenses": ", ".join(f"{n} ({counts[n][0]})" for n in sorted(alone))} if alone else {}),
        )

    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Find:
        """A logit of a lens."""
        return Find()

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``bce``, ``focal``."""
        loss = settings.loss
        return {
            "bce": binary_cross_entropy(loss.label_smoothing, loss.smooth_from_epoch),
            "focal": focal(loss.focal_gamma),
        }

    def curriculum(self, values: Array, truth: Truth) -> Array:
        """Those of lenses: others have sizes too, and are to stay."""
        return np.where(truth.labels == 1, values, np.nan)

    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """
        Area under the ROC curve, and the true positive rate at a false positive rate of 1 %.

        DeLong's interval of the area; Clopper and Pearson's of the rate, for which the threshold is taken as given. The
        rate is null where too few stamps are no lenses.
        """
        counts = _counts(outputs, truth, rows)
        found = tpr_at_fpr(counts, 1e-2)
        return bounded("auc", auroc(counts), auroc_interval(counts)) | bounded(
            "tpr_at_fpr_1e-2", found["value"], found.get("interval95")
        )

    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """``roc.png``."""
        from lenspipe.report.plots import roc_plot

        return {"roc.png": roc_plot({"lens": _counts(outputs, truth, rows)})}


def _counts(outputs: Array, truth: Truth, rows: Rows) -> ScoreCounts:
    return ScoreCounts.of(expit(outputs.reshape(len(outputs))), truth.labels[rows] == 1)
