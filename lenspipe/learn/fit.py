"""The fit loop as a plain function: batches in, weights out, a state after each epoch that the next run starts from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lenspipe.errors import ConfigError, DataError
from lenspipe.learn.fit_state import FitState, capture, read_state, restore, write_state
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import Player, Seat, Turn
from lenspipe.learn.settings import OptimSettings, less_is_better

__all__ = [
    "Batch",
    "FitState",
    "Player",
    "Turn",
    "best_epoch",
    "fit",
    "learning_rate_at",
    "read_state",
    "stops",
    "write_state",
]

Batch = dict[str, NDArray[Any]]
"""Arrays of a batch by name; ``image`` is what the network takes, ``label`` or ``target`` what it is held to."""
Stream = Callable[[int], Iterable[Batch]]
"""Batches of an epoch; the same for the same epoch, if a resumed run is to repeat an unbroken one."""
Prepare = Callable[[str, Batch, int, int], Tensors]
Modules = Mapping[str, nn.Module]

CHECK_EVERY_CPU, CHECK_EVERY_GPU = 1, 50
"""Steps between looks at the loss: each look waits for a GPU."""


def fit(
    players: Sequence[Player],
    streams: Mapping[str, Stream],
    optim: OptimSettings,
    *,
    steps: int,
    seed: int = 0,
    rank: int = 0,
    patient_from: int = 0,
    prepare: Prepare | None = None,
    state: FitState | None = None,
    validate: Callable[[Modules], dict[str, Any]] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[FitState], None] | None = None,
) -> FitState:
    """
    Fit modules that step in turn; they end with the averaged weights, of the last epoch or of the best by ``monitor``.

    Adam on any loss, linear warm-up and cosine decay, weights averaged over steps (Polyak & Juditsky 1992, in
    exponential form); buffers such as batch norm's are taken as they are. On each batch every player steps once, in
    their order, and sees what those before it have become.

    Parameters
    ----------
    players : sequence of Player
        Usually one. The history has the mean loss of the first as ``loss``, of others as ``loss_NAME``, and of what
        losses tell beside (`Turn.told`).
    streams : functions of the epoch by name
        Batches, arrays by name. The first stream makes the epoch; one that ends before it begins again, as of an epoch
        after all others, and what is left of a longer one is not read.
    optim : OptimSettings
    steps : int
        Batches per epoch; the schedule is laid out over ``optim.epochs * steps``.
    seed : int
        Seed of dropout; each epoch seeds from (seed, epoch), so a resumed run repeats an unbroken one.
    rank : int
        Number of the worker, so that dropout differs between workers.
    patient_from : int
        Epoch (from 0) before which patience counts none.
    prepare : function of (stream, batch, epoch, step), optional
        Arrays to tensors on the device, augmentation included; a plain copy by default.
    state : FitState, optional
        Where an earlier run stopped.
    validate : function of the averaged modules by name, optional
        Its numbers join the history.
    on_step : function of (epoch, step), optional
        Called after each step.
    on_epoch : function of the state, optional
        Called after each epoch, to store it.

    Raises
    ------
    ConfigError
        Two players have one name.
    DataError
        A batch is not finite, an epoch has no batch, or the monitored number is not measured.
    ModelError
        The state is of other players.
    """
    if len({player.name for player in players}) < len(players):
        raise ConfigError("players of a fit need names of their own", got=",".join(p.name for p in players))
    device = next(players[0].module.parameters()).device
    prepare = prepare or (lambda _, batch, epoch, step: {k: torch.from_numpy(v).to(device) for k, v in batch.items()})
    bfloat16 = optim.precision == "bfloat16" or (optim.precision == "auto" and device.type == "cuda")
    seats = [Seat(player, optim) for player in players]
    networks = {seat.name: seat.network for seat in seats}
    averaged = {seat.name: seat.average for seat in seats}
    state = state or FitState()
    best = {seat.name: state.best(seat.name) for seat in seats}
    if state.epoch:
        restore(state, seats)
    look_every = CHECK_EVERY_GPU if device.type == "cuda" else CHECK_EVERY_CPU
    total = optim.epochs * steps
    while state.epoch < optim.epochs and not stops(state.history, optim.monitor, optim.patience, patient_from):
        epoch = state.epoch
        torch.manual_seed(1_000_003 * seed + epoch + 7919 * rank)
        for seat in seats:
            seat.module.train()
        losses: dict[str, list[Tensor]] = {seat.name: [] for seat in seats}
        told: dict[str, list[Tensor]] = {}
        step = -1
        for step, arrays in enumerate(_together(streams, epoch, optim.epochs)):
            seen = epoch * steps + step
            now = {"epoch": torch.tensor(epoch)}
            batch = {name: prepare(name, part, epoch, step) | now for name, part in arrays.items()}
            turn = Turn(networks, averaged, batch, epoch, seen)
            for seat in seats:
                if (seen + 1) % seat.player.every == 0:
                    rate = learning_rate_at(seen, total, seat.optim)
                    losses[seat.name].append(seat.step(turn, rate, device=device, bfloat16=bfloat16))
            for name, value in turn.told.items():
                told.setdefault(name, []).append(value.detach())
            if step % look_every == 0:
                _refuse_infinite(losses, epoch, step, look_every)
            if on_step is not None:
                on_step(epoch, step)
        if step < 0:
            raise DataError("an epoch has no batch", epoch=epoch)
        _refuse_infinite(losses, epoch, step)
        facts: dict[str, Any] = {"epoch": epoch + 1} | _means(losses) | _mean_of(told)
        facts["learning_rate"] = learning_rate_at(seen, total, seats[0].optim)
        if validate is not None:
            facts |= _averaged(seats, validate)
        history = [*state.history, facts]
        if optim.monitor is not None and best_epoch(history, optim.monitor) == epoch:
            best = {seat.name: {n: t.detach().clone() for n, t in seat.average.items()} for seat in seats}
        state = FitState(epoch + 1, capture(seats, best), history)
        if on_epoch is not None:
            on_epoch(state)
    for seat in seats:
        seat.module.load_state_dict(best[seat.name] or seat.average)
    return state


def learning_rate_at(step: int, total: int, optim: OptimSettings) -> float:
    """Learning rate at a step of ``total``: linear warm-up, then half a cosine, or constant."""
    warm = max(1, round(optim.warmup_fraction * total))
    if step < warm:
        return optim.learning_rate * (step + 1) / warm
    if optim.schedule == "constant":
        return optim.learning_rate
    progress = min(1.0, (step - warm) / max(1, total - warm))
    return optim.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def stops(history: list[dict[str, Any]], monitor: str | None, patience: int | None, patient_from: int = 0) -> bool:
    """Whether the monitored number has not become better for ``patience`` epochs, of those from ``patient_from``."""
    if monitor is None or patience is None or not history:
        return False
    return len(history) - 1 - max(best_epoch(history, monitor), patient_from - 1) >= patience


def best_epoch(history: list[dict[str, Any]], monitor: str) -> int:
    """Epoch (from 0) of the best value: the lowest of losses and errors, else the highest; the first among equals."""
    if monitor not in history[-1]:
        numbers = ",".join(k for k, v in history[-1].items() if isinstance(v, float))
        raise DataError("the monitored number is not measured", monitor=monitor, measured=numbers)
    values = [math.nan if row[monitor] is None else float(row[monitor]) for row in history]
    if np.isnan(values).all():
        return len(values) - 1
    return int(np.nanargmin(values) if less_is_better(monitor) else np.nanargmax(values))


def _together(streams: Mapping[str, Stream], epoch: int, epochs: int) -> Iterator[dict[str, Batch]]:
    first, *others = streams
    beside = {name: _endless(name, streams[name], epoch, epochs) for name in others}
    try:
        for batch in streams[first](epoch):
            yield {first: batch} | {name: next(stream) for name, stream in beside.items()}
    finally:
        for stream in beside.values():
            stream.close()  # so that what reads ahead for it ends with the epoch


def _endless(name: str, stream: Stream, epoch: int, epochs: int) -> Generator[Batch, None, None]:
    for time in itertools.count():
        n = 0
        for n, batch in enumerate(stream(epoch + time * epochs), start=1):  # noqa: B007
            yield batch
        if not n:
            raise DataError("an epoch of a stream has no batch", stream=name, epoch=epoch)


def _means(losses: Mapping[str, list[Tensor]]) -> dict[str, float]:
    names = ["loss", *(f"loss_{name}" for name in list(losses)[1:])]
    return _mean_of(dict(zip(names, losses.values(), strict=True)))


def _mean_of(found: Mapping[str, list[Tensor]]) -> dict[str, float]:
    return {name: float(torch.stack(values).double().mean()) for name, values in found.items() if values}


def _refuse_infinite(losses: Mapping[str, list[Tensor]], epoch: int, step: int, last: int = 0) -> None:
    for values in losses.values():
        if values and not bool(torch.isfinite(torch.stack(values[-last:])).all()):
            raise DataError("the loss is not finite: look for stamps that are not", epoch=epoch, step=step)


def _averaged(seats: Sequence[Seat], measure: Callable[[Modules], dict[str, Any]]) -> dict[str, Any]:
    """Numbers of the modules with their averaged weights, which they are given for that time."""
    own = [{name: tensor.detach().clone() for name, tensor in seat.module.state_dict().items()} for seat in seats]
    for seat in seats:
        seat.module.load_state_dict(seat.average)
        seat.module.eval()
    try:
        return measure({seat.name: seat.module for seat in seats})
    finally:
        for seat, weights in zip(seats, own, strict=True):
            seat.module.load_state_dict(weights)
