"""A small convolutional network: six convolutions, three poolings of the last map, one weighted sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register


class SmallCNN(Network):
    """
    Convolutions with batch norm and ReLU at strides 2, 1, 2, 1, 2, 1; then mean, central mean and maximum.

    The input's size stays odd at every stride (65, 33, 17, 9), so flips and quarter turns of a stamp shift nothing.
    """

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, width: int, dropout: float) -> None:
        super().__init__()
        w = width
        maps = (n_channel, w, w, 2 * w, 2 * w, 4 * w, 6 * w)
        strides = (2, 1, 2, 1, 2, 1)
        layers: list[nn.Module] = []
        for n_in, n_next, stride in zip(maps, maps[1:], strides, strict=False):
            kernel = 5 if n_in == n_channel and not layers else 3
            layers += [
                nn.Conv2d(n_in, n_next, kernel, stride, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(n_next),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        self.num_features = 3 * maps[-1]
        self.head = RowSum(self.num_features, n_out, dropout)
        side = stamp_px
        for stride in strides:
            side = (side + stride - 1) // stride
        self.ring = max(0, side // 3)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to mean, central mean and maximum of each of the last maps."""
        maps = self.trunk(stamps)
        centre = maps[:, :, self.ring : maps.shape[2] - self.ring, self.ring : maps.shape[3] - self.ring]
        return torch.cat([maps.mean((2, 3)), centre.mean((2, 3)), maps.amax((2, 3))], dim=1)


@register("small-cnn")
def small_cnn(n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 24, dropout: float = 0.2) -> Network:
    """Six convolutions, our own design; 0.2 million parameters at width 24."""
    return SmallCNN(n_channel, stamp_px, n_out, width, dropout)
