"""The fit loop as a plain function: batches in, weights out, a state after each epoch that the next run starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lenspipe.errors import DataError
from lenspipe.learn.fit_state import FitState, capture, read_state, restore, write_state
from lenspipe.learn.losses import Loss, Tensors, binary_cross_entropy
from lenspipe.learn.settings import less_is_better

__all__ = ["Batch", "FitSettings", "FitState", "fit", "learning_rate_at", "read_state", "stops", "write_state"]

Batch = dict[str, NDArray[Any]]
"""Arrays of a batch by name; ``image`` is what the network takes, ``label`` or ``target`` what it is held to."""
Prepare = Callable[[Batch, int, int], Tensors]
Forward = Callable[[nn.Module, Tensors], Tensor]

CHECK_EVERY_CPU, CHECK_EVERY_GPU = 1, 50
"""Steps between looks at the loss: each look waits for a GPU."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to fit; see `fit`."""

    epochs: int
    """Epochs in all."""
    steps_per_epoch: int
    """Batches an epoch; the schedule is laid out over ``epochs * steps_per_epoch``."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW (Loshchilov & Hutter 2019), or Adam with L2 regularisation."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    weight_decay: float = 0.02
    """Weight decay, on matrices and kernels only."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up."""
    warmup_fraction: float = 0.05
    """Part of the steps over which the learning rate rises linearly; a cosine then falls to zero."""
    ema_decay: float = 0.998
    """Decay a step of the exponential moving average of the weights, which is what is kept; 0 keeps the last."""
    label_smoothing: float = 0.0
    """Of the default loss: labels are moved this far towards one half."""
    seed: int = 0
    """Seed of dropout; each epoch seeds from (seed, epoch), so a resumed run repeats an unbroken one."""
    stream: int = 0
    """Number of the worker, so that dropout differs between workers."""
    frozen_epochs: int = 0
    """First epochs in which the tensors named ``frozen`` stay as they are."""
    monitor: str | None = None
    """Number of the history whose best epoch's weights are kept; the last epoch's where None."""
    patience: int | None = None
    """Epochs without a better ``monitor`` after which the fit ends."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16``: autocast; weights, outputs and loss stay float32."""


def fit(
    module: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    settings: FitSettings,
    *,
    loss: Loss | None = None,
    forward: Forward | None = None,
    prepare: Prepare | None = None,
    network: nn.Module | None = None,
    frozen: Collection[str] = (),
    state: FitState | None = None,
    validate: Callable[[nn.Module], dict[str, Any]] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[FitState], None] | None = None,
) -> FitState:
    """
    Fit a module; it ends with the averaged weights, of the last epoch or of the best by ``monitor``.

    Adam on any loss, linear warm-up and cosine decay, weights averaged over steps (Polyak & Juditsky 1992, in
    exponential form); buffers such as batch norm's are taken as they are.

    Parameters
    ----------
    module : nn.Module
        On the device where it is to be trained.
    batches : function of the epoch
        Yields the batches of that epoch, arrays by name; it must give the same for the same epoch if a resumed run is
        to repeat.
    settings : FitSettings
    loss : function of (outputs, batch), optional
        Scalar to minimise. The batch holds tensors by name and ``epoch``. Binary cross-entropy of ``label`` by default.
    forward : function of (network, batch), optional
        Outputs of the network; ``network(batch["image"])`` by default.
    prepare : function of (batch, epoch, step), optional
        Arrays to tensors on the device, augmentation included; a plain copy by default.
    network : nn.Module, optional
        What is called in place of the module whose weights it shares: wrapped for several workers, or compiled.
    frozen : collection of str
        Names of parameters that stay as they are during ``frozen_epochs``.
    state : FitState, optional
        Where an earlier run stopped.
    validate : function of the averaged module, optional
        Its numbers join the history.
    on_step : function of (epoch, step), optional
        Called after each step.
    on_epoch : function of the state, optional
        Called after each epoch, to store it.

    Raises
    ------
    DataError
        A batch is not finite, or an epoch has no batch.
    """
    device = next(module.parameters()).device
    loss = loss or binary_cross_entropy(settings.label_smoothing)
    forward = forward or (lambda net, batch: net(batch["image"]))
    prepare = prepare or (lambda batch, epoch, step: {k: torch.from_numpy(v).to(device) for k, v in batch.items()})
    network = network or module
    optimizer = _optimizer(module, settings)
    ema = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    state = state or FitState()
    best = state.best()
    if state.epoch:
        restore(state, module, ema, optimizer)
    look_every = CHECK_EVERY_GPU if device.type == "cuda" else CHECK_EVERY_CPU
    held = [parameter for name, parameter in module.named_parameters() if name in set(frozen)]
    while state.epoch < settings.epochs and not stops(state.history, settings.monitor, settings.patience):
        epoch = state.epoch
        torch.manual_seed(1_000_003 * settings.seed + epoch + 7919 * settings.stream)
        module.train()
        losses: list[Tensor] = []
        for step, arrays in enumerate(batches(epoch)):
            seen = epoch * settings.steps_per_epoch + step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(seen, settings)
            batch = prepare(arrays, epoch, step) | {"epoch": torch.tensor(epoch)}
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                outputs = forward(network, batch)
            value = loss(outputs.float(), batch)
            losses.append(value.detach())
            if step % look_every == 0:
                _refuse_infinite(losses[-look_every:], epoch, step)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            if epoch < settings.frozen_epochs:
                for parameter in held:
                    parameter.grad = None  # the optimizer passes over parameters without a gradient
            optimizer.step()
            # a short memory at first, so that the random start is forgotten
            _average(ema, module, min(settings.ema_decay, (1 + seen) / (10 + seen)))
            if on_step is not None:
                on_step(epoch, step)
        if not losses:
            raise DataError("an epoch has no batch", epoch=epoch)
        _refuse_infinite(losses, epoch, len(losses) - 1)
        facts: dict[str, Any] = {"epoch": epoch + 1, "loss": float(torch.stack(losses).double().mean())}
        facts["learning_rate"] = learning_rate_at(seen, settings)
        if validate is not None:
            facts |= _with_weights(module, ema, validate)
        history = [*state.history, facts]
        if settings.monitor is not None and _best_epoch(history, settings.monitor) == epoch:
            best = {name: tensor.detach().clone() for name, tensor in ema.items()}
        state = FitState(epoch + 1, capture(module, ema, optimizer, best), history)
        if on_epoch is not None:
            on_epoch(state)
    module.load_state_dict(best or ema)
    return state


def learning_rate_at(step: int, settings: FitSettings) -> float:
    """Learning rate at a step: linear warm-up, then half a cosine, or constant."""
    total = settings.epochs * settings.steps_per_epoch
    warm = max(1, round(settings.warmup_fraction * total))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = min(1.0, (step - warm) / max(1, total - warm))
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def stops(history: list[dict[str, Any]], monitor: str | None, patience: int | None) -> bool:
    """Whether the monitored number has not become better for ``patience`` epochs."""
    if monitor is None or patience is None or not history:
        return False
    return len(history) - 1 - _best_epoch(history, monitor) >= patience


def _best_epoch(history: list[dict[str, Any]], monitor: str) -> int:
    """Epoch (from 0) of the best value: the lowest of losses and errors, else the highest; the first among equals."""
    if monitor not in history[-1]:
        numbers = ",".join(k for k, v in history[-1].items() if isinstance(v, float))
        raise DataError("the monitored number is not measured", monitor=monitor, measured=numbers)
    values = [math.nan if row[monitor] is None else float(row[monitor]) for row in history]
    if np.isnan(values).all():
        return len(values) - 1
    return int(np.nanargmin(values) if less_is_better(monitor) else np.nanargmax(values))


def _optimizer(module: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.learning_rate)


def _refuse_infinite(losses: list[Tensor], epoch: int, step: int) -> None:
    if not bool(torch.isfinite(torch.stack(losses)).all()):
        raise DataError("the loss is not finite: look for stamps that are not", epoch=epoch, step=step)


@torch.no_grad()
def _average(ema: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var")):
            ema[name].lerp_(tensor, 1 - decay)
        else:
            ema[name].copy_(tensor)


def _with_weights(
    module: nn.Module, weights: dict[str, Tensor], measure: Callable[[nn.Module], dict[str, Any]]
) -> dict[str, Any]:
    own = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(weights)
    module.eval()
    try:
        return measure(module)
    finally:
        module.load_state_dict(own)
