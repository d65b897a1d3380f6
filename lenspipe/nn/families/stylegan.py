"""A small style-based generator with equalised learning rates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.nn.families.generating import SLOPE, Generating, middle, parts_of, sides_of, unconditional
from lenspipe.nn.network import GeneratorNetwork
from lenspipe.nn.registry import register

GAIN = math.sqrt(2)
MAPPING_RATE = 0.01
"""Learning rate of the mapping network, in units of the others'."""


class EqualisedLinear(nn.Module):
    """A linear layer with weights of spread 1 that are scaled when used (Karras et al. 2018, section 4.1)."""

    def __init__(self, n_in: int, n_out: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / rate)
        self.bias = nn.Parameter(torch.full((n_out,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(n_in), rate

    def forward(self, x: Tensor) -> Tensor:
        """``(n, n_in)`` to ``(n, n_out)``."""
        return functional.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualisedConv(nn.Module):
    """A convolution of the same kind; the side stays."""

    def __init__(self, n_in: int, n_out: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, size, size))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.scale, self.padding = 1 / math.sqrt(n_in * size**2), size // 2

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, n_in, y, x)`` to ``(n, n_out, y, x)``."""
        return functional.conv2d(maps, self.weight * self.scale, self.bias, padding=self.padding)


class StyledLayer(nn.Module):
    """Convolution, noise, activation, then scale and shift of maps by the style (Karras et al. 2019, equation 1)."""

    def __init__(self, n_in: int, n_out: int, latent: int, n_plane: int) -> None:
        super().__init__()
        self.convolution = EqualisedConv(n_in, n_out, 3)
        self.noise = nn.Parameter(torch.zeros(n_out, n_plane, 1, 1))
        self.style = EqualisedLinear(latent, 2 * n_out)

    def forward(self, maps: Tensor, style: Tensor, planes: Tensor) -> Tensor:
        """``(n, n_in, y, x)``, ``(n, latent)`` and noise ``(n, n_plane, y, x)`` to ``(n, n_out, y, x)``."""
        maps = self.convolution(maps) + functional.conv2d(planes, self.noise)
        maps = functional.instance_norm(functional.leaky_relu(maps, SLOPE) * GAIN)
        scale, shift = self.style(style)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = maps * (1 + scale) + shift
        return out


class StyleGenerator(Generating):
    """
    A mapping network, a learnt first map and two styled layers per side (Karras et al. 2019).

    Noise comes in as a plane per band and not one for all, as the noise of bands is independent; it also meets the
    last map, so that a sky can have it pixel by pixel. No mixing of styles, no truncation.
    """

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, width: int, latent: int) -> None:
        super().__init__(n_channel, stamp_px, n_out, 0)
        sides = sides_of(stamp_px)
        widths = [width * 2 ** min(level, 1) for level in reversed(range(len(sides)))]
        self.width, self.latent = width, latent
        self.sizes: list[tuple[int, ...]] = [(latent,), *((n_channel, s, s) for s in sides for _ in range(2))]
        self.sizes += [(n_channel, stamp_px, stamp_px)]
        self.n_noise = sum(int(torch.Size(size).numel()) for size in self.sizes)
        self.mapping = nn.ModuleList(EqualisedLinear(latent, latent, rate=MAPPING_RATE) for _ in range(3))
        self.first = nn.Parameter(torch.ones(widths[0], sides[0], sides[0]))
        self.layers = nn.ModuleList()
        for level, n_map in enumerate(widths):
            before = widths[max(0, level - 1)]
            self.layers.append(StyledLayer(before, n_map, latent, n_channel))
            self.layers.append(StyledLayer(n_map, n_map, latent, n_channel))
        self.last = EqualisedConv(widths[-1], n_channel, 1)
        self.noise = nn.Parameter(torch.zeros(n_channel, 1, 1))

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """``(n, n_noise)`` to scaled stamps; nothing is asked for."""
        style, *planes = parts_of(noise, self.sizes)
        style = style * torch.rsqrt(style.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.mapping:
            style = functional.leaky_relu(layer(style), SLOPE) * GAIN
        maps = self.first.expand(len(noise), -1, -1, -1)
        for number, (layer, plane) in enumerate(zip(self.layers, planes, strict=False)):
            if number and number % 2 == 0:
                maps = functional.interpolate(maps, scale_factor=2.0, mode="bilinear")
            maps = layer(maps, style, plane)
        return middle(self.last(maps), self.stamp_px) + self.noise * planes[-1]

    def critic(self) -> nn.Module:
        """Equalised convolutions, means between sides, and the spread over the batch as a map."""
        return StyleCritic(self.n_channel, self.stamp_px, self.width)


class StyleCritic(nn.Module):
    """The opponent of Karras et al. (2018): two convolutions per side, down to a number."""

    def __init__(self, n_channel: int, stamp_px: int, width: int) -> None:
        super().__init__()
        n_down = len(sides_of(stamp_px)) - 1
        self.first = EqualisedConv(n_channel, width, 3)
        widths = [width * 2 ** min(level, 1) for level in range(n_down + 1)]
        self.layers = nn.ModuleList(EqualisedConv(widths[level], widths[level + 1], 3) for level in range(n_down))
        side = stamp_px
        for _ in range(n_down):
            side //= 2
        self.joined = EqualisedLinear((widths[-1] + 1) * side**2, 2 * width)
        self.said = EqualisedLinear(2 * width, 1)

    def forward(self, stamps: Tensor, condition: Tensor) -> Tensor:
        """Scaled stamps ``(n, channel, y, x)`` to ``(n,)``."""
        maps = functional.leaky_relu(self.first(stamps), SLOPE) * GAIN
        for layer in self.layers:
            maps = functional.avg_pool2d(functional.leaky_relu(layer(maps), SLOPE) * GAIN, 2)
        spread = (maps.var(0, correction=0) + 1e-8).sqrt().mean().expand(len(maps), 1, *maps.shape[2:])
        seen = torch.cat([maps, spread], dim=1).flatten(1)
        said: Tensor = self.said(functional.leaky_relu(self.joined(seen), SLOPE) * GAIN)
        return said[:, 0]


@register("stylegan", n_channel=1, stamp_px=32, n_out=1)
def stylegan(
    n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 32, latent: int = 64, n_condition: int = 0
) -> GeneratorNetwork:
    """Small style-based adversarial network, equalised learning rate (Karras et al. 2019), for the task generate."""
    unconditional("stylegan", n_condition)
    return StyleGenerator(n_channel, stamp_px, n_out, width, latent)
