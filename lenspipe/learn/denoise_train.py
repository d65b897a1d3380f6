"""Train a denoiser on skies: the fit loop of the classifiers with pairs for batches and an image for a target."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lenspipe.learn.denoise_losses import huber, l1, loss_named
from lenspipe.learn.denoise_pairs import Sky, pair_batches
from lenspipe.learn.fit import FitState, fit, read_state, write_state
from lenspipe.learn.players import MAIN, Player, supervised
from lenspipe.learn.settings import OptimSettings
from lenspipe.nn.card import ModelCard
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.registry import build

log = logging.getLogger(__name__)
STATE = "state.safetensors"
CHECK_STEPS = 12


@dataclass(frozen=True, kw_only=True)
class DenoiseSettings:
    """How to train a denoiser."""

    epochs: int
    """Epochs in all."""
    steps_per_epoch: int = 100
    """Batches an epoch."""
    batch_size: int = 32
    """Patches a batch."""
    patch_px: int = 64
    """Side of a patch; the network takes any."""
    loss: str = "huber"
    """Name in `lenspipe.learn.denoise_losses.LOSSES`."""
    drawn: bool = False
    """Draw the rest of a simulated deep exposure, and do not take what is expected of it."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    seed: int = 1
    """Seed of weights and patches."""


def train_denoiser(
    skies: Sequence[Sky],
    check: Sequence[Sky],
    card: ModelCard,
    settings: DenoiseSettings,
    out: Path,
    *,
    facts: dict[str, Any] | None = None,
) -> ModelCard:
    """
    Train and write a model folder; killed and called again with the same arguments it goes on after the last epoch.

    Parameters
    ----------
    skies, check : sequences of Sky
        To train on, and to validate on.
    card : ModelCard
        Of task ``denoise``; its training and metrics are filled in.
    settings : DenoiseSettings
    out : Path
    facts : dict, optional
        Of the training, for the card.

    Raises
    ------
    ConfigError
        No such loss.
    DataError
        A loss is not finite, or a sky has no patch without missing pixels.
    """
    loss = loss_named(settings.loss)
    assert card.exposure_ratios is not None
    ratios = (max(1.05, card.exposure_ratios[0]), card.exposure_ratios[1])
    draw = functools.partial(
        pair_batches, ratios=ratios, size_px=settings.patch_px, batch_size=settings.batch_size, drawn=settings.drawn
    )
    torch.manual_seed(settings.seed)
    module = build(card.family, card.n_channel, card.stamp_px, card.n_out, **card.settings)
    module = module.to(memory_format=torch.channels_last)
    checked = list(draw(check, steps=CHECK_STEPS, seed=settings.seed + 1_000_000, epoch=0))

    def batches(epoch: int) -> Iterator[dict[str, NDArray[np.float32]]]:
        return draw(skies, steps=settings.steps_per_epoch, seed=settings.seed, epoch=epoch)

    out.mkdir(parents=True, exist_ok=True)
    path = out / STATE

    def on_epoch(state: FitState) -> None:
        write_state(path, state)
        log.info("%s", state.history[-1])

    optim = OptimSettings(
        epochs=settings.epochs, learning_rate=settings.learning_rate, weight_decay=1e-3, ema_decay=0.995
    )
    state = fit(
        [Player(module=module, loss=supervised(lambda outputs, batch: loss(outputs, batch)))],
        {"train": batches},
        optim,
        steps=settings.steps_per_epoch,
        seed=settings.seed,
        state=read_state(path) if path.exists() else None,
        validate=lambda nets: measure_pairs(nets[MAIN], checked),
        on_epoch=on_epoch,
    )
    training = {**(facts or {}), **vars(settings), "history": state.history}
    metrics = card.metrics | {"validation": state.history[-1]}
    return save_model(out, module, card.model_copy(update={"training": training, "metrics": metrics}))


def measure_pairs(module: nn.Module, batches: Sequence[dict[str, NDArray[np.float32]]]) -> dict[str, float]:
    """
    Mean absolute and mean Huber difference from the deep image over ``1 - 1 / ratio``, of output and short exposure.
    """
    rows = []
    with torch.inference_mode():
        for arrays in batches:
            batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
            short = batch["image"][:, : batch["target"].shape[1]]
            done = module(batch["image"])
            rows.append([float(loss(image, batch)) for image in (done, short) for loss in (l1, huber)])
    names = ("l1", "huber", "l1_of_input", "huber_of_input")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))
