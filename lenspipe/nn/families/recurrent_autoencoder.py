"""Recurrent autoencoders: a stamp is read line by line into one vector and written line by line."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.nn.families.rebuilding import Rebuilding, empty_at_first
from lenspipe.nn.network import RebuildNetwork
from lenspipe.nn.registry import register


class _Read(nn.Module):
    """Lines, all channels of each, through a gated recurrent unit; its last state becomes the vector."""

    def __init__(self, n_channel: int, stamp_px: int, width: int, n_out: int) -> None:
        super().__init__()
        self.unit = nn.GRU(n_channel * stamp_px, width, batch_first=True)
        self.out = nn.Linear(width, n_out)

    def forward(self, stamps: Tensor) -> Tensor:
        last: Tensor = self.unit(stamps.transpose(1, 2).flatten(2))[1][-1]
        vector: Tensor = self.out(last)
        return vector


class _Write(nn.Module):
    """A vector, the same at every line, through a gated recurrent unit to lines; a place of its own for each line."""

    def __init__(self, n_channel: int, stamp_px: int, width: int, latent: int) -> None:
        super().__init__()
        self.shape = (stamp_px, n_channel, stamp_px)
        self.start, self.into = nn.Linear(latent, width), nn.Linear(latent, width)
        self.place = nn.Parameter(torch.zeros(stamp_px, width))
        nn.init.normal_(self.place, std=0.5)
        self.unit, self.out = nn.GRU(width, width, batch_first=True), nn.Linear(width, n_channel * stamp_px)
        empty_at_first(self.out)

    def forward(self, latent: Tensor) -> Tensor:
        lines = self.into(latent)[:, None, :] + self.place
        said, _ = self.unit(lines, torch.tanh(self.start(latent))[None])
        stamps: Tensor = self.out(said).unflatten(2, self.shape[1:]).transpose(1, 2)
        return stamps


class RecurrentAutoencoder(Rebuilding):
    """Reads and writes lines; the variational one as Fabius & van Amersfoort 2015 (ICLR workshop)."""

    def __init__(
        self, n_channel: int, stamp_px: int, n_out: int, width: int, latent: int, *, variational: bool, beta: float
    ) -> None:
        super().__init__(n_channel, stamp_px, n_out, latent)
        self.variational, self.beta = variational, beta
        self.encoder = _Read(n_channel, stamp_px, width, latent * (1 + variational))
        self.decoder = _Write(n_channel, stamp_px, width, latent)


@register("rnn-ae")
def rnn_ae(n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 96, latent: int = 16) -> RebuildNetwork:
    """Recurrent autoencoder of lines, for the task anomaly."""
    return RecurrentAutoencoder(n_channel, stamp_px, n_out, width, latent, variational=False, beta=0.0)


@register("vrae")
def vrae(
    n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 96, latent: int = 16, beta: float = 1.0
) -> RebuildNetwork:
    """Variational recurrent autoencoder (Fabius & van Amersfoort 2015), for the task anomaly."""
    return RecurrentAutoencoder(n_channel, stamp_px, n_out, width, latent, variational=True, beta=beta)
