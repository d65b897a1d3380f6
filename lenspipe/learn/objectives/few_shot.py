"""Embeddings in which few examples tell a class: prototypical networks, and a variant that makes its own tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lenspipe.errors import DataError, ModelError
from lenspipe.learn.batches import weak_and_strong
from lenspipe.learn.fit import Batch
from lenspipe.learn.losses import Loss, Tensors, own_tasks, prototypes
from lenspipe.learn.objectives.contract import Array, Objective, no_targets
from lenspipe.learn.objectives.embed import N_PAIR, EmbedStamps, embed_settings
from lenspipe.learn.order import Rows
from lenspipe.learn.players import MAIN, Player, Turn
from lenspipe.learn.settings import LabelSettings, TrainSettings
from lenspipe.learn.truth import Answers, Truth
from lenspipe.learn.world import World
from lenspipe.stamps.format import StampSet

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob


class Prototypical(EmbedStamps):
    """
    Stamps lie nearer to the mean of a few of their own class than to those of others (Snell et al. 2017).

    Every batch is an episode with all classes of ``labels.classes``, or of the data; classes that are left out are to
    be told later from a few examples. With ``--pretrained`` of another embedding it is a fine-tuning of its metric.
    """

    method = "prototypical"
    balanced = True
    n_view = 1

    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """Labelled rows of the classes."""
        no_targets(settings, self.task)
        label = data.column("label")
        there = sorted({value for value in label[train] if value is not None})
        classes = tuple(there) if settings.classes is None else settings.classes
        number = {name: k for k, name in enumerate(classes)}
        labels = np.array([number.get(value, -1) for value in label], np.int16)
        if len(set(there) & set(classes)) < 2:
            raise DataError(
                "prototypes are of two classes at least: labels are missing, or labels.classes names none of them",
                labels=",".join(there),
            )
        return Answers(labels >= 0, labels, classes)

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``prototypes``."""
        return {"prototypes": prototypes(embed_settings(settings).temperature)}

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """The network alone: what the loss compares is the embedding itself."""
        return Objective.players(self, job, module, wrap=wrap, loaded=loaded)

    def numbers(self, outputs: Array, truth: Truth, rows: Rows, loss: Loss) -> dict[str, Any]:
        """The loss of the validation stamps as one episode, and what `measure` gives."""
        if not np.isfinite(outputs).all():
            raise ModelError("the network gave numbers that are not finite: lower the learning rate", n=len(outputs))
        vectors = torch.from_numpy(outputs[:N_PAIR, : outputs.shape[1] // 3]).float()
        labels = torch.from_numpy(truth.labels[rows][:N_PAIR].astype(np.int64))
        return {"val_loss": float(loss(vectors, {"label": labels}))} | self.measure(outputs, truth, rows)


class OwnTasks(EmbedStamps):
    """
    Tasks without labels: each of ``embed.ways`` stamps is a class, one view its example, another the question.

    After UMTRA (Khodadadeh et al. 2019); the loss of a task is that of prototypes, not of a network adapted to it.
    """

    method = "umtra"

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``own-tasks``."""
        asked = embed_settings(settings)
        return {"own-tasks": own_tasks(asked.temperature, asked.ways)}

    def prepare(self, job: TrainJob, world: World, stream: str, batch: Batch, epoch: int, step: int) -> Tensors:
        """The example only turned and mirrored, the question augmented."""
        return weak_and_strong(job, world, batch, epoch, step)

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """The network alone, on both views."""
        loss = self.loss(job.settings)

        def pairs(turn: Turn) -> Tensors:
            views = torch.cat([turn.batch["image"], turn.batch["image_1"]])
            return {"pairs": torch.stack(turn.networks[MAIN](views).chunk(2), dim=1)}

        return [
            Player(
                module=module,
                network=wrap(module),
                frozen=loaded,
                forward=pairs,
                loss=lambda outputs, turn: loss(outputs["pairs"], turn.batch),
            )
        ]
