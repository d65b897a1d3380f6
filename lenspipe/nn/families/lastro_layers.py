"""Layers of the LASTRO networks: normalised ReLU, pooling with a scale, stamps padded to a symmetric grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, relu

from lenspipe.errors import ModelError

# mean and inverse spread of max(0, z) for a standard normal z
RELU_MEAN = 1 / math.sqrt(2 * math.pi)
RELU_GAIN = 1 / math.sqrt(0.5 - 1 / (2 * math.pi))
NORM_EPS = 1e-3


class NormalisedReLU(nn.Module):
    """ReLU shifted and scaled so that a standard normal input comes out with mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return (relu(x) - RELU_MEAN) * RELU_GAIN


class ScaledMaxPool(nn.Module):
    """Maximum over 2 x 2 pixels, then a scale and a shift a channel, both learnt."""

    def __init__(self, n_map: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((n_map, 1, 1), 0.83))
        self.shift = nn.Parameter(torch.full((n_map, 1, 1), -0.92))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, map, y, x)`` with even sides."""
        return max_pool2d(x, 2) * self.scale + self.shift


def convolution(n_in: int, n_next: int, kernel_px: int) -> nn.Sequential:
    """Convolution without padding and `NormalisedReLU`; weights drawn so that the variance is kept."""
    conv = nn.Conv2d(n_in, n_next, kernel_px)
    nn.init.normal_(conv.weight, std=(n_in * kernel_px**2) ** -0.5)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, NormalisedReLU())


def dense(n_in: int, n_next: int) -> nn.Sequential:
    """Linear layer and `NormalisedReLU`; weights drawn so that the variance is kept."""
    linear = nn.Linear(n_in, n_next)
    nn.init.normal_(linear.weight, std=n_in**-0.5)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, NormalisedReLU())


class SymmetricPad(nn.Module):
    """Zeros around a stamp, the same on all four sides."""

    def __init__(self, margin_px: int) -> None:
        super().__init__()
        self.margin_px = margin_px

    def forward(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)``."""
        return pad(stamps, [self.margin_px] * 4) if self.margin_px else stamps


def symmetric_side(stamp_px: int, first_px: int, period: int, least_px: int) -> tuple[int, int]:
    """
    First kernel and padded side with which every pooling of a LASTRO network meets an even map.

    The published networks take 101 px: with their first kernel of ``first_px`` (even) all maps before a pooling are
    even. That holds for odd sides of the same remainder; an even stamp gets a first kernel one larger and a side one
    larger, so that its grid stays symmetric too. Zeros (the sky) fill what is missing.

    Returns
    -------
    tuple of int
        Side of the first kernel, side of the padded stamp.

    Raises
    ------
    ModelError
        The stamp is smaller than half of ``least_px``.
    """
    if 2 * stamp_px < least_px:
        raise ModelError(
            "stamps are too small for this family: make them larger or take another",
            got_px=stamp_px,
            least_px=(least_px + 1) // 2,
        )
    even = 1 - stamp_px % 2
    side = max(stamp_px, least_px + even)
    side += (101 + even - side) % period
    return first_px + even, side
