"""A Gaussian blur of stamps, in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def gaussian_line(sigma_px: float, like: Tensor) -> Tensor:
    """Gaussian ``(2 reach + 1,)`` to 3 sigma, of sum 1, with the type and device of a tensor."""
    reach = math.ceil(3 * sigma_px)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype) / sigma_px) ** 2)
    return line / line.sum()


def blurred(stamps: Tensor, sigma_px: float) -> Tensor:
    """
    Stamps ``(n, channel, y, x)`` convolved with a Gaussian; beyond the edges is nothing.

    Examples
    --------
    >>> point = torch.zeros(1, 1, 15, 15)
    >>> point[0, 0, 7, 7] = 1
    >>> round(float(blurred(point, 1.0).sum()), 4)
    1.0
    """
    line = gaussian_line(sigma_px, stamps)
    reach, (n, channel, height, width) = len(line) // 2, stamps.shape
    flat = functional.pad(stamps, (reach,) * 4).reshape(n * channel, 1, height + 2 * reach, width + 2 * reach)
    across = functional.conv2d(flat, line.reshape(1, 1, 1, -1))
    return functional.conv2d(across, line.reshape(1, 1, -1, 1)).reshape(n, channel, height, width)
