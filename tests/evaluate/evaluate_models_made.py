"""A made data set of stamps, and checkpoints that see what the stamps differ in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from lenspipe.nn import registry
from lenspipe.nn.card import ModelCard
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.network import Network
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

FAMILY, SIZE_PX, SCALE = "test-brightness", 20, 0.25


class Brightness(Network):
    """Outputs that are known: weights on the mean, and on the first column, of each channel."""

    def __init__(self, n_channel: int, n_out: int) -> None:
        super().__init__()
        self.num_features = 2 * n_channel
        self.weight = nn.Parameter(torch.zeros(n_out, 2 * n_channel))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward_features(self, stamps: Tensor) -> Tensor:
        return torch.cat([stamps.mean(dim=(2, 3)), stamps[..., 0].mean(dim=2)], dim=1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        out = (features[:, None] * self.weight).sum(dim=-1) + self.bias
        return out[:, 0] if out.shape[1] == 1 else out


def register_family() -> None:
    """Enter `Brightness` in the registry, once."""
    if FAMILY not in registry._FAMILIES:
        registry.register(FAMILY)(lambda n_channel, stamp_px, n_out=1: Brightness(n_channel, n_out))


def make_model(folder: Path, weight: Any, bias: Any = 0.0, **card: Any) -> Path:
    """A `Brightness` checkpoint; ``weight`` is (output, 2 x channel)."""
    facts: dict[str, Any] = {
        "name": folder.name,
        "family": FAMILY,
        "bands": ("g", "r"),
        "pixel_scale_arcsec": SCALE,
        "scale_tolerance": 0.1,
        "min_scale_arcsec": 0.1,
        "max_scale_arcsec": 0.5,
        "stamp_px": SIZE_PX,
        "stretch": {"name": "linear", "band_scales": (SCALE**2, SCALE**2), "alpha": 1.0, "q": 1.0},
    }
    made = ModelCard.model_validate({**facts, **card})
    weights = torch.tensor(weight, dtype=torch.float32).reshape(made.n_out, -1)
    module = Brightness(weights.shape[1] // 2, made.n_out)
    module.weight.data = weights
    module.bias.data = torch.tensor(bias, dtype=torch.float32).expand(made.n_out).clone()
    save_model(folder, module, made)
    return folder


def make_data(folder: Path, n: int, *, seed: int = 0, labels: tuple[str, ...] = ("nonlens", "lens")) -> dict[str, Any]:
    """Stamps whose mean in r says what they are, with noise; the truth that went in."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(labels), n)
    level = truth + rng.normal(0, 0.7, n)
    stamps = rng.normal(0, 0.01, (n, 2, SIZE_PX, SIZE_PX)).astype(np.float32)
    stamps[:, 1] += level[:, None, None].astype(np.float32)
    spec = ImageSpec(("g", "r"), SIZE_PX, SCALE)
    extra = [pa.field("kind", pa.string()), pa.field("theta_e_arcsec", pa.float64()), pa.field("level", pa.float64())]
    split = np.where(np.arange(n) % 5 == 4, "train", np.where(np.arange(n) % 5 == 3, "validation", "test"))
    table = {
        "stamp_id": [f"s{k:05d}" for k in range(n)],
        "image": image_column(stamps, spec),
        "label": [labels[k] for k in truth],
        "recipe": ["made"] * n,
        "seed": [seed] * n,
        "host": [f"h{k}" for k in range(n)],
        "split": split.tolist(),
        "kind": [labels[k] if k else ("ring", "spiral")[i % 2] for i, k in enumerate(truth)],
        "theta_e_arcsec": pa.array([float(level[i]) + 1 if k else None for i, k in enumerate(truth)]),
        "level": pa.array([None if i % 7 == 0 else float(level[i]) for i in range(n)]),
    }
    whole = pa.table(table, schema=stamp_schema({"image": spec}, extra))
    for part, start in enumerate(range(0, n, 150)):
        write_part(whole.slice(start, 150), folder, f"part-{part:03d}")
    return {"truth": truth, "level": level, "split": split, "stamps": stamps, "table": table}
