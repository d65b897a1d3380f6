"""Batches of a training job: rows in their order, stamps with their truth, and both on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lenspipe.learn.augment_batch import VIEWS_ONLY, augment_batch, only_views
from lenspipe.learn.device_input import device_input
from lenspipe.learn.fit import Batch
from lenspipe.learn.losses import Tensors
from lenspipe.learn.order import Order, Rows, class_weights, curriculum_mask, epoch_order, in_turn, shared_weights
from lenspipe.learn.players import call
from lenspipe.learn.world import World
from lenspipe.nn.smooth_lens import fit_smooth, smooth_residual

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob

Array = NDArray[np.float64]


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
    if job.shares is not None:
        classes = labels if balanced else np.zeros_like(labels)
        weights = shared_weights(classes, job.shares.data_set[rows], job.shares.values, allowed)
    else:
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
    seen = stamps if job.bands is None else stamps[:, list(job.bands)]
    if job.card.stretch.smooth_residual and only_views(job.augment):
        seen = with_residuals(job, rows, seen)
    batch: Batch = {"image": seen}
    batch |= {"label": truth.labels[rows].astype(np.int64), "target": truth.targets[rows]}
    return batch | ({"features": truth.features[rows]} if truth.features.shape[1] else {})


_FITTED: dict[tuple[str, int], NDArray[np.float32]] = {}
"""Smooth lenses of the stamps of the job that runs in this process, by folder and seed; NaN where not yet fitted."""


def with_residuals(job: TrainJob, rows: Rows, stamps: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Stamps, and after their bands what smooth lenses leave of them; each lens is fitted once in a training.

    Turned and mirrored stamps have turned and mirrored residuals, so views of these are as good as new fits.
    """
    key = (job.out, job.seed)
    if key not in _FITTED:
        _FITTED.clear()
        _FITTED[key] = np.full((len(job.truth.labels), 3), np.nan, np.float32)
    lens = _FITTED[key]
    edge = (stamps.shape[-1] - job.card.stamp_px) // 2
    middle = slice(edge, edge + job.card.stamp_px)
    inner = torch.from_numpy(np.ascontiguousarray(stamps[:, :, middle, middle]))
    with torch.inference_mode():
        new = np.flatnonzero(np.isnan(lens[rows, 0]))
        if len(new):
            lens[rows[new]] = fit_smooth(inner[torch.from_numpy(new)]).numpy()
        residual = smooth_residual(inner, torch.from_numpy(lens[rows]))
    return np.concatenate([stamps, np.pad(residual.numpy(), [(0, 0), (0, 0), (edge, edge), (edge, edge)])], axis=1)


def on_device(batch: Batch, device: str | torch.device) -> Tensors:
    """Arrays as tensors where the network is."""
    return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in batch.items()}


def prepare_batch(job: TrainJob, world: World, batch: Batch, epoch: int, step: int, *, n_view: int = 1) -> Tensors:
    """A training batch on the device: augmented, cropped, stretched; further views as ``image_1``, ``image_2``, ..."""
    tensors = on_device(batch, world.device)
    stamps = tensors["image"] / job.card.pixel_scale_arcsec**2
    for view in range(n_view):
        rng = np.random.default_rng([job.seed, 41, epoch, step, world.rank, *([view] if view else [])])
        seen = augment_batch(stamps, job.augment, rng, noise_levels=job.noise)
        tensors[f"image_{view}" if view else "image"] = shown_to_network(job, seen)
    return tensors


def weak_and_strong(job: TrainJob, world: World, batch: Batch, epoch: int, step: int) -> Tensors:
    """A training batch only turned and mirrored as ``image``, and augmented as the job asks as ``image_1``."""
    weak = prepare_batch(replace(job, augment=VIEWS_ONLY), world, batch, epoch, step)
    strong = prepare_batch(replace(job, seed=job.seed + 1), world, batch, epoch, step)
    return weak | {"image_1": strong["image"]}


def channels_last(job: TrainJob, device: torch.device) -> bool:
    """Whether pixels and kernels lie with their channels side by side."""
    asked = job.settings.optim.channels_last
    return device.type == "cuda" or job.objective.channels_last if asked is None else asked


def shown_to_network(job: TrainJob, surface_brightness: Tensor) -> Tensor:
    """The middle of stamps, stretched, as the network takes it."""
    edge = (surface_brightness.shape[-1] - job.card.stamp_px) // 2
    inner = slice(edge, edge + job.card.stamp_px)
    return as_network_takes(job, device_input(surface_brightness[:, :, inner, inner], job.card.stretch))


def as_network_takes(job: TrainJob, images: Tensor) -> Tensor:
    """The same numbers, laid out in memory as the network's kernels are."""
    last = channels_last(job, images.device)
    return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def outputs_on(job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
    """Outputs ``(n, n_out)`` or ``(n,)`` of rows in their order, without augmentation, float32 arithmetic."""
    device = next(module.parameters()).device
    window = job.index.window(job.settings.sampling.window_mib * 2**20)
    share = in_turn(rows, job.index.group_starts, window).share(world.rank, world.size)
    out: list[Array] = []
    with torch.inference_mode():
        for some, stamps in world.feed(job.index, share, batch_size=job.settings.sampling.batch_size):
            batch = {k: torch.from_numpy(v).to(device) for k, v in batch_of(job, some, stamps).items()}
            batch["image"] = shown_to_network(job, batch["image"] / job.card.pixel_scale_arcsec**2)
            out.append(call(module, batch).double().cpu().numpy())
    shape = (0,) if job.card.n_out == 1 else (0, job.card.n_out)
    return world.gather(np.concatenate([np.empty(shape), *out]))


def per_stamp(job: TrainJob, rows: Rows, world: World, of: Callable[[Tensor, int], Tensor]) -> Array:
    """What a function gives for batches of surface brightness and their number, of rows in their order."""
    n, window = job.settings.sampling.batch_size, job.index.window(job.settings.sampling.window_mib * 2**20)
    share = in_turn(rows, job.index.group_starts, window).share(world.rank, world.size)
    out: list[Array] = []
    with torch.inference_mode():
        for k, (some, stamps) in enumerate(world.feed(job.index, share, batch_size=n)):
            sky = on_device(batch_of(job, some, stamps), world.device)["image"] / job.card.pixel_scale_arcsec**2
            out.append(of(sky, k).double().cpu().numpy())
    return world.gather(np.concatenate(out))


def measure_on(job: TrainJob, outputs: Array, rows: Rows) -> dict[str, Any]:
    """Numbers of outputs against the truth of their rows."""
    return job.objective.numbers(outputs, job.truth, rows, job.objective.loss(job.settings))
