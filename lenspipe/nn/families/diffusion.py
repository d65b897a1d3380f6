"""A small diffusion model: a U-Net that takes noise off stamps, and the steps from noise to a stamp."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.nn.families.generating import Generating
from lenspipe.nn.network import GeneratorNetwork
from lenspipe.nn.registry import register

SIGMA_LEAST, SIGMA_MOST, RHO = 0.01, 80.0, 7.0
"""Range and spacing of the noise in units of the stamps' spread (Karras et al. 2022, table 1; theirs reach from .002 to
80 for images whose spread is .5). The mean of 32 x 32 pixels shows through noise of up to 30 times the spread: a start
there would draw the flux of a stamp wrongly."""


class Block(nn.Module):
    """Two convolutions with group norms; the level of noise and what is asked for scale and shift the maps between."""

    def __init__(self, n_in: int, n_out: int, n_told: int) -> None:
        super().__init__()
        self.before, self.after = nn.GroupNorm(math.gcd(8, n_in), n_in), nn.GroupNorm(math.gcd(8, n_out), n_out)
        self.first, self.second = nn.Conv2d(n_in, n_out, 3, padding=1), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.told = nn.Linear(n_told, 2 * n_out)
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        nn.init.zeros_(self.second.weight)

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        """``(n, n_in, y, x)`` and ``(n, n_told)`` to ``(n, n_out, y, x)``."""
        scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)
        seen = self.first(functional.silu(self.before(maps)))
        seen = self.second(functional.silu(self.after(seen) * (1 + scale) + shift))
        out: Tensor = self.skip(maps) + seen
        return out


def _places(maps: Tensor) -> Tensor:
    """
    Where each place of maps ``(n, map, y, x)`` is, ``(n, 3, y, x)``: ``r``, ``cos 2 phi`` and ``sin 2 phi``.

    ``r`` is the distance from the middle, 1 half a side away. What stands opposite has the same three numbers.
    """
    y, x = (torch.linspace(-1, 1, side, dtype=maps.dtype, device=maps.device) for side in maps.shape[2:])
    y, x = torch.meshgrid(y, x, indexing="ij")
    square = (x**2 + y**2).clamp(min=1e-6)
    return torch.stack([square.sqrt(), (x**2 - y**2) / square, 2 * x * y / square]).expand(len(maps), -1, -1, -1)


def _both_sides(maps: Tensor) -> Tensor:
    """Maps ``(n, map, y, x)``, and each turned by half a turn."""
    return torch.cat([maps, maps.flip(2, 3)], dim=1)


class Diffusion(Generating):
    """
    Elucidated diffusion (Karras et al. 2022): ``D(x; sigma)`` is the stamp without the noise, scaled as their table 1.

    The U-Net has two levels on blocks of ``fold`` pixels. It sees where a block is, each level sees its maps turned by
    half a turn as well (a galaxy looks the same there, and an arc has its counter-image), and the means of the lower
    level's maps over the stamp are told to all that follows: a galaxy's flux, size and shape are of the whole stamp.
    A stamp is made by their algorithm 1 without churn, which is Heun's second-order steps: the same noise gives the
    same stamp.
    """

    def __init__(
        self, n_channel: int, stamp_px: int, n_out: int, *, width: int, fold: int, n_condition: int, steps: int
    ) -> None:
        super().__init__(n_channel, stamp_px, n_out, n_condition)
        self.n_noise, self.fold, self.steps = n_channel * stamp_px**2, fold, steps
        n_told = 2 * width
        self.edge = -stamp_px % (2 * fold)
        self.told = nn.Sequential(nn.Linear(8 + n_condition, n_told), nn.SiLU(), nn.Linear(n_told, n_told), nn.SiLU())
        self.enter = nn.Conv2d(n_channel * fold**2 + 3, width, 3, padding=1)
        self.down = Block(2 * width, width, n_told)
        self.low = nn.ModuleList([Block(2 * width, 2 * width, n_told), Block(4 * width, 2 * width, n_told)])
        self.whole = nn.Sequential(nn.Linear(2 * width, n_told), nn.SiLU(), nn.Linear(n_told, n_told))
        self.join = Block(3 * width, width, n_told)
        self.up = Block(4 * width, width, n_told)
        self.leave = nn.Sequential(
            nn.GroupNorm(math.gcd(8, width), width), nn.SiLU(), nn.Conv2d(width, n_channel * fold**2, 3, padding=1)
        )
        for last in (self.leave[-1], self.whole[-1]):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]

    def forward(self, noisy: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """Scaled stamps with noise ``(n, channel, y, x)`` of ``sigma`` ``(n,)`` to the stamps without it."""
        level = sigma[:, None, None, None]
        whole = (1 + level**2).sqrt()
        found = self._network(noisy / whole, torch.log(sigma) / 4, condition)
        return noisy / whole**2 + level / whole * found

    def _network(self, images: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        waves = level[:, None] * torch.tensor([1.0, 2.0, 4.0, 8.0], device=level.device)
        told = self.told(torch.cat([torch.cos(waves), torch.sin(waves), condition], dim=1))
        images = functional.pad(images, (0, self.edge, 0, self.edge))
        folded = functional.pixel_unshuffle(images, self.fold)
        first = self.enter(torch.cat([folded, _places(folded)], dim=1))
        fine = self.down(_both_sides(first), told)
        low = functional.avg_pool2d(fine, 2)
        low = self.low[0](_both_sides(low), told)
        told = told + self.whole(low.mean((2, 3)))
        low = self.low[1](_both_sides(low), told)
        maps = self.join(torch.cat([functional.interpolate(low, scale_factor=2.0), fine], dim=1), told)
        maps = self.up(_both_sides(torch.cat([maps, first], dim=1)), told)
        found = functional.pixel_shuffle(self.leave(maps), self.fold)
        return found[..., : self.stamp_px, : self.stamp_px]

    def draw(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Noise ``(n, n_noise)`` to scaled stamps, in ``steps`` steps of two looks each."""
        place = torch.arange(self.steps, device=noise.device) / max(1, self.steps - 1)
        most, least = SIGMA_MOST ** (1 / RHO), SIGMA_LEAST ** (1 / RHO)
        sigmas = torch.cat([(most + place * (least - most)) ** RHO, place.new_zeros(1)])
        x = noise.reshape(-1, self.n_channel, self.stamp_px, self.stamp_px) * sigmas[0]
        for now, then in itertools.pairwise(sigmas):
            slope = (x - self(x, now.expand(len(x)), condition)) / now
            there = x + (then - now) * slope
            if then > 0:
                after = (there - self(there, then.expand(len(x)), condition)) / then
                there = x + (then - now) * (slope + after) / 2
            x = there
        return x

    def example(self, n: int) -> tuple[Tensor, ...]:
        """Stamps, their noise, and what is asked for."""
        stamps = torch.zeros(n, self.n_channel, self.stamp_px, self.stamp_px)
        return stamps, torch.ones(n), torch.zeros(n, self.n_condition)


@register("diffusion", n_channel=1, stamp_px=32, n_out=1)
def diffusion(
    n_channel: int,
    stamp_px: int,
    n_out: int = 1,
    *,
    width: int = 32,
    fold: int = 2,
    steps: int = 18,
    n_condition: int = 0,
) -> GeneratorNetwork:
    """Diffusion model with a small U-Net (EDM, Karras et al. 2022), told a class and numbers, for the task generate."""
    return Diffusion(n_channel, stamp_px, n_out, width=width, fold=fold, n_condition=n_condition, steps=steps)
