"""The LASTRO EPFL networks of the first lens-finding challenge: baseline, views and residual."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.nn.families.lastro_layers import (
    NORM_EPS,
    NormalisedReLU,
    ScaledMaxPool,
    SymmetricPad,
    convolution,
    dense,
    symmetric_side,
)
from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register

CENTRE_PX = 45
CENTRE_MAPS = (16, 19, 23, 27, 33, 39, 47, 57, 68, 82)


def _norm(n_map: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(n_map, eps=NORM_EPS)


def _norm_flat(n_feature: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(n_feature, eps=NORM_EPS)


def whole_stamp(n_channel: int, stamp_px: int, dropout: float) -> nn.Sequential:
    """Convolutional network over the whole stamp, to 1024 features."""
    first_px, side = symmetric_side(stamp_px, 4, 8, 69)
    layers: list[nn.Module] = [SymmetricPad((side - stamp_px) // 2)]
    n_in, kernel_px, left = n_channel, first_px, side
    for n_map in (16, 32, 64):
        layers += [convolution(n_in, n_map, kernel_px), convolution(n_map, n_map, 3), ScaledMaxPool(n_map)]
        layers.append(_norm(n_map))
        left = (left - kernel_px - 1) // 2
        n_in, kernel_px = n_map, 3
    layers += [nn.Dropout(dropout), convolution(64, 128, 3), nn.Dropout(dropout), convolution(128, 128, 3)]
    layers += [_norm(128), nn.Dropout(dropout), convolution(128, 1024, left - 4), nn.Flatten(), nn.Dropout(dropout)]
    layers += [dense(1024, 1024), nn.Dropout(dropout), dense(1024, 1024), _norm_flat(1024)]
    return nn.Sequential(*layers)


class Views(Network):
    """
    The whole stamp at falling resolution beside its centre at full resolution.

    Each half gives two numbers of its features, and the last layers read these four: the features are those of the
    halves.
    """

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.whole = nn.Sequential(whole_stamp(n_channel, stamp_px, dropout), nn.Linear(1024, 2))
        self.centre_px = CENTRE_PX + 1 - stamp_px % 2
        self.pad = SymmetricPad(max(0, (self.centre_px - stamp_px) // 2))
        layers: list[nn.Module] = []
        for number, (n_in, n_map) in enumerate(zip((n_channel, *CENTRE_MAPS), CENTRE_MAPS, strict=False)):
            layers.append(convolution(n_in, n_map, 5))
            if number in (2, 5, 8):
                layers.append(_norm(n_map))
        layers += [nn.Dropout(dropout), convolution(82, 256, self.centre_px - 40), nn.Flatten(), nn.Dropout(dropout)]
        layers += [dense(256, 512), nn.Dropout(dropout), dense(512, 512), _norm_flat(512), nn.Linear(512, 2)]
        self.centre = nn.Sequential(*layers)
        self.joined = nn.Sequential(dense(4, 8), dense(8, 8))
        self.head = RowSum(8, n_out)
        self.num_features = 1024 + 512

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to 1024 numbers of the whole stamp and 512 of its centre."""
        padded = self.pad(stamps)
        start = (padded.shape[-1] - self.centre_px) // 2
        stop = start + self.centre_px
        return torch.cat([self.whole[0](stamps), self.centre[:-1](padded[:, :, start:stop, start:stop])], dim=1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """``(n, 1536)`` to ``(n, n_out)``, or ``(n,)`` for one output; the eight numbers before with ``pre_logits``."""
        whole, centre = features[:, :1024].contiguous(), features[:, 1024:].contiguous()
        both = torch.cat([self.whole[1](whole), self.centre[-1](centre)], dim=1)
        out: Tensor = self.head(self.joined(both), pre_logits=pre_logits)
        return out


class Residual(nn.Module):
    """A few convolutions without padding, added to the cropped input (through a 1 x 1 where the width changes)."""

    def __init__(self, n_in: int, n_map: int, n_convolution: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(n_convolution):
            layers.append(convolution(n_in if number == 0 else n_map, n_map, 3))
        layers[-1] = layers[-1][0]  # type: ignore[index]  # the last one is activated after the sum
        self.branch = nn.Sequential(*layers)
        self.shortcut = convolution(n_in, n_map, 1)[0] if n_in != n_map else nn.Identity()
        self.crop = n_convolution
        self.activation = NormalisedReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``(n, map, y, x)``; the sides shrink by 2 a convolution."""
        cropped = x[:, :, self.crop : -self.crop, self.crop : -self.crop]
        out: Tensor = self.activation(0.5**0.5 * (self.shortcut(cropped) + self.branch(x)))
        return out


def residual_trunk(n_channel: int, stamp_px: int, dropout: float) -> nn.Sequential:
    """Residual network over the whole stamp, to 1024 features."""
    first_px, side = symmetric_side(stamp_px, 2, 4, 89)
    layers: list[nn.Module] = [SymmetricPad((side - stamp_px) // 2), convolution(n_channel, 16, first_px), _norm(16)]
    layers += [Residual(16, 16, 2), _norm(16), Residual(16, 16, 2), ScaledMaxPool(16), _norm(16)]
    layers += [Residual(16, 32, 3), _norm(32), Residual(32, 32, 2), ScaledMaxPool(32), _norm(32), nn.Dropout(dropout)]
    layers += [Residual(32, 64, 2), _norm(64), Residual(64, 92, 2), _norm(92), nn.Dropout(dropout)]
    layers += [Residual(92, 128, 3), _norm(128), nn.Dropout(dropout)]
    left = ((side - first_px + 1 - 8) // 2 - 10) // 2 - 14
    layers += [convolution(128, 1024, left), nn.Flatten(), _norm_flat(1024), nn.Dropout(dropout)]
    layers += [dense(1024, 1024), _norm_flat(1024), nn.Dropout(dropout), dense(1024, 1024), _norm_flat(1024)]
    return nn.Sequential(*layers)


class TrunkAndHead(Network):
    """A trunk that ends in features, and `RowSum`."""

    def __init__(self, trunk: nn.Module, n_feature: int, n_out: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.num_features = n_feature
        self.head = RowSum(n_feature, n_out)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the last dense layer."""
        features: Tensor = self.trunk(stamps)
        return features


@register("lastro-baseline", n_channel=1, stamp_px=101)
def lastro_baseline(n_channel: int, stamp_px: int, n_out: int = 1, *, dropout: float = 0.1) -> Network:
    """
    Baseline of LASTRO EPFL (Schaefer et al. 2018), nine convolutions and three dense layers.

    Schaefer et al. 2018, A&A 611, A2; the layers are those of table 2 of Metcalf et al. 2019 and the authors' public
    code, with its parameter count. Ours differs in what is trained, not in what is computed: ordinary batch norm in
    place of statistics that are accumulated with a falling weight, a constant ``dropout`` in place of a rate that
    rises to 0.5. Stamps other than 101 px are padded with zeros to a side at which the grid stays symmetric
    (`lenspipe.nn.families.lastro_layers.symmetric_side`); below 35 px they are refused.
    """
    return TrunkAndHead(whole_stamp(n_channel, stamp_px, dropout), 1024, n_out)


@register("lastro-views", n_channel=1, stamp_px=101)
def lastro_views(n_channel: int, stamp_px: int, n_out: int = 1, *, dropout: float = 0.1) -> Network:
    """
    The baseline beside ten convolutions on the central 45 px (Schaefer et al. 2018).

    Layers and count of the authors' public code. The two halves are trained together, where the authors train one,
    the other, then both; see `lastro_baseline` for what else differs. On stamps of even side the centre is 46 px.
    """
    return Views(n_channel, stamp_px, n_out, dropout)


@register("lastro-residual", n_channel=1, stamp_px=101)
def lastro_residual(n_channel: int, stamp_px: int, n_out: int = 1, *, dropout: float = 0.1) -> Network:
    """
    Seven residual blocks of two or three convolutions (Schaefer et al. 2018).

    Layers and count of the authors' public code; see `lastro_baseline` for what differs. Stamps below 45 px are
    refused, below 89 px padded with zeros.
    """
    return TrunkAndHead(residual_trunk(n_channel, stamp_px, dropout), 1024, n_out)
