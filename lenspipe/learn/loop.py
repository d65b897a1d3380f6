"""The training of one network, alike in the plain loop and in every Ray worker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lenspipe.cores import free_cores
from lenspipe.learn.batches import Array, channels_last, measure_on
from lenspipe.learn.fit import FitState, fit
from lenspipe.learn.fit_state import STATE_FILE, read_state, write_state
from lenspipe.learn.job import TrainJob
from lenspipe.learn.network import fresh_network
from lenspipe.learn.players import MAIN
from lenspipe.learn.world import World
from lenspipe.nn.layout import kernels_channels_last
from lenspipe.nn.network import Network
from lenspipe.rundir import read_json, write_json

THREADS_FILE = "threads.json"
"""Threads of a training in its folder: a resume takes as many."""
Notify = Callable[[int, int, list[dict[str, Any]]], None]


def train_loop(job: TrainJob, world: World, notify: Notify) -> tuple[Network, FitState, Array]:
    """
    Train a job's network, from its state file where there is one.

    Returns
    -------
    module, state, outputs
        The trained network on the CPU, its last state, and its outputs on the validation stamps.
    """
    optim, objective, held = job.settings.optim, job.objective, job.truth.validation
    torch.set_num_threads(optim.threads or threads_of(Path(job.out), world))
    module, loaded = fresh_network(job)
    device = torch.device(world.device)
    state_path = Path(job.out) / STATE_FILE
    state = read_state(state_path) if state_path.exists() else None
    watch = _Watch(job, world, notify, state.history if state else [])

    def wrap(own: nn.Module) -> nn.Module:
        network = world.wrap(own)
        return torch.compile(network) if optim.compile else network  # type: ignore[return-value]

    def validate(averages: Mapping[str, nn.Module]) -> dict[str, Any]:
        for average in averages.values():
            world.same_buffers(average)
        outputs = objective.outputs_on(job, averages[MAIN], held, world)
        return measure_on(job, outputs, held) | watch.speed()

    def on_epoch(now: FitState) -> None:
        if world.rank == 0:
            write_state(state_path, now)
        watch.epoch(now)

    module = module.to(device)
    if channels_last(job, device):
        kernels_channels_last(module)
    state = fit(
        objective.players(job, module, wrap=wrap, loaded=loaded),
        objective.streams(job, world),
        optim,
        steps=job.steps,
        seed=job.seed,
        rank=world.rank,
        patient_from=objective.patient_from(job.settings),
        prepare=partial(objective.prepare, job, world),
        state=state,
        validate=validate,
        on_step=watch.step,
        on_epoch=on_epoch,
    )
    module.eval()
    world.same_buffers(module)
    outputs = objective.outputs_on(job, module, held, world)
    return module.cpu(), state, outputs


def threads_of(out: Path, world: World) -> int:
    """
    Threads of a worker: the cores that are free as the training begins, the same when it is resumed.

    The last bits of the weights depend on the number of threads. Several workers share all cores, as did a training of
    before, which kept no number: what is free on each differs, and only one could be kept.
    """
    path = out / THREADS_FILE
    if world.size > 1:
        return max(1, (os.cpu_count() or 1) // world.size)
    if path.exists():
        return int(read_json(path)["threads"])
    begun = (out / STATE_FILE).exists()
    threads = max(1, (os.cpu_count() or 1) if begun else free_cores())
    write_json(path, {"threads": threads})
    return threads


class _Watch:
    """Time and progress of the first worker."""

    def __init__(self, job: TrainJob, world: World, notify: Notify, history: list[dict[str, Any]]) -> None:
        self._job, self._world, self._notify, self._history = job, world, notify, history
        self._begun = time.perf_counter()

    def step(self, epoch: int, step: int) -> None:
        if self._world.rank == 0:
            self._notify(epoch, step + 1, self._history)

    def speed(self) -> dict[str, float]:
        """Seconds of the epoch with its validation, and stamps trained a second."""
        seconds = time.perf_counter() - self._begun
        stamps = self._job.steps * self._job.settings.sampling.batch_size
        return {"seconds": round(seconds, 3), "stamps_per_s": round(stamps / seconds, 1)}

    def epoch(self, state: FitState) -> None:
        self._history, self._begun = state.history, time.perf_counter()
        self.step(state.epoch, -1)
