"""Describe stamps without labels: two views of one stamp are alike, SimCLR by contrast and BYOL by a teacher."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from lenspipe.errors import ConfigError
from lenspipe.learn.augment_batch import augment_batch
from lenspipe.learn.batches import per_stamp, shown_to_network
from lenspipe.learn.losses import Loss, alike, nt_xent
from lenspipe.learn.measure import bounded
from lenspipe.learn.objectives.contract import Array, Chance, Objective, finite, no_targets
from lenspipe.learn.order import Rows
from lenspipe.learn.players import MAIN, Player, Turn
from lenspipe.learn.settings import AugmentSettings, EmbedSettings, LabelSettings, TrainSettings
from lenspipe.learn.truth import Answers, Truth
from lenspipe.learn.world import World
from lenspipe.nn.outputs import Embed
from lenspipe.stamps.format import StampSet
from lenspipe.stats.neighbours import told, uniformity, votes

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob

TRUE_TO_THE_SKY = AugmentSettings(
    shift=0.05, zoom_min=0.9, shear=0.0, brightness=0.1, noise_fraction=0.5, blur_fraction=0.5
)
"""Views that could be of one source: turned, a little off centre, fainter, through another PSF; colours stay."""
N_PAIR = 2048
"""Validation stamps of which all pairs are looked at."""


class Projected(nn.Module):
    """
    A network with a projection behind its embedding, and for BYOL a prediction behind that.

    Both are two layers with batch norm and ReLU between them; neither is kept after the training.
    """

    def __init__(self, network: nn.Module, size: int, projection: int, *, predicts: bool) -> None:
        super().__init__()
        self.network, self.projector = network, _two_layers(size, projection)
        self.predictor = _two_layers(projection, projection) if predicts else None

    def forward(self, images: Tensor, predict: bool = False) -> Tensor:
        """``(n, channel, y, x)`` to projections, or predictions of them, ``(n, projection)``."""
        out: Tensor = self.projector(self.network(images))
        if predict and self.predictor is not None:
            out = self.predictor(out)
        return out


class EmbedStamps(Objective):
    """What the ways to embed share: the views, the projection, and what a training watches."""

    outputs = Embed
    metric = "knn_auc"
    chance = Chance("knn_auc", 0.5)
    augment = TRUE_TO_THE_SKY
    balanced = False
    n_view = 2
    method: ClassVar[str]
    predicts: ClassVar[bool] = False

    def check(self, settings: TrainSettings) -> None:
        """Refuse features: the vector is of the image alone."""
        super().check(settings)
        if settings.input.features:
            raise ConfigError(
                "an embedding is of the image alone: leave out", features=",".join(settings.input.features)
            )

    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """All rows; labels, where there are any, are watched and not learnt from."""
        no_targets(settings, self.task)
        label = data.column("label")
        number = {name: k for k, name in enumerate(sorted({value for value in label if value is not None}))}
        return Answers(np.ones(data.n, bool), np.array([number.get(value, -1) for value in label], np.int16))

    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Embed:
        """A vector of the size that is asked for."""
        return Embed(size=embed_settings(settings).size, method=self.method)

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """One: the network with its projection."""
        asked, device = embed_settings(job.settings), next(module.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)
            whole = Projected(module, asked.size, asked.projection, predicts=self.predicts).to(device)
        loss, frozen = self.loss(job.settings), [f"network.{name}" for name in loaded]
        return [
            Player(
                module=whole,
                network=wrap(whole),
                frozen=frozen,
                forward=lambda turn: {"pairs": self.pairs(whole, turn)},
                loss=lambda outputs, turn: loss(outputs["pairs"], turn.batch),
            )
        ]

    def pairs(self, whole: Projected, turn: Turn) -> Tensor:
        """What the loss compares ``(n, 2, projection)``: here the projections of both views."""
        return torch.stack(turn.networks[MAIN](_views(turn)).chunk(2), dim=1)

    def outputs_on(self, job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
        """Embeddings ``(n, 3 size)`` of rows in their order: of the stamp as it is, and of two views of it."""
        network = module.network if isinstance(module, Projected) else module

        def described(sky: Tensor, number: int) -> Tensor:
            rng = np.random.default_rng([job.seed, 67, world.rank, number])
            views = [augment_batch(sky, job.augment, rng, noise_levels=job.noise) for _ in range(2)]
            return torch.cat([network(shown_to_network(job, one)) for one in (sky, *views)], dim=1)

        return per_stamp(job, rows, world, described)

    def vectors(self, outputs: Array) -> Array:
        """The embeddings of the stamps as they are ``(n, size)``, among the outputs."""
        return outputs[:, : outputs.shape[1] // 3]

    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """
        Area under the ROC curve of the votes of the nearest neighbours, where there are labels, and the uniformity.

        Every validation stamp is told by the others (`lenspipe.stats.neighbours`); `uniformity` is near 0 where
        all stamps have become alike.
        """
        vectors, labels = self.vectors(outputs), truth.labels[rows]
        found: dict[str, Any] = {"uniformity": uniformity(vectors[:N_PAIR])}
        if len(np.unique(labels[labels >= 0])) < 2:
            return found
        classes, number = np.unique(labels[labels >= 0], return_inverse=True)
        some = vectors[labels >= 0]
        numbers = told(votes(some, some, number, len(classes), itself=True), number)
        return bounded("knn_auc", numbers["auc"], numbers["auc_interval95"]) | found

    def numbers(self, outputs: Array, truth: Truth, rows: Rows, loss: Loss) -> dict[str, Any]:
        """The loss of the embeddings of two views, without the projection, and what `measure` gives."""
        finite(outputs)
        size = outputs.shape[1] // 3
        pairs = torch.from_numpy(outputs[:N_PAIR, size:].reshape(-1, 2, size)).float()
        return {"val_loss": float(loss(pairs, {}))} | self.measure(outputs, truth, rows)

    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """``embedding.png``: the two directions of largest variance, a colour per label."""
        from lenspipe.report.plots import plane_plot

        vectors = self.vectors(outputs)[:N_PAIR]
        return {"embedding.png": plane_plot(vectors, truth.labels[rows][:N_PAIR])}


class SimCLR(EmbedStamps):
    """The views of a stamp are told from those of all others in the batch (Chen et al. 2020)."""

    method = "simclr"

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``nt-xent``."""
        return {"nt-xent": nt_xent(embed_settings(settings).temperature)}


class BYOL(EmbedStamps):
    """
    What a teacher, the average of the network, says of one view is predicted from the other (Grill et al. 2020).

    The average is that of the fit, so its decay is ``optim.ema_decay``, shorter at first; in the paper it rises to 1.
    """

    method = "byol"
    predicts = True

    def check(self, settings: TrainSettings) -> None:
        """Refuse a teacher that is the pupil."""
        super().check(settings)
        if not settings.optim.ema_decay:
            raise ConfigError("byol is taught by the average of its weights: set optim.ema_decay above 0")

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``alike``."""
        return {"alike": alike}

    def pairs(self, whole: Projected, turn: Turn) -> Tensor:
        """Predictions of both views beside what the teacher says of the other one ``(2n, 2, projection)``."""
        views = _views(turn)
        with torch.no_grad():
            one, two = functional_call(whole, dict(turn.averaged[MAIN]), (views,)).chunk(2)
        return torch.stack([turn.networks[MAIN](views, predict=True), torch.cat([two, one])], dim=1)


class EmbedByTask(EmbedStamps):
    """An embedding by a task that is made of each stamp: beside the vector, validation keeps the error of that task."""

    def vectors(self, outputs: Array) -> Array:
        """All but the error."""
        return outputs[:, :-1]

    def numbers(self, outputs: Array, truth: Truth, rows: Rows, loss: Loss) -> dict[str, Any]:
        """The mean error of the validation stamps, where it was told, and what `measure` gives."""
        error = finite(outputs)[:, -1]
        return ({"val_loss": float(error.mean())} if error.any() else {}) | self.measure(outputs, truth, rows)


def embed_settings(settings: TrainSettings) -> EmbedSettings:
    """Those that are given, or the defaults."""
    return settings.embed or EmbedSettings()


def _views(turn: Turn) -> Tensor:
    return torch.cat([turn.batch["image"], turn.batch["image_1"]])


def _two_layers(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(), nn.Linear(n_out, n_out))
