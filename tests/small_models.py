"""Small models beside the tiny finder: an embedding, an autoencoder, and what a finder keeps of its training set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lenspipe.infer.training_set import write_training_set
from lenspipe.nn.card import ModelCard, read_card, write_card
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.registry import build
from lenspipe.stats.familiar import Familiar


def small_model(folder: Path, task: str, **outputs) -> Path:
    """An embedding or an autoencoder of r and g."""
    torch.manual_seed(5)
    family, settings = ("small-cnn", {"width": 4, "dropout": 0.0}) if task == "embed" else ("ae", {"width": 2})
    facts = {
        "name": folder.name,
        "family": family,
        "settings": settings,
        "task": task,
        "bands": ("r", "g"),
        "pixel_scale_arcsec": 0.2,
        "scale_tolerance": 0.1,
        "min_scale_arcsec": 0.1,
        "max_scale_arcsec": 0.4,
        "stamp_px": 20,
        "stretch": {"band_scales": (0.01, 0.01), "alpha": 0.1, "q": 1.0},
    }
    card = ModelCard.model_validate(facts | outputs)
    save_model(folder, build(family, 2, 20, card.n_out, **settings), card)
    return folder


def knowing_its_training_set(folder: Path) -> None:
    """Give the tiny finder a training set, whatever it is: it learnt from nothing, and its features are small."""
    held = np.geomspace(1e-3, 1e6, 100)
    familiar = Familiar(np.eye(72) * 1e4, np.zeros((1, 72)), held)
    write_card(folder, write_training_set(folder, read_card(folder), familiar, n=100, data="made"))
