"""An autoencoder that a quarter turn commutes with: a turned stamp comes back turned, and as badly."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.nn.families.rebuilding import Rebuilding
from lenspipe.nn.network import RebuildNetwork
from lenspipe.nn.registry import register


class Turning(nn.Module):
    """
    A convolution over quarter turns (Cohen & Welling 2016, ICML, PMLR 48, 2990, section 6.1).

    Maps are ``(n, channel * 4, y, x)``, the turn the faster axis, or ``(n, channel, y, x)`` of an image that is turned
    with its pixels. The kernel of output turn r is the first one turned by r quarters, its input turns moved on by r.
    """

    def __init__(self, n_in: int, n_out: int, side: int, *, of_image: bool = False, to_image: bool = False) -> None:
        super().__init__()
        self.of_image, self.to_image, self.side = of_image, to_image, side
        weight = torch.empty(n_out, n_in, 1 if of_image else 4, side, side)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(n_out))

    def kernel(self) -> Tensor:
        """``(n_out * turns, n_in * turns, side, side)``."""
        turned = [torch.rot90(self.weight.roll(r, 2), r, (-2, -1)) for r in range(4)]
        if self.to_image:
            return torch.stack(turned).mean(0).flatten(1, 2)
        return torch.stack(turned, 1).flatten(0, 1).flatten(1, 2)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the same side."""
        bias = self.bias if self.to_image else self.bias.repeat_interleave(4)
        return functional.conv2d(maps, self.kernel(), bias, padding=self.side // 2)

    def gather(self, maps: Tensor) -> Tensor:
        """A vector ``(n, n_out * 4)`` of maps of its side: a convolution at one place."""
        return functional.linear(maps.flatten(1), self.kernel().flatten(1), self.bias.repeat_interleave(4))

    def spread(self, vector: Tensor) -> Tensor:
        """Maps of its side of a vector ``(n, n_out * 4)``: the transpose of `gather`."""
        flat = vector @ self.kernel().flatten(1)
        return flat.view(len(flat), -1, self.side, self.side)


class EquivariantAutoencoder(Rebuilding):
    """
    Two pooled convolutions over quarter turns, a vector with four turns of each number, and back.

    Sizes change by means over cells and by linear interpolation, which both commute with a turn.
    """

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, width: int, latent: int) -> None:
        super().__init__(n_channel, stamp_px, n_out, 4 * latent)
        self.sides = (stamp_px, (stamp_px + 1) // 2, (stamp_px + 3) // 4)
        w = width
        self.one, self.two = Turning(n_channel, w, 3, of_image=True), Turning(w, 2 * w, 3)
        self.into, self.back = Turning(2 * w, latent, self.sides[2]), Turning(2 * w, latent, self.sides[2])
        self.three, self.four = Turning(2 * w, w, 3), Turning(w, n_channel, 3, to_image=True)
        edge = (3 / (4 * latent)) ** 0.5
        nn.init.uniform_(self.back.weight, -edge, edge)  # of a transpose only the vector's numbers are summed
        nn.init.zeros_(self.four.weight)
        self.encoder, self.decoder = _Of(self.encode), _Of(self.decode)

    def encode(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to ``(n, latent * 4)``."""
        maps = functional.relu(functional.adaptive_avg_pool2d(self.one(stamps), self.sides[1]))
        maps = functional.relu(functional.adaptive_avg_pool2d(self.two(maps), self.sides[2]))
        return self.into.gather(maps)

    def decode(self, vector: Tensor) -> Tensor:
        """``(n, latent * 4)`` to ``(n, channel, y, x)``."""
        maps = functional.relu(self.back.spread(vector))
        maps = functional.relu(self.three(functional.interpolate(maps, size=self.sides[1], mode="bilinear")))
        stamps: Tensor = self.four(functional.interpolate(maps, size=self.sides[0], mode="bilinear"))
        return stamps


class _Of(nn.Module):
    """A method as a module without tensors of its own."""

    def __init__(self, method: object) -> None:
        super().__init__()
        self._method = [method]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._method[0](x)  # type: ignore[operator]
        return out


@register("equivariant-ae")
def equivariant_ae(n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 8, latent: int = 8) -> RebuildNetwork:
    """Autoencoder over quarter turns (Cohen & Welling 2016), for the task anomaly."""
    return EquivariantAutoencoder(n_channel, stamp_px, n_out, width, latent)
