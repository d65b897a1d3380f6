"""Find or classify in another domain than the one with labels: two streams, and a loss between them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lenspipe.errors import ConfigError, ModelError
from lenspipe.learn.adapt.contract import TARGET, Adaptation, Course, Rival, TwoDomains, batch_norms
from lenspipe.learn.adapt.target import Target, open_target
from lenspipe.learn.adapt.watch import Both, directions, domain_probe, guard, information
from lenspipe.learn.batches import batch_of, epoch_batches, on_device, prepare_batch, shown_to_network, weak_and_strong
from lenspipe.learn.fit import Batch, Stream, best_epoch
from lenspipe.learn.losses import Loss, Tensors
from lenspipe.learn.objectives.classify import ClassifyStamps
from lenspipe.learn.objectives.contract import Array, Chance, Objective
from lenspipe.learn.objectives.find import FindLenses
from lenspipe.learn.order import Rows, in_turn
from lenspipe.learn.players import MAIN, Player, Turn
from lenspipe.learn.settings import AdaptSettings, OptimSettings, TrainSettings
from lenspipe.learn.truth import Truth
from lenspipe.learn.world import World
from lenspipe.nn.network import Network
from lenspipe.stamps.format import ImageSpec

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob

NOT_MONITORED = ("target_", "source_loss", "align_loss", "sure")


class Adapted(Objective):
    """
    A task with labels in a source and stamps in a target; the method is a `lenspipe.learn.adapt.contract.Adaptation`.

    The history has the loss of the source and of the method, numbers of the source's validation split as without
    adaptation, ``domain_auc`` (how well the features tell the domains), ``information`` and ``unlabelled`` (what may
    choose an epoch, as no label of the target goes into them), and as ``target_...`` what the target's validation
    labels say, which choose nothing.
    """

    adapts = True
    plain: Objective
    """The task without adaptation."""

    def __init__(self, method: Adaptation) -> None:
        self.how = method

    def check(self, settings: TrainSettings) -> None:
        """Refuse features, and an epoch that is chosen by the target's labels."""
        super().check(settings)
        if settings.input.features:
            names = ",".join(settings.input.features)
            raise ConfigError("an adaptation takes the image alone: leave out input.features", features=names)
        monitor = settings.optim.monitor
        if monitor is not None and monitor.startswith(NOT_MONITORED):
            raise ConfigError(
                "labels of the target choose no epoch: monitor 'unlabelled', 'information' or a number of the source",
                got=monitor,
            )
        if self.how.name == "self-ensemble" and not settings.optim.ema_decay:
            raise ConfigError("the teacher is the average of the weights: set optim.ema_decay above 0")
        first, epochs = self._first(settings), settings.optim.epochs
        if self.how.sees_target and first >= epochs:
            raise ConfigError("no epoch is left to adapt: more epochs, or a smaller adapt.source_part", epochs=epochs)

    def begin(
        self, stamps_njy: NDArray[np.float32], settings: TrainSettings, truth: Truth, spec: ImageSpec, seed: int
    ) -> Target:
        """The target."""
        return open_target(
            settings,
            truth,
            spec,
            reads=self.how.target_labels,
            numbered=lambda label: self.numbered(label, settings.labels, truth.classes),
            seed=seed,
        )

    def streams(self, job: TrainJob, world: World) -> dict[str, Stream]:
        """Stamps of the source with labels, and of the target."""
        target: TrainJob = job.beside.job(job)
        return {
            "train": lambda epoch: epoch_batches(job, world, epoch),
            TARGET: lambda epoch: epoch_batches(target, world, epoch),
        }

    def prepare(self, job: TrainJob, world: World, stream: str, batch: Batch, epoch: int, step: int) -> Tensors:
        """A batch of either domain; with a weak view first where the method wants one."""
        if stream == TARGET:
            job = job.beside.job(job)
        if not self.how.weak_first:
            return prepare_batch(job, world, batch, epoch, step, n_view=self.how.n_view)
        return weak_and_strong(job, world, batch, epoch, step)

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """The network, and the opponents of the method."""
        assert isinstance(module, Network)
        if self.how.normalises and not batch_norms(module):
            raise ModelError(
                "this method acts through batch norms, and the family has none: choose another method or family",
                method=self.how.name,
                family=job.card.family,
            )
        device, asked = next(module.parameters()).device, _asked(job.settings)
        whole = TwoDomains(module, anchored=self.how.anchored).to(device)
        course = Course(
            asked,
            self.how.weight if asked.weight is None else asked.weight,
            self._first(job.settings),
            job.settings.optim.epochs,
            job.steps,
            self.loss(job.settings),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)
            rivals = self.how.rivals(module.num_features, asked)
        main = Player(
            module=whole,
            network=wrap(whole),
            frozen=[f"network.{name}" for name in loaded],
            forward=lambda turn: self._forward(turn, whole, course, rivals),
            loss=lambda outputs, turn: self._loss(outputs, turn, course),
        )
        return [main, *(_rival(name, one, job, course, device, wrap) for name, one in rivals.items())]

    def _forward(self, turn: Turn, whole: TwoDomains, course: Course, rivals: dict[str, Rival]) -> Tensors:
        if not course.adapts(turn):
            return {f"source_{k}": x for k, x in turn.networks[MAIN](turn.batch["image"]).items()}
        outputs = self.how.forward(turn, whole, course)
        for rival in rivals.values():
            rival.seen = {k: outputs[f"{k}_features"].detach().float() for k in ("source", "target")}
        return outputs

    def _loss(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        total = torch.zeros((), device=turn.batch["image"].device)
        if not course.adapts(turn) or self.how.keeps_source:
            source = course.loss(outputs["source_out"], turn.batch)
            turn.told["source_loss"] = source
            total = total + source
        if course.adapts(turn):
            apart = self.how.alignment(outputs, turn, course)
            turn.told["align_loss"] = apart
            total = total + course.weight * self.how.strength(course.progress(turn)) * apart
        return total

    def outputs_on(self, job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
        """`lenspipe.learn.adapt.watch.Both`, packed: of the rows, and of the target's validation split."""
        network = module.network if isinstance(module, TwoDomains) else module
        assert isinstance(network, Network)
        target: TrainJob = job.beside.job(job)
        held = target.truth.validation
        source, of_source = _with_features(job, network, rows, world)
        other, of_target = _with_features(target, network, held, world)
        return Both(source, other, target.truth.labels[held], *directions(of_source, of_target)).packed()

    def numbers(self, outputs: Array, truth: Truth, rows: Rows, loss: Loss) -> dict[str, Any]:
        """Loss of the source's validation split, and what `measure` gives."""
        both = Both.unpacked(outputs)
        loss_of_source = {"val_loss": self.plain.numbers(both.source, truth, rows, loss)["val_loss"]}
        return loss_of_source | self.measure(outputs, truth, rows)

    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """Numbers of the source, of the domains, and of the target's labels that are kept to judge."""
        both = Both.unpacked(outputs)
        found = self.plain.measure(both.source, truth, rows)
        told = information(both.target)
        found |= domain_probe(both) | {"information": told, "unlabelled": found[self.plain.metric] + told}
        judged = np.flatnonzero(both.labels >= 0)
        if len(np.unique(both.labels[judged])) == len(truth.classes):
            of_target = self.plain.measure(both.target[judged], replace(truth, labels=both.labels), judged)
            found |= {f"target_{name}": value for name, value in of_target.items()}
        return found

    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """Those of the source, and ``domains.png``: both domains in the plane of their features' largest variance."""
        from lenspipe.report.plots import domains_plot

        both = Both.unpacked(outputs)
        drawn = domains_plot(both.source_features, truth.labels[rows], both.target_features, both.labels)
        return self.plain.pictures(both.source, truth, rows) | {"domains.png": drawn}

    def concluded(self, job: TrainJob, history: list[dict[str, Any]], measured: dict[str, Any]) -> dict[str, Any]:
        """``adaptation``: the method, the target, and what `guard` says."""
        target: Target = job.beside
        first = self._first(job.settings)
        monitor = job.settings.optim.monitor
        kept = len(history) - 1 if monitor is None else best_epoch(history, monitor)
        judged = guard(history, measured, self.plain.metric, first, kept) if self.how.sees_target else {}
        facts = {"method": self.how.name, "target": target.title, "from_epoch": first, "n_judge": target.n_judge}
        read = 0 if self.how.target_labels == "none" else len(target.truth.train)
        return {"adaptation": facts | {"n_target_label_read": read} | judged}

    def patient_from(self, settings: TrainSettings) -> int:
        """The first epoch that adapts: what ends before it has not adapted."""
        return self._first(settings) if self.how.sees_target else 0

    def _first(self, settings: TrainSettings) -> int:
        return self.how.first_epoch(_asked(settings), settings.optim.epochs)


class AdaptedFind(Adapted, FindLenses):
    """Lenses of another survey."""

    plain = FindLenses()
    metric = "target_auc"
    chance = Chance("target_auc", 0.5)


class AdaptedClassify(Adapted, ClassifyStamps):
    """Classes in another survey."""

    plain = ClassifyStamps()
    metric = "target_auc"
    chance = Chance("target_auc", 0.5)


def _asked(settings: TrainSettings) -> AdaptSettings:
    return settings.adapt or AdaptSettings()


def _rival(
    name: str, rival: Rival, job: TrainJob, course: Course, device: torch.device, wrap: Callable[[nn.Module], nn.Module]
) -> Player:
    """An opponent as a player; before the first epoch that adapts it stays as it is."""
    module = rival.module.to(device)
    optim: OptimSettings = job.settings.optim
    own = {"ema_decay": 0.0, "schedule": "constant", "weight_decay": 0.0, "frozen_epochs": 0}
    rate = optim.learning_rate * course.settings.rival_rate

    def loss(outputs: Tensors, turn: Turn) -> Tensor:
        if not course.adapts(turn):
            return torch.stack([p.sum() * 0.0 for p in turn.networks[name].parameters()]).sum()
        return rival.loss(turn.networks[name], rival.seen["source"], rival.seen["target"])

    return Player(
        name=name,
        module=module,
        network=wrap(module),
        forward=lambda turn: {},
        loss=loss,
        optim=optim.model_copy(update=own | {"learning_rate": rate}),
        betas=rival.betas,
    )


def _with_features(job: TrainJob, network: Network, rows: Rows, world: World) -> tuple[Array, Array]:
    """Outputs and features of rows in their order, of all workers, without augmentation."""
    n = job.settings.sampling.batch_size
    window = job.index.window(job.settings.sampling.window_mib * 2**20)
    share = in_turn(rows, job.index.group_starts, window).share(world.rank, world.size)
    out: list[Array] = [np.empty((0,) if job.card.n_out == 1 else (0, job.card.n_out))]
    features: list[Array] = [np.empty((0, network.num_features))]
    with torch.inference_mode():
        for some, stamps in world.feed(job.index, share, batch_size=n):
            sky = on_device(batch_of(job, some, stamps), world.device)["image"] / job.card.pixel_scale_arcsec**2
            found = network.forward_features(shown_to_network(job, sky))
            features.append(found.double().cpu().numpy())
            out.append(network.forward_head(found).double().cpu().numpy())
    return world.gather(np.concatenate(out)), world.gather(np.concatenate(features))
