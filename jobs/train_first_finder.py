"""
Train the first g r i finder, `ground-gri-first`, on arcs painted on real galaxies.

    python jobs/train_first_finder.py --real ../shared/data --out runs/first --seed 1

Killed and started again with the same arguments, it goes on after the last whole epoch. What it does and what was
measured stands in docs/first_finder.md.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lenspipe.cli import run_command
from lenspipe.learn.augment import augment, stretch
from lenspipe.learn.fit import Batch, FitSettings, FitState, fit, read_state, write_state
from lenspipe.learn.ground_hosts import LEAST_SCALE_ARCSEC, hosts_by_scene, split_hosts
from lenspipe.learn.scenes import MARGIN_PX, make_scenes
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.registry import build

log = logging.getLogger("train_first_finder")

# HumVI's scales for CFHTLS counts (zero-point 30, 0.186" pixels), per nJy / arcsec^2
PER_NJY_ARCSEC2 = 0.186**2 / 10 ** (0.4 * 1.4)
CARD = ModelCard(
    name="ground-gri-first",
    family="small-cnn",
    settings={"width": 24, "dropout": 0.2},
    bands=("g", "r", "i"),
    pixel_scale_arcsec=0.27,
    scale_tolerance=0.1,
    min_scale_arcsec=0.15,
    max_scale_arcsec=0.36,
    stamp_px=65,
    stretch=Stretch(band_scales=tuple(s * PER_NJY_ARCSEC2 for s in (1.7, 0.6, 0.4)), alpha=0.09, q=1.0),
)
NOTE = "A first finder: few real hosts (one KiDS tile, DES galaxies), scores that rank."
KINDS = ("lens", "field-lens", "plain", "companions", "ring", "spiral", "spoiled")
TRAIN = dict(zip(KINDS, (6000, 400, 5000, 2200, 600, 1200, 800), strict=True))
VALIDATION = dict(zip(KINDS, (800, 50, 1200, 400, 100, 200, 100), strict=True))
BATCH, STEPS, EPOCHS, LENS_SHARE = 96, 100, 14, 0.45
Scenes = tuple[NDArray[np.float16], NDArray[np.float32]]


@click.command()
@click.option("--real", type=click.Path(path_type=Path), required=True, help="Folder of real survey pixels.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the model.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of scenes, weights and batches.")
@click.option("--epochs", type=int, default=EPOCHS, show_default=True, help=f"Epochs of {STEPS} batches of {BATCH}.")
@click.option("--fraction", type=float, default=1.0, show_default=True, help="Fraction of the scenes, for a trial.")
def command(real: Path, out: Path, seed: int, epochs: int, fraction: float) -> None:
    """Train the first g r i finder."""
    torch.set_num_threads(1)
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    hosts = split_hosts(real, CARD, seed=seed, splits=("train", "validation"))
    train, validation = (
        scenes_of(split, hosts_by_scene(hosts[split]), counts, seed, fraction)
        for split, counts in (("train", TRAIN), ("validation", VALIDATION))
    )
    log.info("scenes made in %.0f s", time.monotonic() - began)
    torch.manual_seed(seed)
    module = build(CARD.family, CARD.n_channel, CARD.stamp_px, CARD.n_out, **CARD.settings)
    settings = FitSettings(epochs=epochs, steps_per_epoch=STEPS, seed=seed)
    path = out / "state.safetensors"
    checked = stamps_of(validation)

    def on_epoch(state: FitState) -> None:
        write_state(path, state)
        log.info("%.0f s %s", time.monotonic() - began, state.history[-1])

    state = fit(
        module,
        lambda epoch: batches(train, seed, epoch),
        settings,
        state=read_state(path) if path.exists() else None,
        validate=lambda m: measure(m, checked, validation[1]),
        on_epoch=on_epoch,
    )
    facts = {
        "note": NOTE,
        "command": f"python jobs/train_first_finder.py --real ../shared/data --out OUT --seed {seed} --epochs {epochs}",
        "seed": seed,
        "steps": epochs * STEPS,
        "batch": BATCH,
        "scenes": {"train": len(train[0]), "validation": len(validation[0])} | {"of_kind": TRAIN},
        "hosts": {split: count_hosts(hosts[split]) for split in ("train", "validation")},
        "seconds_one_core": round(time.monotonic() - began),
        "history": state.history,
    }
    save_model(out, module, CARD.model_copy(update={"training": facts, "metrics": {"validation": state.history[-1]}}))


def scenes_of(split: str, hosts: dict[str, Any], counts: dict[str, int], seed: int, fraction: float) -> Scenes:
    """Scenes of a split and whether each is a lens."""
    wanted = {kind: max(2, round(n * fraction)) for kind, n in counts.items()}
    offset = {"train": 0, "validation": 500_000}[split]
    scenes, truths = make_scenes(wanted, hosts, seed=seed + offset, card=CARD, least_scale_arcsec=LEAST_SCALE_ARCSEC)
    return scenes, np.array([truth["is_lens"] for truth in truths], np.float32)


def batches(train: Scenes, seed: int, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch: a fixed share of lenses, each stamp augmented anew."""
    scenes, labels = train
    rng = np.random.default_rng([seed, 11, epoch])
    lens, other = (rng.permutation(np.flatnonzero(labels == value)) for value in (1, 0))
    n_lens = round(LENS_SHARE * BATCH)
    for step in range(STEPS):
        rows = np.concatenate(
            [
                np.take(lens, range(step * n_lens, (step + 1) * n_lens), mode="wrap"),
                np.take(other, range(step * (BATCH - n_lens), (step + 1) * (BATCH - n_lens)), mode="wrap"),
            ]
        )
        yield {"image": augment(scenes[rows].astype(np.float32) * 16, rng, card=CARD), "label": labels[rows]}


def stamps_of(scenes: Scenes) -> NDArray[np.float32]:
    """Network input of scenes as they are, without augmentation."""
    inner = slice(MARGIN_PX, MARGIN_PX + CARD.stamp_px)
    return stretch(scenes[0][:, :, inner, inner].astype(np.float32) * 16, CARD)


def measure(module: nn.Module, stamps: NDArray[np.float32], labels: NDArray[np.float32]) -> dict[str, float]:
    """AUC, and the part of the lenses above the thresholds that 1 % and 0.5 % of all else pass."""
    with torch.inference_mode():
        parts = [module(torch.from_numpy(stamps[k : k + 128])).numpy() for k in range(0, len(stamps), 128)]
    logits = np.concatenate(parts)
    lens, other = logits[labels == 1], np.sort(logits[labels == 0])
    rank = np.searchsorted(other, lens, side="left") + np.searchsorted(other, lens, side="right")
    return {
        "auc": float(rank.mean() / 2 / len(other)),
        "tpr_at_fpr_1e-2": float((lens > np.quantile(other, 0.99)).mean()),
        "tpr_at_fpr_5e-3": float((lens > np.quantile(other, 0.995)).mean()),
    }


def count_hosts(hosts: list[Any]) -> dict[str, int]:
    """Number of hosts of each kind."""
    kinds = [host.kind for host in hosts]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(command)
