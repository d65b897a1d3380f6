"""Every autoencoder that can be trained can be read: the error of a stamp is its network's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lenspipe.infer.rebuild import Rebuilder
from lenspipe.nn.card import ModelCard
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.registry import build

SIZE_PX = 13
FAMILIES: dict[str, dict[str, Any]] = {
    "ae": {"width": 4, "latent": 2},
    "scae": {"width": 4, "latent": 2},
    "vae": {"width": 4, "latent": 2},
    "aae": {"width": 8, "latent": 2},
    "acae": {"width": 4, "latent": 2},
    "rnn-ae": {"width": 8, "latent": 2},
    "vrae": {"width": 8, "latent": 2},
    "transformer-ae": {"width": 8, "latent": 2, "patch": 5, "depth": 1},
    "equivariant-ae": {"width": 2, "latent": 1},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_comes_back_is_what_the_network_gives(family: str, tmp_path: Path) -> None:
    card = ModelCard.model_validate(
        {
            "name": "tiny",
            "family": family,
            "settings": FAMILIES[family],
            "task": "anomaly",
            "normal": ("lens",),
            "bands": ("r",),
            "pixel_scale_arcsec": 0.2,
            "scale_tolerance": 0.1,
            "min_scale_arcsec": 0.1,
            "max_scale_arcsec": 0.4,
            "stamp_px": SIZE_PX,
            "stretch": {"band_scales": (0.01,), "alpha": 0.1, "q": 1.0},
        }
    )
    torch.manual_seed(5)
    save_model(tmp_path, build(family, 1, SIZE_PX, card.n_out, **card.settings), card)
    stamps = np.random.default_rng(0).normal(size=(5, 1, SIZE_PX, SIZE_PX)).astype(np.float32)
    module, _ = load_model(tmp_path)
    with torch.inference_mode():
        want = module.rebuild(torch.from_numpy(stamps)).numpy()
    np.testing.assert_allclose(Rebuilder(tmp_path, device="cpu").rebuild(stamps), want, rtol=1e-4, atol=1e-5)
