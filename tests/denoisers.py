"""Denoisers with seeded, untrained weights: what they do means nothing, and is not nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.outputs import Denoise
from lenspipe.nn.registry import build


def write_denoiser(folder: Path, *, bands: tuple[str, ...] = ("g", "r", "i"), **facts: Any) -> Path:
    torch.manual_seed(5)
    card = ModelCard(
        name="tiny-denoiser",
        family="unet-small",
        settings={"width": 4},
        bands=bands,
        pixel_scale_arcsec=0.2,
        scale_tolerance=0.3,
        min_scale_arcsec=0.1,
        max_scale_arcsec=0.4,
        stamp_px=32,
        stretch=Stretch(name="linear", band_scales=(1.0,) * len(bands), alpha=1.0, q=1.0),
        outputs=Denoise(exposure_ratios=(1.5, 8.0)),
        **facts,
    )
    module = build(card.family, card.n_channel, card.stamp_px, card.n_out, **card.settings)
    torch.nn.init.normal_(module.noise.weight, std=8.0)
    save_model(folder, module, card)
    return folder
