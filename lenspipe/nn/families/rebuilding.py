"""What autoencoders share: an encoder to a vector, a decoder back, and how badly a stamp comes back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.network import RebuildNetwork

PIXEL_SIGMA = 0.2
"""Noise of a pixel of the stretched stamp, with the default stretch: what a squared difference is weighed by."""


class Rebuilding(RebuildNetwork):
    """
    ``encoder`` gives ``latent`` numbers and ``decoder`` a stamp; the error is the mean squared difference.

    A variational one (Kingma & Welling 2014, equation 10) is the negative bound in the same unit: with z drawn in
    training and at its mean elsewhere, KL the divergence of z from a unit Gaussian, and n the numbers of a stamp,
    ``mean square + 2 beta PIXEL_SIGMA^2 KL / n``; its encoder gives mean and log variance. An adversarial one is
    held to a unit Gaussian by a critic in the training (`lenspipe.learn.objectives.anomaly`).
    """

    variational: bool = False
    adversarial: bool = False
    beta: float = 1.0
    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, latent: int) -> None:
        super().__init__()
        if n_out != 1:
            raise ModelError("an autoencoder gives one number, for the task anomaly", n_out=n_out)
        self.num_features, self.n_number = latent, n_channel * stamp_px**2

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the latent vector, or its mean, ``(n, latent)``."""
        encoded: Tensor = self.encoder(stamps)
        return encoded[:, : self.num_features]

    def rebuild(self, stamps: Tensor) -> Tensor:
        """What comes back, same shape."""
        rebuilt: Tensor = self.decoder(self.forward_features(stamps))
        return rebuilt

    def forward(self, stamps: Tensor, with_latent: bool = False) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """``(n, channel, y, x)`` to how badly each comes back ``(n,)``, and its latent vector where asked."""
        encoded = self.encoder(stamps)
        mean, latent = encoded[:, : self.num_features], encoded[:, : self.num_features]
        log_variance = encoded[:, self.num_features :].clamp(-10, 10)
        if self.variational and self.training:
            latent = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        error = ((self.decoder(latent) - stamps) ** 2).mean((1, 2, 3))
        if self.variational:
            divergence = 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance).sum(1)
            error = error + 2 * self.beta * PIXEL_SIGMA**2 / self.n_number * divergence
        return (error, latent) if with_latent else error


def empty_at_first(last: nn.Conv2d | nn.Linear) -> None:
    """Make a decoder's last layer give empty sky before its first step."""
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
