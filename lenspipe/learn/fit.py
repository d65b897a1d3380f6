"""The fit loop as a plain function: batches in, weights out, a state after each epoch that the next run starts from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lenspipe.errors import DataError, ModelError

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to fit; see `fit`."""

    epochs: int
    """Epochs in all."""
    steps_per_epoch: int
    """Batches an epoch; the schedule is laid out over ``epochs * steps_per_epoch``."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.02
    """Decoupled weight decay, on matrices and kernels only."""
    warmup_fraction: float = 0.05
    """Part of the steps over which the learning rate rises linearly; then it falls as a half cosine to zero."""
    ema_decay: float = 0.998
    """Decay a step of the exponential moving average of the weights, which is what is kept."""
    label_smoothing: float = 0.0
    """Labels are moved this far towards one half, times one half."""
    seed: int = 0
    """Seed of dropout; each epoch seeds from (seed, epoch), so a resumed run repeats an unbroken one."""


@dataclass
class FitState:
    """All that the next epoch needs: weights, averaged weights, the optimizer's moments, and the history so far."""

    epoch: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def averaged(self) -> dict[str, Tensor]:
        """State dictionary of the averaged weights."""
        return {name[4:]: tensor for name, tensor in self.tensors.items() if name.startswith("ema.")}


def fit(
    module: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    settings: FitSettings,
    *,
    state: FitState | None = None,
    validate: Callable[[nn.Module], dict[str, Any]] | None = None,
    on_epoch: Callable[[FitState], None] | None = None,
) -> FitState:
    """
    Fit a module with one logit a stamp to labels 0 and 1; the module ends with the averaged weights.

    AdamW (Loshchilov & Hutter 2019) on binary cross-entropy, linear warm-up and cosine decay, weights averaged over
    steps (Polyak & Juditsky 1992, in exponential form); buffers such as batch norm's are taken as they are.

    Parameters
    ----------
    module : nn.Module
        ``(n, band, y, x)`` to logits ``(n,)``, on the device where it is to be trained.
    batches : function of the epoch
        Yields (stamps, labels) of that epoch; it must give the same for the same epoch if a resumed run is to repeat.
    settings : FitSettings
    state : FitState, optional
        Where an earlier run stopped.
    validate : function of the averaged module, optional
        Its numbers join the history.
    on_epoch : function of the state, optional
        Called after each epoch, to store it.

    Raises
    ------
    DataError
        A batch is not finite, or an epoch has no batch.
    """
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    parameters = dict(module.named_parameters())
    decay = [parameters[name] for name in names if parameters[name].ndim > 1]
    rest = [parameters[name] for name in names if parameters[name].ndim <= 1]
    groups = [{"params": decay, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    ema = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    state = state or FitState()
    if state.epoch:
        _restore(state, module, ema, optimizer)
    device = next(module.parameters()).device
    smooth = settings.label_smoothing
    for epoch in range(state.epoch, settings.epochs):
        torch.manual_seed(1_000_003 * settings.seed + epoch)
        module.train()
        losses: list[float] = []
        for step, (stamps, labels) in enumerate(batches(epoch)):
            rate = learning_rate_at(epoch * settings.steps_per_epoch + step, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            target = torch.from_numpy(labels).to(device) * (1 - smooth) + 0.5 * smooth
            logits = module(torch.from_numpy(stamps).to(device))
            loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise DataError("the loss is not finite: look for stamps that are not", epoch=epoch, step=step)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            # a short memory at first, so that the random start is forgotten
            seen = epoch * settings.steps_per_epoch + step
            _average(ema, module, min(settings.ema_decay, (1 + seen) / (10 + seen)))
        if not losses:
            raise DataError("an epoch has no batch", epoch=epoch)
        state = FitState(epoch + 1, _tensors(module, ema, optimizer), [*state.history])
        facts: dict[str, Any] = {"epoch": epoch + 1, "loss": float(np.mean(losses))}
        if validate is not None:
            facts |= _with_weights(module, ema, validate)
        state.history.append(facts)
        if on_epoch is not None:
            on_epoch(state)
    module.load_state_dict(ema)
    return state


def learning_rate_at(step: int, settings: FitSettings) -> float:
    """Learning rate at a step: linear warm-up, then half a cosine."""
    total = settings.epochs * settings.steps_per_epoch
    warm = max(1, round(settings.warmup_fraction * total))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    progress = min(1.0, (step - warm) / max(1, total - warm))
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def write_state(path: Path, state: FitState) -> None:
    """Write a state atomically as safetensors; history and epoch go into its metadata."""
    facts = {"epoch": str(state.epoch), "history": json.dumps(state.history)}
    partial = path.with_name(path.name + ".tmp")
    partial.write_bytes(save({name: tensor.contiguous() for name, tensor in state.tensors.items()}, metadata=facts))
    os.replace(partial, path)


def read_state(path: Path) -> FitState:
    """Read a state; raises `ModelError` where the file is broken."""
    try:
        raw = path.read_bytes()
        tensors = load(raw)
        length = int.from_bytes(raw[:8], "little")
        facts = json.loads(raw[8 : 8 + length])["__metadata__"]
        return FitState(int(facts["epoch"]), tensors, json.loads(facts["history"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"the fit's state cannot be read: {error}; delete it to start anew", file=str(path)) from error


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


def _tensors(module: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in ema.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _restore(state: FitState, module: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    module.load_state_dict({n[6:]: t for n, t in state.tensors.items() if n.startswith("model.")})
    for name, tensor in state.averaged().items():
        ema[name].copy_(tensor)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.tensors.items():
        if name.startswith("optimizer."):
            _, number, what = name.split(".")
            moments.setdefault(int(number), {})[what] = tensor.clone()
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
