"""An autoencoder of patches that attend to each other, through one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.nn.families.patch_transformer import Patches, attending
from lenspipe.nn.families.rebuilding import Rebuilding, empty_at_first
from lenspipe.nn.network import RebuildNetwork
from lenspipe.nn.registry import register


class _Patches(Patches):
    """The mean of the tokens becomes the vector."""

    def __init__(self, n_channel: int, stamp_px: int, patch: int, width: int, depth: int, latent: int) -> None:
        super().__init__(n_channel, stamp_px, patch, width, depth)
        self.out = nn.Linear(width, latent)

    def forward(self, stamps: Tensor) -> Tensor:
        vector: Tensor = self.out(self.tokens(stamps).mean(1))
        return vector


class _Unpatched(nn.Module):
    """A vector, beside each place, back to patches."""

    def __init__(self, n_channel: int, stamp_px: int, patch: int, width: int, depth: int, latent: int) -> None:
        super().__init__()
        self.side, self.n, self.patch = stamp_px, -(-stamp_px // patch), patch
        self.into, self.place = nn.Linear(latent, width), nn.Parameter(torch.zeros(self.n**2, width))
        nn.init.normal_(self.place, std=0.5)
        self.layers, self.out = attending(width, depth), nn.Linear(width, n_channel * patch**2)
        empty_at_first(self.out)

    def forward(self, latent: Tensor) -> Tensor:
        patches = self.out(self.layers(self.into(latent)[:, None, :] + self.place))
        folded = functional.fold(patches.transpose(1, 2), self.n * self.patch, self.patch, stride=self.patch)
        return folded[:, :, : self.side, : self.side]


class TransformerAutoencoder(Rebuilding):
    """Patches attend to each other (Vaswani et al. 2017, NeurIPS 30) on both sides of the latent vector."""

    def __init__(
        self, n_channel: int, stamp_px: int, n_out: int, width: int, latent: int, patch: int, depth: int
    ) -> None:
        super().__init__(n_channel, stamp_px, n_out, latent)
        self.encoder = _Patches(n_channel, stamp_px, patch, width, depth, latent)
        self.decoder = _Unpatched(n_channel, stamp_px, patch, width, depth, latent)


@register("transformer-ae")
def transformer_ae(
    n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 64, latent: int = 16, patch: int = 5, depth: int = 2
) -> RebuildNetwork:
    """Autoencoder of patches that attend to each other, for the task anomaly."""
    return TransformerAutoencoder(n_channel, stamp_px, n_out, width, latent, patch, depth)
