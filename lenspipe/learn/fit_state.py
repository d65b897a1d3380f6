"""The state of a fit between two epochs, in memory and in a file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lenspipe.errors import ModelError


@dataclass
class FitState:
    """All that the next epoch needs: weights, averaged weights, the optimizer's moments, and the history so far."""

    epoch: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def averaged(self) -> dict[str, Tensor]:
        """State dictionary of the averaged weights."""
        return self._of("ema.")

    def best(self) -> dict[str, Tensor] | None:
        """State dictionary of the averaged weights of the best epoch; None where nothing is monitored."""
        return self._of("best.") or None

    def _of(self, prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): tensor for n, tensor in self.tensors.items() if n.startswith(prefix)}


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


def capture(
    module: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer, best: dict[str, Tensor] | None
) -> dict[str, Tensor]:
    """Tensors of a state, copied to the CPU."""
    tensors = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in ema.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in (best or {}).items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def restore(state: FitState, module: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Bring weights, averages and moments back; raises `ModelError` where they are of another network."""
    names = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.averaged().items()} != names:
        raise ModelError("the fit's state belongs to another network; delete it to start anew", epoch=state.epoch)
    module.load_state_dict({n.removeprefix("model."): t for n, t in state.tensors.items() if n.startswith("model.")})
    for name, tensor in state.averaged().items():
        ema[name].copy_(tensor)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.tensors.items():
        if name.startswith("optimizer."):
            _, number, what = name.split(".")
            moments.setdefault(int(number), {})[what] = tensor.clone()
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
