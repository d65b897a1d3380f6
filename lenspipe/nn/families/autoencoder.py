"""Convolutional autoencoders: plain, variational, and adversarial."""

from __future__ import annotations

from torch import nn

from lenspipe.nn.families.rebuilding import Rebuilding, empty_at_first
from lenspipe.nn.network import RebuildNetwork
from lenspipe.nn.registry import register


class Autoencoder(Rebuilding):
    """Two strided convolutions to a vector of ``latent`` numbers, and two upsampled ones back, empty sky at first."""

    def __init__(
        self,
        n_channel: int,
        stamp_px: int,
        n_out: int,
        width: int,
        latent: int,
        *,
        variational: bool = False,
        adversarial: bool = False,
        beta: float = 0.0,
    ) -> None:
        super().__init__(n_channel, stamp_px, n_out, latent)
        half = (stamp_px + 1) // 2
        side = (half + 1) // 2
        w, self.variational, self.adversarial, self.beta = width, variational, adversarial, beta
        self.encoder = nn.Sequential(
            nn.Conv2d(n_channel, w, 3, 2, 1),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, 2, 1),
            nn.BatchNorm2d(2 * w),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * w * side**2, latent * (1 + variational)),
        )
        last = nn.Conv2d(w, n_channel, 3, 1, 1)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 2 * w * side**2),
            nn.Unflatten(1, (2 * w, side, side)),
            nn.ReLU(),
            nn.Upsample(half),
            nn.Conv2d(2 * w, w, 3, 1, 1),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Upsample(stamp_px),
            last,
        )
        empty_at_first(last)


@register("ae")
def ae(n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 16, latent: int = 16) -> RebuildNetwork:
    """Convolutional autoencoder, for the task anomaly."""
    return Autoencoder(n_channel, stamp_px, n_out, width, latent)


@register("vae")
def vae(
    n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 16, latent: int = 16, beta: float = 1.0
) -> RebuildNetwork:
    """Variational autoencoder (Kingma & Welling 2014), for the task anomaly."""
    return Autoencoder(n_channel, stamp_px, n_out, width, latent, variational=True, beta=beta)


@register("acae")
def acae(n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 16, latent: int = 16) -> RebuildNetwork:
    """Adversarial convolutional autoencoder (Makhzani et al. 2016), for the task anomaly."""
    return Autoencoder(n_channel, stamp_px, n_out, width, latent, adversarial=True)
