"""CMU DeepLens: a pre-activation residual network."""

from __future__ import annotations

from torch import Tensor, nn

from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register

STAGES = ((16, 32), (32, 64), (64, 128), (128, 256), (256, 512))


class Bottleneck(nn.Module):
    """Batch norm, ELU, convolution thrice (1 x 1, 3 x 3, 1 x 1), added to the input."""

    def __init__(self, n_in: int, n_inner: int, n_map: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(n_in), nn.ELU())
        self.branch = nn.Sequential(
            nn.Conv2d(n_in, n_inner, 1, stride, bias=False),
            nn.BatchNorm2d(n_inner),
            nn.ELU(),
            nn.Conv2d(n_inner, n_inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_inner),
            nn.ELU(),
            nn.Conv2d(n_inner, n_map, 1),
        )
        self.shortcut = None if n_in == n_map else nn.Conv2d(n_in, n_map, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, map, y, x)``; where the width changes the shortcut starts after the first activation."""
        active = self.first(x)
        kept = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = kept + self.branch(active)
        return out


class DeepLens(Network):
    """A wide first convolution, fifteen bottlenecks, the mean over the last map."""

    def __init__(self, n_channel: int, n_out: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(n_channel, 32, 7, padding=3, bias=False), nn.BatchNorm2d(32), nn.ELU()]
        n_in = 32
        for number, (n_inner, n_map) in enumerate(STAGES):
            for block in range(3):
                layers.append(Bottleneck(n_in, n_inner, n_map, 2 if number and not block else 1))
                n_in = n_map
        self.trunk = nn.Sequential(*layers)
        self.num_features = n_in
        self.head = RowSum(n_in, n_out, dropout)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the mean of each of the last maps."""
        pooled: Tensor = self.trunk(stamps).mean((2, 3))
        return pooled


@register("cmu-deeplens", n_channel=1, stamp_px=101)
def cmu_deeplens(n_channel: int, stamp_px: int, n_out: int = 1, *, dropout: float = 0.0) -> Network:
    """
    CMU DeepLens, a residual network of 46 convolutions (Lanusse et al. 2018).

    Lanusse et al. 2018, MNRAS 473, 3895, figure 3 and table 1: 7 x 7 convolution, then three bottlenecks each of
    (16, 32), (32, 64), (64, 128), (128, 256), (256, 512), the first of each but the first group at stride 2. No
    parameter count is published. Ours ends in one mean over the last map for any size, takes batch norm before the
    ELU of the first convolution, and leaves out the convolution biases that a batch norm takes off again.
    """
    return DeepLens(n_channel, n_out, dropout)
