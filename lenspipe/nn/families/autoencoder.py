"""Autoencoders: a stamp through a narrow place and back; what does not come back is anomalous."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.network import RebuildNetwork
from lenspipe.nn.registry import register

PIXEL_SIGMA = 0.2
"""Noise of a pixel of the stretched stamp, with the default stretch: what a squared difference is weighed by."""


class Autoencoder(RebuildNetwork):
    """
    Two strided convolutions to a vector of ``latent`` numbers, and two upsampled ones back, empty sky at first.

    ``forward`` gives the mean squared difference between the stamp and what comes back. Of the variational one
    (Kingma & Welling 2014, equation 10) it is the negative bound in the same unit: with z drawn in training and at its
    mean elsewhere, KL the divergence of z from a unit Gaussian, and n the numbers of a stamp,
    ``mean square + 2 beta PIXEL_SIGMA^2 KL / n``.
    """

    def __init__(
        self, n_channel: int, stamp_px: int, n_out: int, width: int, latent: int, *, variational: bool, beta: float
    ) -> None:
        super().__init__()
        if n_out != 1:
            raise ModelError("an autoencoder gives one number, for the task anomaly", n_out=n_out)
        half = (stamp_px + 1) // 2
        side = (half + 1) // 2
        w, self.variational, self.num_features = width, variational, latent
        self.weight = 2 * beta * PIXEL_SIGMA**2 / (n_channel * stamp_px**2)
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
        self.decoder = nn.Sequential(
            nn.Linear(latent, 2 * w * side**2),
            nn.Unflatten(1, (2 * w, side, side)),
            nn.ReLU(),
            nn.Upsample(half),
            nn.Conv2d(2 * w, w, 3, 1, 1),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Upsample(stamp_px),
            nn.Conv2d(w, n_channel, 3, 1, 1),
        )

        last = self.decoder[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the latent vector, or its mean, ``(n, latent)``."""
        encoded: Tensor = self.encoder(stamps)
        return encoded[:, : self.num_features]

    def rebuild(self, stamps: Tensor) -> Tensor:
        """What comes back, same shape."""
        rebuilt: Tensor = self.decoder(self.forward_features(stamps))
        return rebuilt

    def forward(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to how badly each comes back ``(n,)``."""
        encoded = self.encoder(stamps)
        mean, log_variance = encoded[:, : self.num_features], encoded[:, self.num_features :].clamp(-10, 10)
        latent = mean
        if self.variational and self.training:
            latent = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        square = ((self.decoder(latent) - stamps) ** 2).mean((1, 2, 3))
        if not self.variational:
            return square
        divergence = 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance).sum(1)
        total: Tensor = square + self.weight * divergence
        return total


@register("ae")
def ae(n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 16, latent: int = 16) -> RebuildNetwork:
    """Convolutional autoencoder, for the task anomaly."""
    return Autoencoder(n_channel, stamp_px, n_out, width, latent, variational=False, beta=0.0)


@register("vae")
def vae(
    n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 16, latent: int = 16, beta: float = 1.0
) -> RebuildNetwork:
    """Variational autoencoder (Kingma & Welling 2014), for the task anomaly."""
    return Autoencoder(n_channel, stamp_px, n_out, width, latent, variational=True, beta=beta)
