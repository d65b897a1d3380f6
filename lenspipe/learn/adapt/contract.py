"""What every method of adaptation is: a loss between two domains, and the opponents that it plays against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.learn.losses import Loss, Tensors
from lenspipe.learn.players import MAIN, Turn
from lenspipe.learn.settings import AdaptSettings
from lenspipe.nn.network import Network

TARGET = "target"
"""Name of the stream of the target domain."""


class TwoDomains(nn.Module):
    """A network that gives its features beside its outputs; with ``anchored`` it keeps a frozen copy of itself."""

    def __init__(self, network: Network, *, anchored: bool = False) -> None:
        super().__init__()
        self.network = network
        self.anchor: Network | None = None
        if anchored:
            import copy

            self.anchor = copy.deepcopy(network).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensors:
        """``(n, channel, y, x)`` to ``out`` ``(n,)`` or ``(n, class)`` and ``features`` ``(n, num_features)``."""
        features = self.network.forward_features(images)
        return {"out": self.network.forward_head(features), "features": features}


@dataclass(frozen=True)
class Course:
    """How far a training is: first on the source alone, then adapting."""

    settings: AdaptSettings
    weight: float
    """Weight of the alignment."""
    from_epoch: int
    """First epoch that adapts."""
    epochs: int
    steps: int
    """Steps per epoch."""
    loss: Loss
    """Of outputs and labels."""

    def adapts(self, turn: Turn) -> bool:
        """Whether a turn is of an epoch that adapts."""
        return turn.epoch >= self.from_epoch

    def begins(self, turn: Turn) -> bool:
        """Whether it is the first that does."""
        return turn.step == self.from_epoch * self.steps

    def progress(self, turn: Turn) -> float:
        """From 0 at the first step that adapts to 1 at the end."""
        first = self.from_epoch * self.steps
        return min(1.0, max(0.0, (turn.step - first) / max(1, self.epochs * self.steps - first)))


@dataclass
class Rival:
    """An opponent of the network: what it steps on, and the loss of features that it minimises."""

    module: nn.Module
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    """Of the network as it is called, and of features of source and target, which are cut off from their network."""
    betas: tuple[float, float] = (0.5, 0.999)
    seen: dict[str, Tensor] = field(default_factory=dict)
    """Features of the step that is under way."""


class Adaptation(ABC):
    """One method. Labels of the target are seen by those that say so in ``target_labels``, and by nothing else."""

    name: ClassVar[str]
    weight: ClassVar[float] = 1.0
    """Weight of its loss where the settings name none."""
    target_labels: ClassVar[Literal["none", "few", "all"]] = "none"
    """Which labels of the target's training split it reads."""
    keeps_source: ClassVar[bool] = True
    """Whether the loss of the source goes on while it adapts."""
    sees_target: ClassVar[bool] = True
    """Whether it ever adapts."""
    n_view: ClassVar[int] = 1
    """Views of each stamp: ``image``, ``image_1``."""
    weak_first: ClassVar[bool] = False
    """Whether the first of two views is only turned and mirrored."""
    anchored: ClassVar[bool] = False
    """Whether a frozen copy of the network of the source is kept."""
    normalises: ClassVar[bool] = False
    """Whether it acts through batch norms, so that a network without any cannot be adapted."""

    def first_epoch(self, settings: AdaptSettings, epochs: int) -> int:
        """First epoch that adapts, of so many."""
        return max(1, round(settings.source_part * epochs))

    def rivals(self, n_feature: int, settings: AdaptSettings) -> dict[str, Rival]:
        """Opponents by name; none by default."""
        return {}

    def forward(self, turn: Turn, whole: TwoDomains, course: Course) -> Tensors:
        """
        Outputs and features of both domains: ``source_out``, ``source_features``, ``target_out``, ``target_features``.

        They go through the network as one batch, so that its statistics are those of both; or one after the other
        where ``statistics`` is ``own``, and the network keeps those of the target, for which it is.
        """
        source, target = turn.batch["image"], turn.streams[TARGET]["image"]
        if course.settings.statistics == "own":
            with statistics_kept(whole):
                of_source = whole(source)
            of_target = turn.networks[MAIN](target)
            return joined_domains(of_source, of_target)
        both = turn.networks[MAIN](torch.cat([source, target]))
        return split_domains(both, len(source))

    @abstractmethod
    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """What is to be small beside the loss of the source, of the outputs of `forward`."""

    def strength(self, progress: float) -> float:
        """Factor on the weight while it adapts, from 0 to 1."""
        return 1.0


def split_domains(both: Tensors, n_source: int) -> Tensors:
    """Outputs of a batch of both domains, source first, by name."""
    return {f"source_{name}": x[:n_source] for name, x in both.items()} | {
        f"target_{name}": x[n_source:] for name, x in both.items()
    }


def joined_domains(of_source: Tensors, of_target: Tensors) -> Tensors:
    """Outputs of both domains by name, as `split_domains` gives them."""
    return {f"source_{k}": x for k, x in of_source.items()} | {f"target_{k}": x for k, x in of_target.items()}


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """Layers of a network that normalise by their batch and remember it."""
    return [layer for layer in network.modules() if isinstance(getattr(layer, "running_mean", None), Tensor)]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norms normalise by their batch as in training, and do not remember it."""
    norms = batch_norms(network)
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # type: ignore[assignment]
    try:
        yield
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum


def perceptron(n_in: int, hidden: int) -> nn.Sequential:
    """Two hidden layers and one number: an opponent."""
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(0)
    )


def rising(progress: float) -> float:
    """0 to 1 as ``2 / (1 + exp(-10 p)) - 1`` (Ganin et al. 2016, section 5.2.2)."""
    return 2.0 / (1.0 + float(torch.exp(torch.tensor(-10.0 * progress)))) - 1.0


def log_probabilities(outputs: Tensor) -> Tensor:
    """Logits ``(n,)`` or ``(n, class)`` to the logarithms of the probabilities of classes ``(n, class)``."""
    if outputs.ndim == 1:
        return torch.stack([functional.logsigmoid(-outputs), functional.logsigmoid(outputs)], dim=1)
    return functional.log_softmax(outputs, dim=1)


def domain_entropy(said_of_source: Tensor, said_of_target: Tensor) -> Tensor:
    """Cross-entropy of an opponent's logits, source 1 and target 0, each domain half of it."""
    ones, zeros = torch.ones_like(said_of_source), torch.zeros_like(said_of_target)
    cross = functional.binary_cross_entropy_with_logits
    return 0.5 * (cross(said_of_source, ones) + cross(said_of_target, zeros))
