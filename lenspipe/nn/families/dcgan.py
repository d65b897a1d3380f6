"""Generators of transpose convolutions: DCGAN, the same for a Wasserstein critic, and one that is told what to make."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.nn.families.generating import (
    SLOPE,
    ConvolutionCritic,
    Generating,
    middle,
    parts_of,
    sides_of,
    unconditional,
)
from lenspipe.nn.network import GeneratorNetwork
from lenspipe.nn.registry import register


class ConvolutionGenerator(Generating):
    """
    Transpose convolutions with batch norms from a latent vector to a stamp (Radford et al. 2016).

    Theirs ends with tanh, of images between -1 and 1; flux has no such bounds, and the last layer here is linear.

    Parameters
    ----------
    pixel_noise : bool
        Whether noise of every pixel is added, as strong as the maps say: that of a sky, which no latent vector of a
        hundred numbers can hold. It goes through no convolution, so what is white stays white.
    critic_norm : str
        Of the opponent (`ConvolutionCritic`).
    """

    def __init__(
        self,
        n_channel: int,
        stamp_px: int,
        n_out: int,
        *,
        width: int,
        latent: int,
        n_condition: int,
        pixel_noise: bool,
        critic_norm: str,
    ) -> None:
        super().__init__(n_channel, stamp_px, n_out, n_condition)
        sides = sides_of(stamp_px)
        widths = [width * 2 ** min(level, 2) for level in reversed(range(len(sides)))]
        self.width, self.critic_norm = width, critic_norm
        planes = [(n_channel, stamp_px, stamp_px)] if pixel_noise else []
        self.sizes: list[tuple[int, ...]] = [(latent,), *planes]
        self.n_noise = sum(int(torch.Size(size).numel()) for size in self.sizes)
        self.first = nn.Sequential(
            nn.Linear(latent + n_condition, widths[0] * sides[0] ** 2, bias=False),
            nn.Unflatten(1, (widths[0], sides[0], sides[0])),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.up = nn.Sequential(
            *(
                nn.Sequential(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in itertools.pairwise(widths)
            )
        )
        self.last = nn.Sequential(
            nn.Conv2d(widths[-1], width, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(width, n_channel, 3, padding=1)
        )
        self.strength = nn.Conv2d(widths[-1], n_channel, 3, padding=1) if pixel_noise else None

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """``(n, n_noise)`` and ``(n, n_condition)`` to scaled stamps."""
        latent, *planes = parts_of(noise, self.sizes)
        maps = middle(self.up(self.first(torch.cat([latent, condition], dim=1))), self.stamp_px)
        made: Tensor = self.last(maps)
        if self.strength is not None:
            made = made + functional.softplus(self.strength(maps)) * planes[0]
        return made

    def critic(self) -> nn.Module:
        """Strided convolutions."""
        return ConvolutionCritic(self.n_channel, self.stamp_px, self.width, self.n_condition, self.critic_norm)


@register("dcgan", n_channel=1, stamp_px=32, n_out=1)
def dcgan(
    n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 32, latent: int = 64, n_condition: int = 0
) -> GeneratorNetwork:
    """Adversarial network of transpose convolutions (DCGAN, Radford et al. 2016), for the task generate."""
    unconditional("dcgan", n_condition)
    return ConvolutionGenerator(
        n_channel, stamp_px, n_out, width=width, latent=latent, n_condition=0, pixel_noise=False, critic_norm="batch"
    )


@register("wgan", n_channel=1, stamp_px=32, n_out=1)
def wgan(
    n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 32, latent: int = 64, n_condition: int = 0
) -> GeneratorNetwork:
    """DCGAN's layers and noise of every pixel, for a critic with gradient penalty (Gulrajani et al. 2017)."""
    unconditional("wgan", n_condition)
    return ConvolutionGenerator(
        n_channel, stamp_px, n_out, width=width, latent=latent, n_condition=0, pixel_noise=True, critic_norm="none"
    )


@register("conditional", n_channel=1, stamp_px=32, n_out=1)
def conditional(
    n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 32, latent: int = 64, n_condition: int = 0
) -> GeneratorNetwork:
    """The same, told a class and numbers, with a projection critic (Miyato & Koyama 2018), for the task generate."""
    return ConvolutionGenerator(
        n_channel,
        stamp_px,
        n_out,
        width=width,
        latent=latent,
        n_condition=n_condition,
        pixel_noise=True,
        critic_norm="none",
    )
