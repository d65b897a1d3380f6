"""Dense blocks with convolutional block attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1 x 1 and 3 x 3 convolution; the result is laid beside the input."""

    def __init__(self, n_in: int, growth: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(n_in),
            nn.ReLU(),
            nn.Conv2d(n_in, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(n, map, y, x)`` to ``(n, map + growth, y, x)``."""
        return torch.cat([x, self.branch(x)], dim=1)


class Attention(nn.Module):
    """Weights a map, then weights a pixel, each from means and maxima (Woo et al. 2018, eqs. 1-3)."""

    def __init__(self, n_map: int, reduction: int = 16) -> None:
        super().__init__()
        n_inner = max(4, n_map // reduction)
        self.of_maps = nn.Sequential(nn.Conv2d(n_map, n_inner, 1), nn.ReLU(), nn.Conv2d(n_inner, n_map, 1))
        self.of_pixels = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, map, y, x)``, same shape out."""
        mean, top = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        x = x * torch.sigmoid(self.of_maps(mean) + self.of_maps(top))
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.of_pixels(seen))


class DenseNetCBAM(Network):
    """Dense blocks, each followed by attention and, but for the last, by a transition at stride 2."""

    def __init__(self, n_channel: int, n_out: int, growth: int, blocks: list[int], dropout: float) -> None:
        super().__init__()
        n_map = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(n_channel, n_map, 5, 2, padding=2, bias=False)]
        layers += [nn.BatchNorm2d(n_map), nn.ReLU()]
        for number, n_layer in enumerate(blocks):
            for _ in range(n_layer):
                layers.append(DenseLayer(n_map, growth))
                n_map += growth
            layers.append(Attention(n_map))
            if number < len(blocks) - 1:
                layers += [nn.BatchNorm2d(n_map), nn.ReLU(), nn.Conv2d(n_map, n_map // 2, 1, bias=False)]
                layers.append(nn.AvgPool2d(2, ceil_mode=True))
                n_map //= 2
        self.trunk = nn.Sequential(*layers, nn.BatchNorm2d(n_map), nn.ReLU())
        self.num_features = n_map
        self.head = RowSum(n_map, n_out, dropout)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the mean of each of the last maps."""
        pooled: Tensor = self.trunk(stamps).mean((2, 3))
        return pooled


@register("densenet-cbam", n_channel=3, stamp_px=65)
def densenet_cbam(
    n_channel: int,
    stamp_px: int,
    n_out: int = 1,
    *,
    growth: int = 16,
    blocks: list[int] | None = None,
    dropout: float = 0.2,
) -> Network:
    """
    Dense blocks, each with convolutional block attention (Huang et al. 2017; Woo et al. 2018).

    Huang et al. 2017 (CVPR) and Woo et al. 2018 (ECCV). Numbers of layers (``blocks``, 4 8 12 where not given) and
    growth are ours, chosen for stamps of 50 to 150 px; the first convolution is 5 x 5 at stride 2 with no pooling.
    """
    return DenseNetCBAM(n_channel, n_out, growth, blocks or [4, 8, 12], dropout)
