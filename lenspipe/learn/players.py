"""Who steps in a fit: a module with a loss and an optimizer of its own, and what it is shown when it is its turn."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lenspipe.learn.losses import Loss, Tensors
from lenspipe.learn.settings import OptimSettings

MAIN, OUT = "model", "out"
"""Name of the only player there usually is, and of the only output of a network that gives one tensor."""


@dataclass(frozen=True)
class Turn:
    """What a player is shown when it is its turn."""

    networks: Mapping[str, nn.Module]
    """Networks of all players by name, as they are called."""
    averaged: Mapping[str, Mapping[str, Tensor]]
    """Averaged weights of all players by name, for `torch.func.functional_call`: a teacher that follows a network."""
    streams: Mapping[str, Tensors]
    """A batch of each stream by name."""
    epoch: int
    """Epoch, from 0."""
    step: int
    """Step of the whole fit, from 0."""
    told: dict[str, Tensor] = field(default_factory=dict)
    """Numbers that a loss tells beside: the history has the mean of each."""

    @property
    def batch(self) -> Tensors:
        """The batch of the first stream."""
        return next(iter(self.streams.values()))


Forward = Callable[[Turn], Tensors]
"""Named outputs of a player's turn."""
TurnLoss = Callable[[Tensors, Turn], Tensor]
"""Scalar to minimise, of the named outputs (float32) and of all that the player is shown."""


def supervised(loss: Loss) -> TurnLoss:
    """A loss of one output tensor and the first stream's batch, as the loss of a turn."""
    return lambda outputs, turn: loss(outputs[OUT], turn.batch)


def call(network: nn.Module, batch: Tensors) -> Tensor:
    """Output of a network for a batch: of its ``image``, and of its ``features`` where there are any."""
    outputs: Tensor = network(batch["image"], batch["features"]) if "features" in batch else network(batch["image"])
    return outputs


@dataclass(frozen=True, kw_only=True)
class Player:
    """
    A network that is trained, alone or in turn with others.

    Its loss may call any network of the turn; only the weights of its own module are moved.
    """

    module: nn.Module
    """On the device where it is to be trained."""
    loss: TurnLoss
    """What it minimises."""
    forward: Forward | None = None
    """Its outputs, under autocast; its network's output for the first stream, named ``out``, where None."""
    name: str = MAIN
    """Name by which others call it; the state file has it before the names of tensors, except of `MAIN`."""
    optim: OptimSettings | None = None
    """Its optimizer, rates, decays and frozen epochs; the fit's where None. Epochs are the fit's."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decays of Adam's moments per step."""
    network: nn.Module | None = None
    """What is called in place of the module whose weights it shares: wrapped for several workers, or compiled."""
    frozen: Collection[str] = ()
    """Names of parameters that stay as they are during ``optim.frozen_epochs``."""
    every: int = 1
    """It steps on every so many batches: 5 leaves an opponent five steps, each on another batch, before its own."""


class Seat:
    """A player at work: with its optimizer and the average of its weights."""

    def __init__(self, player: Player, optim: OptimSettings) -> None:
        self.player, self.name, self.module = player, player.name, player.module
        self.optim = player.optim or optim
        self.network = player.network or player.module
        self.optimizer = _optimizer(self.module, self.optim, player.betas)
        live = {name: tensor.detach() for name, tensor in self.module.state_dict().items()}
        # without a decay the average is the weights themselves, and no step copies them
        self.average = {n: t.clone() for n, t in live.items()} if self.optim.ema_decay else live
        self._held = [p for name, p in self.module.named_parameters() if name in set(player.frozen)]

    def step(self, turn: Turn, learning_rate: float, *, device: torch.device, bfloat16: bool) -> Tensor:
        """One step of the optimizer; returns the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            outputs = self.player.forward(turn) if self.player.forward else {OUT: call(self.network, turn.batch)}
        value = self.player.loss({k: t.float() if t.is_floating_point() else t for k, t in outputs.items()}, turn)
        self.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        if turn.epoch < self.optim.frozen_epochs:
            for parameter in self._held:
                parameter.grad = None  # the optimizer passes over parameters without a gradient
        _step(self.optimizer)
        if self.optim.ema_decay:
            # a short memory at first, so that the random start is forgotten
            self._follow(min(self.optim.ema_decay, (1 + turn.step) / (10 + turn.step)))
        return value.detach()

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        for name, tensor in self.module.state_dict().items():
            if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var")):
                self.average[name].lerp_(tensor, 1 - decay)
            else:
                self.average[name].copy_(tensor)


def _optimizer(module: nn.Module, optim: OptimSettings, betas: tuple[float, float]) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if optim.optimizer == "adamw" else torch.optim.Adam
    _spare_the_compiler()
    return kind(groups, lr=optim.learning_rate, betas=betas)


@functools.cache
def _spare_the_compiler() -> None:
    """
    Let optimizers work without torch's compiler.

    torch wraps their methods so that its compiler leaves them alone, and imports it for that: two seconds in every
    process that trains. Where it finds the method that the compiler would leave alone, it does not ask the compiler.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = inspect.unwrap(getattr(torch.optim.Optimizer, name))
        method.__dict__.setdefault("__dynamo_disable", method)


def _step(optimizer: torch.optim.Optimizer) -> None:
    """What the optimizer's own step does, without the wrapping that imports torch's compiler."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)
