"""The LASTRO EPFL network whose output does not change under quarter turns and mirror images."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from lenspipe.nn.families.lastro_layers import NORM_EPS, NormalisedReLU, SymmetricPad, symmetric_side
from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register

N_VIEW = 8


def view(x: Tensor, number: int) -> Tensor:
    """One of the eight views of the last two axes: ``number % 4`` quarter turns after a mirror image from 4 on."""
    return torch.rot90(x.flip(-1) if number >= 4 else x, number % 4, (-2, -1))


@functools.cache
def compositions() -> tuple[tuple[int, ...], ...]:
    """Table ``t[g][h]``: the view that follows by view g is view h, so ``view(view(x, t[g][h]), g) == view(x, h)``."""
    probe = torch.arange(16).reshape(4, 4)
    views = {tuple(view(probe, h).flatten().tolist()): h for h in range(N_VIEW)}
    table = np.zeros((N_VIEW, N_VIEW), int)
    for g in range(N_VIEW):
        for inner in range(N_VIEW):
            table[g, views[tuple(view(view(probe, inner), g).flatten().tolist())]] = inner
    return tuple(tuple(int(i) for i in row) for row in table)


class DihedralConvolution(nn.Module):
    """
    Convolution between fields of eight maps, one a view, without padding (Cohen & Welling 2016, eq. 11).

    Channels lie field by field, the eight views of a field together; a scalar input has one map a field.
    """

    def __init__(self, n_in: int, n_field: int, kernel_px: int, scalar_input: bool = False) -> None:
        super().__init__()
        self.scalar_input = scalar_input
        n_view = 1 if scalar_input else N_VIEW
        spread = (n_in * n_view * kernel_px**2) ** -0.5
        self.weight = nn.Parameter(torch.randn(n_field, n_in, n_view, kernel_px, kernel_px) * spread)
        self.bias = nn.Parameter(torch.zeros(n_field))

    def kernel(self) -> Tensor:
        """Kernel of the ordinary convolution: ``(8 n_field, n_in or 8 n_in, y, x)``."""
        turned = []
        for g, row in enumerate(compositions()):
            source = self.weight if self.scalar_input else self.weight[:, :, list(row)]
            turned.append(view(source, g))
        kernel = torch.stack(turned, dim=1)
        n_field, _, n_in, n_view, y, x = kernel.shape
        return kernel.reshape(n_field * N_VIEW, n_in * n_view, y, x)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channel, y, x)``."""
        return conv2d(x, self.kernel(), self.bias.repeat_interleave(N_VIEW))


class DihedralNorm(nn.Module):
    """Batch norm with one mean and variance for the eight maps of a field."""

    def __init__(self, n_field: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(n_field, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 8 n_field, y, x)``."""
        n, channel, height, width = x.shape
        fields: Tensor = self.norm(x.reshape(n, channel // N_VIEW, N_VIEW, height, width))
        return fields.reshape(n, channel, height, width)


class DihedralPool(nn.Module):
    """Maximum over 2 x 2 pixels, then one scale and shift a field."""

    def __init__(self, n_field: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((n_field,), 0.77))
        self.shift = nn.Parameter(torch.full((n_field,), -1.0))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 8 n_field, y, x)`` with even sides."""
        scale, shift = (p.repeat_interleave(N_VIEW)[:, None, None] for p in (self.scale, self.shift))
        return max_pool2d(x, 2) * scale + shift


class Invariant(Network):
    """Convolutions and dense layers between fields of eight views; the last sums over the views."""

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, dropout: float) -> None:
        super().__init__()
        first_px, side = symmetric_side(stamp_px, 4, 8, 69)
        layers: list[nn.Module] = [SymmetricPad((side - stamp_px) // 2)]

        def convolve(n_in: int, n_field: int, kernel_px: int, scalar_input: bool = False) -> None:
            layers.extend([DihedralConvolution(n_in, n_field, kernel_px, scalar_input), NormalisedReLU()])

        n_in, kernel_px, left = n_channel, first_px, side
        for n_field in (4, 8, 16):
            convolve(n_in, n_field, kernel_px, scalar_input=left == side)
            convolve(n_field, n_field, 3)
            layers += [DihedralPool(n_field), DihedralNorm(n_field)]
            left = (left - kernel_px - 1) // 2
            n_in, kernel_px = n_field, 3
        layers.append(nn.Dropout(dropout))
        convolve(16, 32, 3)
        layers.append(nn.Dropout(dropout))
        convolve(32, 32, 3)
        layers += [DihedralNorm(32), nn.Dropout(dropout)]
        convolve(32, 128, left - 4)
        layers.append(nn.Dropout(dropout))
        convolve(128, 256, 1)
        layers.append(nn.Dropout(dropout))
        convolve(256, 256, 1)
        layers.append(DihedralNorm(256))
        self.trunk = nn.Sequential(*layers)
        self.num_features = 256
        self.head = RowSum(256, n_out)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the mean of each field over the eight views, which no view changes."""
        fields = self.trunk(stamps)
        means: Tensor = fields.reshape(len(fields), -1, N_VIEW).mean(dim=-1)
        return means


@register("lastro-invariant", n_channel=1, stamp_px=101)
def lastro_invariant(n_channel: int, stamp_px: int, n_out: int = 1, *, dropout: float = 0.1) -> Network:
    """
    The baseline in fields of the eight views: invariant under D4 (Schaefer et al. 2018).

    Layers and count of the authors' public code, whose invariance we keep at every stamp size by padding. The last
    layer takes the mean over the views where theirs takes the sum; `lastro_baseline` says what else differs.
    """
    return Invariant(n_channel, stamp_px, n_out, dropout)
