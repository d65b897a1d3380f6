"""The state of a fit between two epochs, in memory and in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lenspipe.errors import ModelError
from lenspipe.learn.players import MAIN, Seat
from lenspipe.rundir import atomic_path

STATE_FILE = "state.safetensors"
"""State of a training in its folder, beside what becomes the model."""


@dataclass
class FitState:
    """All that the next epoch needs: weights, averaged weights, the optimizers' moments, and the history so far."""

    epoch: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def averaged(self, player: str = MAIN) -> dict[str, Tensor]:
        """State dictionary of a player's averaged weights."""
        return self.of(player, "ema")

    def best(self, player: str = MAIN) -> dict[str, Tensor] | None:
        """State dictionary of a player's averaged weights of the best epoch; None where nothing is monitored."""
        return self.of(player, "best") or None

    def of(self, player: str, kind: str) -> dict[str, Tensor]:
        """Tensors of a player and a kind: ``model``, ``ema``, ``best`` or ``optimizer``."""
        prefix = _prefix(player, kind)
        return {n.removeprefix(prefix): tensor for n, tensor in self.tensors.items() if n.startswith(prefix)}


def write_state(path: Path, state: FitState) -> None:
    """Write a state atomically as safetensors; history and epoch go into its metadata."""
    facts = {"epoch": str(state.epoch), "history": json.dumps(state.history)}
    with atomic_path(path) as partial:
        partial.write_bytes(save({name: tensor.contiguous() for name, tensor in state.tensors.items()}, metadata=facts))


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


def capture(seats: Sequence[Seat], best: Mapping[str, Mapping[str, Tensor] | None]) -> dict[str, Tensor]:
    """Tensors of a state, copied to the CPU: of every player its weights, averages, moments and best averages."""
    tensors: dict[str, Tensor] = {}
    for seat in seats:
        moments = seat.optimizer.state_dict()["state"]
        for kind, named in (
            ("model", seat.module.state_dict()),
            ("ema", seat.average),
            ("best", best[seat.name] or {}),
            ("optimizer", {f"{k}.{name}": value for k, of in moments.items() for name, value in of.items()}),
        ):
            tensors |= {_prefix(seat.name, kind) + name: torch.as_tensor(value) for name, value in named.items()}
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def restore(state: FitState, seats: Sequence[Seat]) -> None:
    """Bring weights, averages and moments back; raises `ModelError` where they are of another network."""
    for seat in seats:
        names = {name: tensor.shape for name, tensor in seat.module.state_dict().items()}
        if {name: tensor.shape for name, tensor in state.averaged(seat.name).items()} != names:
            raise ModelError(
                "the fit's state belongs to another network; delete it to start anew",
                epoch=state.epoch,
                player=seat.name,
            )
        seat.module.load_state_dict(state.of(seat.name, "model"))
        for name, tensor in state.averaged(seat.name).items():
            seat.average[name].copy_(tensor)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.of(seat.name, "optimizer").items():
            number, what = name.split(".")
            moments.setdefault(int(number), {})[what] = tensor.clone()
        groups = seat.optimizer.state_dict()["param_groups"]
        seat.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _prefix(player: str, kind: str) -> str:
    """States of before there were several players have no player's name."""
    return f"{kind}." if player == MAIN else f"{player}/{kind}."
