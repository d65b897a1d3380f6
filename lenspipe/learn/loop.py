"""The training of one network, alike in the plain loop and in every Ray worker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lenspipe.learn.augment_batch import augment_batch
from lenspipe.learn.device_input import device_input
from lenspipe.learn.fit import Batch, FitSettings, FitState, fit
from lenspipe.learn.fit_state import read_state, write_state
from lenspipe.learn.job import TrainJob
from lenspipe.learn.losses import Tensors
from lenspipe.learn.network import fresh_network
from lenspipe.learn.order import Order, Rows, class_weights, curriculum_mask, epoch_order, in_turn
from lenspipe.learn.stream import batches_of

Feed = Callable[..., Iterator[tuple[Rows, NDArray[np.float32]]]]
Array = NDArray[np.float64]

STATE_FILE = "state.safetensors"


def _alone(array: Array) -> Array:
    return array


def _own(module: nn.Module) -> nn.Module:
    return module


def _nothing(module: nn.Module) -> None:
    return None


@dataclass(frozen=True)
class World:
    """One worker among several, and how it is fed and reaches the others; alone by default."""

    rank: int = 0
    """Number of this worker."""
    size: int = 1
    """Workers in all."""
    device: str = "cpu"
    """Where it trains."""
    feed: Feed = batches_of
    """Batches of (rows, stamps) in an order: `lenspipe.learn.stream.batches_of`, or one over Ray Data."""
    wrap: Callable[[nn.Module], nn.Module] = _own
    """The module as it is called, so that gradients are averaged over workers."""
    gather: Callable[[Array], Array] = _alone
    """Rows of all workers, in the order of their numbers."""
    same_buffers: Callable[[nn.Module], None] = _nothing
    """Gives every worker the first one's batch-norm statistics."""


Notify = Callable[[int, int, list[dict[str, Any]]], None]


def train_loop(job: TrainJob, world: World, notify: Notify) -> tuple[nn.Module, FitState, Array]:
    """
    Train a job's network, from its state file where there is one.

    Returns
    -------
    module, state, outputs
        The trained network on the CPU, its last state, and its outputs on the validation stamps.
    """
    settings = job.settings
    threads = settings.optim.threads or max(1, (os.cpu_count() or 1) // world.size)
    torch.set_num_threads(threads)
    module, loaded = fresh_network(job)
    device = torch.device(world.device)
    gpu = device.type == "cuda"
    module = module.to(device)
    if _channels_last(job, device):
        _kernels_channels_last(module)
    network = world.wrap(module)
    if settings.optim.compile:
        network = torch.compile(network)  # type: ignore[assignment]
    state_path = Path(job.out) / STATE_FILE
    state = read_state(state_path) if state_path.exists() else None
    watch = _Watch(job, world, notify, state.history if state else [])
    loss = job.objective.loss(settings)

    def validate(average: nn.Module) -> dict[str, Any]:
        world.same_buffers(average)
        facts = measure_on(job, outputs_on(job, average, job.truth.validation, world), job.truth.validation)
        return facts | watch.speed()

    def on_epoch(now: FitState) -> None:
        if world.rank == 0:
            write_state(state_path, now)
        watch.epoch(now)

    state = fit(
        module,
        lambda epoch: epoch_batches(job, world, epoch),
        fit_settings(
            job, world, bfloat16=settings.optim.precision == "bfloat16" or (settings.optim.precision == "auto" and gpu)
        ),
        loss=loss,
        forward=_forward,
        prepare=lambda batch, epoch, step: prepare_batch(job, batch, epoch, step, world.rank, device),
        network=network,
        frozen=loaded,
        state=state,
        validate=validate,
        on_step=watch.step,
        on_epoch=on_epoch,
    )
    module.eval()
    world.same_buffers(module)
    outputs = outputs_on(job, module, job.truth.validation, world)
    return module.cpu(), state, outputs


def fit_settings(job: TrainJob, world: World, *, bfloat16: bool) -> FitSettings:
    """Settings of the fit."""
    optim = job.settings.optim
    return FitSettings(
        epochs=optim.epochs,
        steps_per_epoch=job.steps,
        optimizer=optim.optimizer,
        learning_rate=optim.learning_rate,
        weight_decay=optim.weight_decay,
        schedule=optim.schedule,
        warmup_fraction=optim.warmup_fraction,
        ema_decay=optim.ema_decay,
        seed=job.seed,
        stream=world.rank,
        frozen_epochs=optim.frozen_epochs if job.pretrained else 0,
        monitor=optim.monitor,
        patience=optim.patience,
        precision="bfloat16" if bfloat16 else "float32",
    )


def order_of(job: TrainJob, epoch: int) -> Order:
    """The rows of an epoch, of all workers."""
    sampling, rows = job.settings.sampling, job.truth.train
    allowed = np.ones(len(rows), bool)
    if job.curriculum is not None:
        allowed = curriculum_mask(
            job.curriculum[rows], epoch=epoch, start=sampling.curriculum_start, epochs=sampling.curriculum_epochs
        )
    labels = job.truth.labels[rows]
    balanced = sampling.balance == "equal" and job.objective.balanced
    weights = class_weights(labels, allowed) if balanced else allowed.astype(float)
    return epoch_order(
        rows,
        weights,
        job.index.group_starts,
        n_total=job.steps * sampling.batch_size,
        window=job.index.window(sampling.window_mib * 2**20),
        seed=job.seed,
        epoch=epoch,
    )


def epoch_batches(job: TrainJob, world: World, epoch: int) -> Iterator[Batch]:
    """Batches of an epoch, those of one worker."""
    share = order_of(job, epoch).share(world.rank, world.size)
    for rows, stamps in world.feed(job.index, share, batch_size=job.settings.sampling.batch_size // world.size):
        yield batch_of(job, rows, stamps)


def batch_of(job: TrainJob, rows: Rows, stamps: NDArray[np.float32]) -> Batch:
    """Stamps in the card's bands, with what is known of them."""
    truth = job.truth
    batch: Batch = {"image": stamps if job.bands is None else stamps[:, list(job.bands)]}
    batch |= {"label": truth.labels[rows].astype(np.int64), "target": truth.targets[rows]}
    return batch | ({"features": truth.features[rows]} if truth.features.shape[1] else {})


def prepare_batch(job: TrainJob, batch: Batch, epoch: int, step: int, rank: int, device: torch.device) -> Tensors:
    """A training batch on the device: augmented, cropped, stretched."""
    tensors = {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in batch.items()}
    rng = np.random.default_rng([job.seed, 41, epoch, step, rank])
    stamps = tensors["image"] / job.card.pixel_scale_arcsec**2
    stamps = augment_batch(stamps, job.augment, rng, noise_levels=job.noise)
    return tensors | {"image": _shown(job, stamps)}


def _channels_last(job: TrainJob, device: torch.device) -> bool:
    asked = job.settings.optim.channels_last
    return device.type == "cuda" if asked is None else asked


def _kernels_channels_last(module: nn.Module) -> None:
    # not module.to(memory_format=...), which refuses tensors of five axes (steerable kernels before they are expanded)
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _shown(job: TrainJob, surface_brightness: Tensor) -> Tensor:
    edge = (surface_brightness.shape[-1] - job.card.stamp_px) // 2
    inner = slice(edge, edge + job.card.stamp_px)
    shown = device_input(surface_brightness[:, :, inner, inner], job.card.stretch)
    last = _channels_last(job, shown.device)
    return shown.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _forward(network: nn.Module, batch: Tensors) -> Tensor:
    outputs: Tensor = network(batch["image"], batch["features"]) if "features" in batch else network(batch["image"])
    return outputs


def outputs_on(job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
    """Outputs ``(n, n_out)`` or ``(n,)`` of rows in their order, without augmentation, float32 arithmetic."""
    device = next(module.parameters()).device
    window = job.index.window(job.settings.sampling.window_mib * 2**20)
    share = in_turn(rows, job.index.group_starts, window).share(world.rank, world.size)
    out: list[Array] = []
    with torch.inference_mode():
        for some, stamps in world.feed(job.index, share, batch_size=job.settings.sampling.batch_size):
            batch = {k: torch.from_numpy(v).to(device) for k, v in batch_of(job, some, stamps).items()}
            batch["image"] = _shown(job, batch["image"] / job.card.pixel_scale_arcsec**2)
            out.append(_forward(module, batch).double().cpu().numpy())
    shape = (0,) if job.card.n_out == 1 else (0, job.card.n_out)
    return world.gather(np.concatenate([np.empty(shape), *out]))


def measure_on(job: TrainJob, outputs: Array, rows: Rows) -> dict[str, Any]:
    """Numbers of outputs against the truth of their rows."""
    return job.objective.numbers(outputs, job.truth, rows, job.objective.loss(job.settings))


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
