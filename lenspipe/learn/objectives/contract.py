"""What a training is for, as an object: the rows that it reads, the card's outputs, losses, numbers and picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lenspipe.errors import ConfigError, ModelError
from lenspipe.learn.batches import epoch_batches, outputs_on, prepare_batch
from lenspipe.learn.fit import Batch, Stream
from lenspipe.learn.losses import Loss, Tensors
from lenspipe.learn.players import Player, supervised
from lenspipe.learn.settings import AugmentSettings, InputSettings, LabelSettings, TrainSettings
from lenspipe.learn.truth import Answers, Truth
from lenspipe.learn.upon import weights_of
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.outputs import TASKS, Outputs
from lenspipe.stamps.format import ImageSpec, StampSet

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob
    from lenspipe.learn.order import Rows
    from lenspipe.learn.world import World

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Chance:
    """A number of the history, and what it is where nothing was learnt."""

    number: str
    """Name of the number; it comes with its interval, as ``NAME_low`` and ``NAME_high``."""
    value: float
    """Its value at chance."""


class Objective(ABC):
    """
    One task of a training; no other file of `lenspipe.learn` asks which task it is.

    What has a default here is the way of a supervised network: one player, a stream of labelled stamps, one view.
    """

    outputs: ClassVar[type[Any]]
    """Class of `lenspipe.nn.outputs` that the card gets; its task is the objective's name."""
    metric: ClassVar[str]
    """Number of the history by which a sweep ranks; `lenspipe.learn.settings.less_is_better` has its direction."""
    chance: ClassVar[Chance]
    """What a trial of a sweep must be better than, within its interval, to have a rank."""
    augment: ClassVar[AugmentSettings] = AugmentSettings()
    """Augmentation where the settings name none."""
    balanced: ClassVar[bool] = True
    """Whether classes may be given equal shares of an epoch (``sampling.balance``)."""
    channels_last: ClassVar[bool] = False
    """Whether pixels lie with their channels side by side on a CPU too, where the settings do not say."""
    n_view: ClassVar[int] = 1
    """Augmented copies of each stamp in a batch: ``image``, ``image_1``, ..."""
    adapts: ClassVar[bool] = False
    """Whether a second domain is read (the table ``adapt``)."""
    deflects: ClassVar[bool] = False
    """Whether stamps are bent by small masses (the table ``deflect``)."""

    at_once: ClassVar[bool] = False
    """Whether nothing is trained in steps: `fit_at_once` makes the model."""

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.outputs.model_fields["task"].default)

    def check(self, settings: TrainSettings) -> None:
        """Raise `ConfigError` where settings do not go with the task, before anything is read."""
        self.loss(settings)
        others = (name for name in TASKS if name != self.task and getattr(settings, name, None) is not None)
        if (other := next(others, None)) is not None:
            raise ConfigError(f"the table {other} belongs to the task {other}: leave it out", task=self.task)
        if settings.deflect is not None and not self.deflects:
            raise ConfigError("the table deflect belongs to the method deflect: leave it out", task=self.task)
        if settings.adapt is not None and not self.adapts:
            raise ConfigError("a target needs a method that adapts to it: --adapt METHOD", target=settings.adapt.target)

    def begun_from(
        self, model: str | None, settings: TrainSettings, pretrained: str | None
    ) -> tuple[str, TrainSettings, str | None]:
        """
        Family, settings and weights of a request; a task that builds on a model takes them from its card.

        Raises
        ------
        ConfigError
            What is needed is not said.
        """
        if model is None:
            raise ConfigError("say which network: --model NAME (`lenspipe models`)", task=self.task)
        return model, settings, weights_of(pretrained)

    def fit_at_once(self, job: TrainJob) -> ModelCard:
        """Make and write the model of an objective that is fitted `at_once`."""
        raise NotImplementedError

    @abstractmethod
    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """
        Labels or targets of the rows of a data set.

        Parameters
        ----------
        data : StampSet
        settings : LabelSettings
        train : bool array (n,)
            Rows of the training split.

        Raises
        ------
        ConfigError, DataError
            What is asked for is not there, or there is nothing to learn.
        """

    def numbered(
        self, label: NDArray[np.object_], settings: LabelSettings, classes: tuple[str, ...]
    ) -> NDArray[np.int16]:
        """
        Labels of another data set as numbers of these classes; -1 where one is none of them.

        Raises
        ------
        ConfigError
            The task has no classes.
        """
        raise ConfigError("this task has no classes", task=self.task)

    def network_settings(self, outputs: Any) -> dict[str, int]:
        """Settings of the family that follow from what the network is to give (`card_outputs`)."""
        return {}

    def example(self, card: ModelCard, module: nn.Module) -> tuple[torch.Tensor, ...]:
        """Inputs of two empty stamps, by which a network is tried before its first step."""
        stamps = torch.zeros(2, card.n_channel, card.stamp_px, card.stamp_px)
        return (stamps, torch.zeros(2, len(card.features))) if card.features else (stamps,)

    def check_network(self, module: nn.Module, settings: TrainSettings) -> None:
        """Raise `ModelError` where a family does not serve the task, before any step."""
        return None

    def finished(self, card: ModelCard, outputs: Array, truth: Truth, rows: Rows) -> ModelCard:
        """The card of a finished training, with what its outputs of the validation rows give; see `measure`."""
        return card

    def check_surveys(self, truth: Truth, surveys: NDArray[np.object_]) -> None:
        """Raise `DataError` where a network would learn to tell surveys ``(n,)`` instead of what is asked."""
        return None

    @abstractmethod
    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Outputs:
        """What the network is to give."""

    def stretch(self, settings: InputSettings, band_scales: tuple[float, ...]) -> Stretch:
        """How surface brightness becomes the network's input; ``band_scales`` are given or measured."""
        return Stretch(
            name=settings.stretch,
            band_scales=band_scales,
            mix=settings.mix,
            alpha=settings.alpha,
            q=settings.q,
            standardise=settings.standardise,
            smooth_residual=settings.smooth_residual,
            high_pass_px=settings.high_pass_px,
            high_pass_beside=settings.high_pass_beside,
            channel_scales=None if settings.channel_scales == "measured" else settings.channel_scales,
        )

    def shape(self, card: ModelCard) -> tuple[int, ...]:
        """Shape of the network's output for a stamp."""
        return () if card.n_out == 1 else (card.n_out,)

    @abstractmethod
    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """Losses that go with the settings by name, the default one first."""

    @abstractmethod
    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """
        What a training watches beside its loss, each number with its 95 % interval as ``NAME_low``, ``NAME_high``.

        Parameters
        ----------
        outputs : array (n,) or (n, n_out)
            What the network gives for the rows.
        truth : Truth
        rows : array (n,)
        """

    @abstractmethod
    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """PNG files to look at, by name, of outputs as `measure` takes them."""

    def curriculum(self, values: Array, truth: Truth) -> Array:
        """Values ``(n,)`` of the column of a curriculum; NaN for rows that are shown from the first epoch on."""
        return values

    def begin(
        self, stamps_njy: NDArray[np.float32], settings: TrainSettings, truth: Truth, spec: ImageSpec, seed: int
    ) -> Any:
        """What must be known of some training stamps ``(n, band, y, x)`` before the first step; goes with the job."""
        return None

    def concluded(self, job: TrainJob, history: list[dict[str, Any]], measured: dict[str, Any]) -> dict[str, Any]:
        """What goes into the card's metrics beside ``measured`` of the validation split."""
        return {}

    def patient_from(self, settings: TrainSettings) -> int:
        """Epoch (from 0) before which patience counts none."""
        return 0

    def streams(self, job: TrainJob, world: World) -> dict[str, Stream]:
        """Batches of an epoch by the name of their stream; the first makes the epoch."""
        return {"train": lambda epoch: epoch_batches(job, world, epoch)}

    def prepare(self, job: TrainJob, world: World, stream: str, batch: Batch, epoch: int, step: int) -> Tensors:
        """A batch of a stream on the device."""
        return prepare_batch(job, world, batch, epoch, step, n_view=self.n_view)

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """
        Who steps in the fit; the first has the network that becomes the model.

        Parameters
        ----------
        job : TrainJob
        module : nn.Module
            The card's network.
        wrap : function
            A module as it is called where several workers train; for every module that a player steps.
        loaded : collection of str
            Parameters of the network that came from pretrained weights.
        """
        loss = supervised(self.loss(job.settings))
        return [Player(module=module, network=wrap(module), frozen=loaded, loss=loss)]

    def outputs_on(self, job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
        """Outputs of rows in their order, without augmentation, as `measure` takes them; of all workers."""
        return outputs_on(job, module, rows, world)

    def loss(self, settings: TrainSettings) -> Loss:
        """
        The loss that the settings name, or the first.

        Raises
        ------
        ConfigError
            It is not one of the objective's, or does not go with the outputs.
        """
        there = self.losses(settings)
        default: str = next(iter(there.keys()))
        name = settings.loss.name or default
        if name not in there:
            raise ConfigError(
                f"this loss does not go with the task; {self.task} takes {' or '.join(there)} with these settings",
                loss=name,
                task=self.task,
            )
        return there[name]

    def numbers(self, outputs: Array, truth: Truth, rows: Rows, loss: Loss) -> dict[str, Any]:
        """
        Loss and measured numbers of the validation split.

        Raises
        ------
        ModelError
            An output is not finite.
        """
        finite(outputs)
        batch = {
            "label": torch.from_numpy(truth.labels[rows].astype(np.int64)),
            "target": torch.from_numpy(truth.targets[rows]),
        }
        value = float(loss(torch.from_numpy(outputs).float(), batch))
        return {"val_loss": value} | self.measure(outputs, truth, rows)


def finite(outputs: Array) -> Array:
    """The outputs; raises `ModelError` where one is not finite."""
    if not np.isfinite(outputs).all():
        raise ModelError("the network gave numbers that are not finite: lower the learning rate", n=len(outputs))
    return outputs


def no_targets(settings: LabelSettings, task: str) -> None:
    """Raise `ConfigError` where targets are given to a task that has none."""
    if settings.targets:
        raise ConfigError("labels.targets belong to the task regress", task=task, got=",".join(settings.targets))
