"""The first generative adversarial network: layers without convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.nn.families.generating import SLOPE, Generating, Judgement, unconditional
from lenspipe.nn.network import GeneratorNetwork
from lenspipe.nn.registry import register


class DenseGenerator(Generating):
    """Two layers of ``width`` and twice that from the latent vector to the stamp, and a critic of the same."""

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, width: int, latent: int) -> None:
        super().__init__(n_channel, stamp_px, n_out, 0)
        self.n_noise, self.width = latent, width
        self.layers = nn.Sequential(
            nn.Linear(latent, width),
            nn.ReLU(),
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, n_channel * stamp_px**2),
            nn.Unflatten(1, (n_channel, stamp_px, stamp_px)),
        )

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """``(n, n_noise)`` to scaled stamps; nothing is asked for."""
        made: Tensor = self.layers(noise)
        return made

    def critic(self) -> nn.Module:
        """Two layers; dropout as in the paper, whose maxout units are leaky ReLUs here."""
        return DenseCritic(self.n_channel * self.stamp_px**2, self.width)


class DenseCritic(nn.Module):
    """Two layers with dropout."""

    def __init__(self, n_number: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_number, 2 * width),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(0.2),
            nn.Linear(2 * width, width),
            nn.LeakyReLU(SLOPE),
        )
        self.judgement = Judgement(width, 0)

    def forward(self, stamps: Tensor, condition: Tensor) -> Tensor:
        """Scaled stamps ``(n, channel, y, x)`` to ``(n,)``."""
        said: Tensor = self.judgement(self.layers(stamps), torch.zeros(0))
        return said


@register("gan", n_channel=1, stamp_px=32, n_out=1)
def gan(
    n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 128, latent: int = 64, n_condition: int = 0
) -> GeneratorNetwork:
    """Generative adversarial network without convolutions (Goodfellow et al. 2014), for the task generate."""
    unconditional("gan", n_condition)
    return DenseGenerator(n_channel, stamp_px, n_out, width, latent)
