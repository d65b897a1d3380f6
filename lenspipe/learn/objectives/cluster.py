"""Clusters without labels: neighbours in an embedding lie in one cluster, then what is sure teaches (SCAN)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lenspipe.errors import ConfigError
from lenspipe.learn.augment_batch import VIEWS_ONLY, augment_batch
from lenspipe.learn.batches import (
    batch_of,
    epoch_batches,
    on_device,
    order_of,
    per_stamp,
    prepare_batch,
    shown_to_network,
)
from lenspipe.learn.fit import Batch, Stream
from lenspipe.learn.losses import Loss, Tensors, alike_in_clusters, sure_teach
from lenspipe.learn.measure import bounded
from lenspipe.learn.objectives.contract import Array, Chance, Objective, finite, no_targets
from lenspipe.learn.objectives.embed import TRUE_TO_THE_SKY
from lenspipe.learn.order import Rows
from lenspipe.learn.players import MAIN, Player, Turn
from lenspipe.learn.settings import AugmentSettings, ClusterSettings, LabelSettings, TrainSettings
from lenspipe.learn.stream import read_rows
from lenspipe.learn.truth import Answers, Truth
from lenspipe.learn.upon import base_folder, begun_from
from lenspipe.learn.world import World
from lenspipe.nn.checkpoint import load_model
from lenspipe.nn.outputs import Cluster
from lenspipe.stamps.format import StampSet
from lenspipe.stats.neighbours import nearest
from lenspipe.stats.partition import agreement, contingency

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob

NEIGHBOURS = "neighbours"
MOST = 20_000
"""Training stamps among which neighbours are looked for; of more, as many drawn with the seed, and no others."""


class ClusterStamps(Objective):
    """
    SCAN, semantic clustering by adopting nearest neighbours (Van Gansbeke et al. 2020).

    Neighbours are found once, in the vectors of the model that is built on. In the first epochs a stamp and one of its
    neighbours are to lie in one cluster, and clusters are to be of one size; in the last ones a turned copy of a stamp
    of whose cluster the network is sure is the label of an augmented one.
    """

    outputs = Cluster
    metric = "ari"
    chance = Chance("ari", 0.0)
    augment = TRUE_TO_THE_SKY
    balanced = False
    method = "neighbours"

    def begun_from(
        self, model: str | None, settings: TrainSettings, pretrained: str | None
    ) -> tuple[str, TrainSettings, str]:
        """The network of the embedding, with a fresh head."""
        return begun_from(self.task, model, settings, pretrained)

    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """All rows; labels, where there are any, are watched and not learnt from."""
        no_targets(settings, self.task)
        label = data.column("label")
        number = {name: k for k, name in enumerate(sorted({value for value in label if value is not None}))}
        return Answers(np.ones(data.n, bool), np.array([number.get(value, -1) for value in label], np.int16))

    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Cluster:
        """As many clusters as are asked for, or as there are labels; raises `ConfigError` where neither is known."""
        there = len(np.unique(truth.labels[truth.train][truth.labels[truth.train] >= 0]))
        size = _cluster(settings).size or there
        if size < 2:
            raise ConfigError(
                "say how many clusters: --set cluster.size=N (there are no labels to count)", labels=there
            )
        return Cluster(size=size, method=self.method)

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``neighbours``: of logits of a stamp and a neighbour."""
        return {NEIGHBOURS: alike_in_clusters(_cluster(settings).entropy)}

    def streams(self, job: TrainJob, world: World) -> dict[str, Stream]:
        """Stamps, and for each one of its neighbours, drawn anew every epoch; none in the last epochs."""
        rows, near = mined(job, world)
        job = replace(job, truth=replace(job.truth, train=rows))

        def neighbours(epoch: int) -> Iterator[Batch]:
            order = order_of(job, epoch).share(world.rank, world.size)
            size, rng = job.settings.sampling.batch_size // world.size, _rng(job, 97, epoch, world.rank)
            for block in order.blocks(size):
                drawn = rng.integers(0, near.shape[1], len(block))
                chosen = near[np.searchsorted(rows, block), drawn]
                stamps = None if teaches(job, epoch) else read_rows(job.index, chosen)
                for start in range(0, len(block), size):
                    part = slice(start, start + size)
                    yield {} if stamps is None else batch_of(job, chosen[part], stamps[part])

        return {"train": lambda epoch: epoch_batches(job, world, epoch), NEIGHBOURS: neighbours}

    def prepare(self, job: TrainJob, world: World, stream: str, batch: Batch, epoch: int, step: int) -> Tensors:
        """Augmented stamps; with ``plain``, only turned and mirrored, where they are to teach."""
        if not batch:
            return {}
        if stream == NEIGHBOURS:
            return {"image": _view(job, world, batch, job.augment, 103, epoch, step)}
        tensors = prepare_batch(job, world, batch, epoch, step)
        if teaches(job, epoch):
            tensors["plain"] = _view(job, world, batch, VIEWS_ONLY, 101, epoch, step)
        return tensors

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """One network, with a loss for each part of the training."""
        asked, first = _cluster(job.settings), self.loss(job.settings)

        def seen(turn: Turn) -> Tensors:
            other = turn.batch["plain"] if "plain" in turn.batch else turn.streams[NEIGHBOURS]["image"]
            logits = turn.networks[MAIN](torch.cat([turn.batch["image"], other]))
            return {"pairs": torch.stack(logits.chunk(2), dim=1)}

        def loss(outputs: Tensors, turn: Turn) -> Tensor:
            if "plain" not in turn.batch:
                return first(outputs["pairs"], turn.batch)
            value, part = sure_teach(outputs["pairs"], asked.threshold)
            turn.told["sure"] = part
            return value

        return [Player(module=module, network=wrap(module), frozen=loaded, forward=seen, loss=loss)]

    def outputs_on(self, job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
        """Logits ``(n, 2 cluster)`` of rows in their order: of the stamp as it is, and of a view of it."""

        def both(sky: Tensor, number: int) -> Tensor:
            view = augment_batch(sky, job.augment, _rng(job, 67, world.rank, number), noise_levels=job.noise)
            return torch.cat([module(shown_to_network(job, one)) for one in (sky, view)], dim=1)

        return per_stamp(job, rows, world, both)

    def numbers(self, outputs: Array, truth: Truth, rows: Rows, loss: Loss) -> dict[str, Any]:
        """The loss with a view of a stamp in the place of its neighbour, and what `measure` gives."""
        pairs = torch.from_numpy(finite(outputs).reshape(len(outputs), 2, -1)).float()
        return {"val_loss": float(loss(pairs, {}))} | self.measure(outputs, truth, rows)

    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """Part in the largest cluster; agreement with the labels, where there are any (`lenspipe.stats.partition`)."""
        said = outputs[:, : outputs.shape[1] // 2].argmax(axis=1)
        found: dict[str, Any] = {"largest": float(np.bincount(said).max() / len(said))}
        table = _table(outputs, truth, rows)
        if table.sum() < 2:
            return found
        numbers = agreement(table)
        for name in ("ari", "nmi", "accuracy"):
            found |= bounded(name, numbers[name], numbers[f"{name}_interval95"])
        return found

    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """``clusters.png``: the logits in their two directions of largest variance, a colour per cluster."""
        from lenspipe.report.plots import plane_plot

        logits = outputs[:, : outputs.shape[1] // 2]
        return {"clusters.png": plane_plot(logits, logits.argmax(axis=1))}


def mined(job: TrainJob, world: World) -> tuple[Rows, NDArray[np.int64]]:
    """
    Training rows ``(n,)``, and for each the rows of its nearest neighbours ``(n, k)`` in the model that is built on.

    Its vectors where it is an embedding, the features of its trunk where it is not.
    """
    rows = job.truth.train
    if len(rows) > MOST:
        rows = np.sort(_rng(job, 89).permutation(rows)[:MOST])
    base, card = load_model(base_folder(job.pretrained, "cluster"))
    base = base.to(world.device)

    def described(sky: Tensor, number: int) -> Tensor:
        seen = shown_to_network(job, sky)
        found: Tensor = base(seen) if card.task == "embed" else base.forward_features(seen)
        return found

    vectors = per_stamp(job, rows, world, described)
    return rows, rows[nearest(vectors, _cluster(job.settings).neighbours)]


def teaches(job: TrainJob, epoch: int) -> bool:
    """Whether an epoch is one of the last ones, in which sure stamps teach."""
    epochs, part = job.settings.optim.epochs, _cluster(job.settings).self_label_part
    return epoch >= max(1, epochs - round(part * epochs))


def _view(
    job: TrainJob, world: World, batch: Batch, settings: AugmentSettings, purpose: int, epoch: int, step: int
) -> Tensor:
    sky = on_device(batch, world.device)["image"] / job.card.pixel_scale_arcsec**2
    rng = _rng(job, purpose, epoch, step, world.rank)
    return shown_to_network(job, augment_batch(sky, settings, rng, noise_levels=job.noise))


def _table(outputs: Array, truth: Truth, rows: Rows) -> NDArray[np.int64]:
    labels, n_cluster = truth.labels[rows], outputs.shape[1] // 2
    known = labels >= 0
    said = outputs[known, :n_cluster].argmax(axis=1)
    return contingency(labels[known], said, int(truth.labels.max()) + 1, n_cluster)


def _cluster(settings: TrainSettings) -> ClusterSettings:
    return settings.cluster or ClusterSettings()


def _rng(job: TrainJob, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([job.seed, *numbers])
