"""The adversarial autoencoder of its paper: layers without convolutions, and a critic of the latent vector."""

from __future__ import annotations

from torch import nn

from lenspipe.nn.families.rebuilding import Rebuilding, empty_at_first
from lenspipe.nn.network import RebuildNetwork
from lenspipe.nn.registry import register


class DenseAutoencoder(Rebuilding):
    """Two layers of ``width`` to the latent vector and two back; the critic is the training's."""

    adversarial = True

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, width: int, latent: int) -> None:
        super().__init__(n_channel, stamp_px, n_out, latent)
        n = n_channel * stamp_px**2
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(n, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, latent)
        )
        last = nn.Linear(width, n)
        self.decoder = nn.Sequential(
            nn.Linear(latent, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            last,
            nn.Unflatten(1, (n_channel, stamp_px, stamp_px)),
        )
        empty_at_first(last)


@register("aae")
def aae(n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 128, latent: int = 16) -> RebuildNetwork:
    """Adversarial autoencoder without convolutions (Makhzani et al. 2016), for the task anomaly."""
    return DenseAutoencoder(n_channel, stamp_px, n_out, width, latent)
