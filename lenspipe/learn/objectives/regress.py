"""Predict columns of the data set: a value per target, and its variance where asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.learn.augment_batch import VIEWS_ONLY
from lenspipe.learn.losses import Loss, gaussian_nll, mean_square
from lenspipe.learn.measure import bounded, mean_interval
from lenspipe.learn.objectives.contract import Array, Chance, Objective
from lenspipe.learn.settings import LabelSettings, TrainSettings
from lenspipe.learn.truth import Answers, Truth
from lenspipe.nn.outputs import Regress
from lenspipe.stamps.format import StampSet

if TYPE_CHECKING:
    from lenspipe.learn.order import Rows


class RegressTargets(Objective):
    """Numbers of a stamp. Zoom, blur and noise would change them: by default stamps are turned, and nothing else."""

    outputs = Regress
    metric = "val_rmse"
    chance = Chance("val_rmse", 1.0)
    augment = VIEWS_ONLY
    balanced = False

    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """``labels.targets``; all rows that have them."""
        if not settings.targets:
            raise ConfigError("the task regress needs labels.targets: the columns to predict", task=self.task)
        return Answers(np.ones(data.n, bool), np.full(data.n, -1, np.int16), targets=settings.targets)

    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Regress:
        """The targets with their scale, and whether variances are predicted."""
        return Regress(
            targets=truth.target_names,
            target_means=truth.target_means,
            target_spreads=truth.target_spreads,
            uncertainty=settings.labels.uncertainty,
        )

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``gaussian-nll`` where variances are predicted, else ``mse``."""
        return {"gaussian-nll": gaussian_nll} if settings.labels.uncertainty == "gaussian" else {"mse": mean_square}

    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """
        Root mean square error of all targets, in units of their spread in training, and the mean error of each.

        The mean predictor has ``val_rmse`` 1; its interval is of the delta method. ``mae_TARGET`` is in the target's
        own unit, with the normal interval of the mean, cut at 0; null for one stamp.
        """
        targets = truth.targets[rows]
        values = outputs.reshape(len(outputs), -1)[:, : targets.shape[1]]
        square = ((values - targets) ** 2).mean(axis=1)
        rmse = float(np.sqrt(square.mean()))
        half = 1.96 * float(square.std()) / len(square) ** 0.5 / (2 * max(rmse, 1e-12))
        facts: dict[str, Any] = bounded("val_rmse", rmse, (max(0.0, rmse - half), rmse + half))
        for k, (name, spread) in enumerate(zip(truth.target_names, truth.target_spreads, strict=True)):
            errors = np.abs(values[:, k] - targets[:, k]) * spread
            facts |= bounded(f"mae_{name}", float(errors.mean()), mean_interval(errors))
        return facts

    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """``targets.png``: predicted against true, of at most 20,000 stamps."""
        from lenspipe.report.plots import target_plot

        rows = rows[:20_000]
        means, spreads = np.array(truth.target_means), np.array(truth.target_spreads)
        values = outputs.reshape(len(outputs), -1)[: len(rows), : len(means)] * spreads + means
        true = truth.targets[rows] * spreads + means
        return {"targets.png": target_plot(truth.target_names, true, values)}
