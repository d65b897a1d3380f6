"""Find what is unlike the normal: a network learns to give normal stamps back, and what it cannot is anomalous."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lenspipe.errors import ConfigError, ModelError
from lenspipe.learn.augment_batch import VIEWS_ONLY
from lenspipe.learn.losses import Loss, Tensors, mean_of
from lenspipe.learn.measure import bounded
from lenspipe.learn.objectives.contract import Array, Chance, Objective, finite, no_targets
from lenspipe.learn.players import MAIN, OUT, Player, Turn
from lenspipe.learn.settings import LabelSettings, TrainSettings
from lenspipe.learn.truth import Answers, Truth
from lenspipe.learn.upon import fitted_on
from lenspipe.nn.card import ModelCard
from lenspipe.nn.network import RebuildNetwork
from lenspipe.nn.outputs import Anomaly, unlikeness
from lenspipe.stamps.format import StampSet
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob
    from lenspipe.learn.order import Rows

FOOLED = 0.01
"""Weight of the critic's judgement beside the mean square, which is near 0.04 where only noise is left."""
N_ERROR = 1000
"""Quantiles of the errors of held-out normal stamps that the card keeps."""


class RebuildStamps(Objective):
    """Autoencoders, trained on the normal labels, or on everything."""

    method = "rebuild"
    outputs = Anomaly
    metric = "auc"
    chance = Chance("auc", 0.5)
    augment = VIEWS_ONLY
    balanced = False

    def check(self, settings: TrainSettings) -> None:
        """Refuse features: the image alone comes back."""
        super().check(settings)
        if settings.input.features:
            names = ",".join(settings.input.features)
            raise ConfigError(f"{self.method} takes the image alone: leave out input.features", features=names)

    def check_network(self, module: nn.Module, settings: TrainSettings) -> None:
        """Refuse a family that gives nothing back."""
        if not isinstance(module, RebuildNetwork):
            raise ModelError("this family gives no stamp back: choose ae, vae or another", got=type(module).__name__)

    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """
        0 for normal labels, 1 for others, -1 where there is no label; of others none is trained on.

        Where no label is normal by the settings, all rows are trained on, and none is an anomaly.
        """
        no_targets(settings, self.task)
        label, normal = data.column("label"), settings.normal
        if not normal:
            return Answers(np.ones(data.n, bool), np.zeros(data.n, np.int16))
        there = {value for value in label[train] if value is not None}
        if missing := sorted(set(normal) - there):
            raise ConfigError(
                "labels.normal: no training stamp has it", missing=",".join(missing), has=",".join(sorted(there))
            )
        known = np.array([value is not None for value in label], bool)
        is_normal = np.isin(label, normal)
        return Answers(known & (is_normal | ~train), np.where(known, ~is_normal, -1).astype(np.int16))

    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Anomaly:
        """One number; what it is of normal stamps is known after the training."""
        return Anomaly(normal=settings.labels.normal)

    def finished(self, card: ModelCard, outputs: Array, truth: Truth, rows: Rows) -> ModelCard:
        """The card with the errors of the normal validation stamps, which calibrate the score."""
        errors = np.sort(outputs[truth.labels[rows] == 0])
        kept = errors if len(errors) <= N_ERROR else np.quantile(errors, np.linspace(0, 1, N_ERROR))
        return card.with_outputs(errors=tuple(float(x) for x in kept), n_normal=len(errors))

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``rebuild``: the mean of what the network gives."""
        return {"rebuild": mean_of}

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """The autoencoder, and a critic of its latent vectors where they are held to a Gaussian by one."""
        if not getattr(module, "adversarial", False):
            return super().players(job, module, wrap=wrap, loaded=loaded)
        assert isinstance(module, RebuildNetwork)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed + 1)
            critic = Critic(module.num_features).to(next(module.parameters()).device)
        loss, called = self.loss(job.settings), wrap(critic)

        def rebuilt(turn: Turn) -> Tensors:
            error, latent = turn.networks[MAIN](turn.batch["image"], with_latent=True)
            return {OUT: error, "taken_for": critic(latent)}

        def judged(turn: Turn) -> Tensors:
            with torch.no_grad():
                latent = module.forward_features(turn.batch["image"])
            return {"taken_for": called(torch.cat([torch.randn_like(latent), latent]))}

        return [
            Player(
                module=module,
                network=wrap(module),
                frozen=loaded,
                forward=rebuilt,
                loss=lambda out, turn: loss(out[OUT], turn.batch) + FOOLED * taken_for(out["taken_for"], 1.0),
            ),
            Player(name="critic", module=critic, network=called, forward=judged, loss=lambda out, turn: told(out)),
        ]

    def numbers(self, outputs: Array, truth: Truth, rows: Rows, loss: Loss) -> dict[str, Any]:
        """The mean error of normal validation stamps, and what `measure` gives."""
        finite(outputs)
        normal = outputs[truth.labels[rows] == 0]
        if not len(normal):
            raise ConfigError("no normal stamp in the validation split: nothing to calibrate the score on")
        return {"val_loss": float(normal.mean())} | self.measure(outputs, truth, rows)

    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """
        Area under the ROC curve of anomalies against normal stamps, where the validation split has both.

        With it the counts ``tp``, ``fp``, ``tn`` and ``fn`` at the error that a tenth of its normal stamps exceed.
        """
        labels = truth.labels[rows]
        if not (labels == 1).any() or not (labels == 0).any():
            return {}
        counts = ScoreCounts.of(unlikeness(outputs), labels == 1)
        called = outputs > np.quantile(outputs[labels == 0], 0.9)
        sides = {"tp": called & (labels == 1), "fp": called & (labels == 0)}
        sides |= {"tn": ~called & (labels == 0), "fn": ~called & (labels == 1)}
        found = {name: int(rows_.sum()) for name, rows_ in sides.items()}
        return bounded("auc", auroc(counts), auroc_interval(counts)) | found

    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """``roc.png``, where there are anomalies."""
        from lenspipe.report.plots import roc_plot

        labels = truth.labels[rows]
        if not (labels == 1).any() or not (labels == 0).any():
            return {}
        return {"roc.png": roc_plot({"anomalies": ScoreCounts.of(unlikeness(outputs), labels == 1)})}


class FittedScore(RebuildStamps):
    """A score of what a trained network gives of a stamp, fitted at once on the normal ones (`learn.outliers`)."""

    at_once = True

    def __init__(self, method: str) -> None:
        self.method = method

    def begun_from(
        self, model: str | None, settings: TrainSettings, pretrained: str | None
    ) -> tuple[str, TrainSettings, str]:
        """The network of the pretrained model, whole, and the score's name."""
        return fitted_on(self.task, self.method, model, settings, pretrained)

    def check_network(self, module: nn.Module, settings: TrainSettings) -> None:
        """Nothing to refuse: `begun_from` chose it."""
        return None

    def fit_at_once(self, job: TrainJob) -> ModelCard:
        """Fit it and write the model."""
        from lenspipe.learn.outliers import fit_outliers

        return fit_outliers(job)


class Critic(nn.Module):
    """Says of latent vectors ``(n, latent)`` whether they were drawn from a unit Gaussian: a logit ``(n,)``."""

    def __init__(self, latent: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(latent)[:, 0]
        return logits


def taken_for(logits: Tensor, answer: float) -> Tensor:
    """Cross entropy of logits against one answer."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, answer))


def told(outputs: Tensors) -> Tensor:
    """What the critic minimises: the first half of the vectors was drawn, the second half encoded."""
    drawn, encoded = outputs["taken_for"].chunk(2)
    return (taken_for(drawn, 1.0) + taken_for(encoded, 0.0)) / 2
