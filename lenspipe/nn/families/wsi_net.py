"""WSI-Net: the classification branch of a network for very large images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from lenspipe.nn.families.cmu_deeplens import Bottleneck
from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register

PYRAMID = (1, 2, 4, 8)


class WSINet(Network):
    """Two residual blocks, a branch of two convolutions, maxima over a pyramid of cells, a dense layer."""

    def __init__(self, n_channel: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(n_channel, 32, 7, padding=3), nn.ELU(), Bottleneck(32, 16, 32, 1), Bottleneck(32, 32, 64, 2)
        )
        self.branch = nn.Sequential(
            nn.Conv2d(64, 32, 1, bias=False),
            nn.GroupNorm(8, 32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 5, padding=2, bias=False),
            nn.GroupNorm(8, 32),
            nn.ReLU(),
        )
        n_cell = sum(cells * cells for cells in PYRAMID)
        self.dense = nn.Sequential(nn.Linear(32 * n_cell, 128), nn.ReLU(), nn.Dropout(dropout))
        self.num_features = 128
        self.head = RowSum(128, n_out)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the dense layer after the pyramid."""
        maps = self.branch(self.trunk(stamps))
        cells = torch.cat([adaptive_max_pool2d(maps, cells).flatten(1) for cells in PYRAMID], dim=1)
        features: Tensor = self.dense(cells)
        return features


@register("wsi-net", n_channel=1, stamp_px=101)
def wsi_net(n_channel: int, stamp_px: int, n_out: int = 1, *, dropout: float = 0.3) -> Network:
    """
    The classification branch of WSI-Net on a small residual trunk (Ni et al. 2019).

    Ni et al. 2019 (Machine Learning in Medical Imaging, LNCS 11861, 36), from the paper only: no code of its authors
    was found. The branch is theirs: 1 x 1 and 5 x 5 convolutions with group norm, then pooling over a spatial
    pyramid. The trunk is cut to two residual blocks, as lens finders that borrow the name do, and the segmentation
    branch is left out, since stamps carry no mask of arcs. Widths, the pyramid's levels and the dense layer are ours.
    """
    return WSINet(n_channel, n_out, dropout)
