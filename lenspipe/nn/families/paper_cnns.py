"""Three small convolutional networks that are known from their papers: CAS Swinburne, LensFlow, EPFL."""

from __future__ import annotations

from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register


class PlainCNN(Network):
    """Convolutions and pooling, flattened, dense layers, `RowSum`."""

    def __init__(self, trunk: nn.Module, dense: nn.Module, n_feature: int, n_out: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.dense = dense
        self.num_features = n_feature
        self.head = RowSum(n_feature, n_out)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the last dense layer."""
        features: Tensor = self.dense(self.trunk(stamps).flatten(1))
        return features


def _at_least(stamp_px: int, least_px: int) -> None:
    if stamp_px < least_px:
        raise ModelError("stamps are too small for this family's pooling", got_px=stamp_px, least_px=least_px)


@register("cas-swinburne", n_channel=1, stamp_px=101)
def cas_swinburne(n_channel: int, stamp_px: int, n_out: int = 1, *, dropout: float = 0.5) -> Network:
    """
    CAS Swinburne: kernels of 11, 5 and 3 px, two dense layers of 1024 (Jacobs et al. 2017).

    Jacobs et al. 2017, MNRAS 471, 167, and section 4 of Metcalf et al. 2019, from the text: 96, 128 and 256 maps, a
    maximum over 3 x 3 pixels after each. No code and no count were found; padding that keeps the side is ours.
    """
    _at_least(stamp_px, 27)
    layers: list[nn.Module] = []
    n_in, side = n_channel, stamp_px
    for n_map, kernel_px in ((96, 11), (128, 5), (256, 3)):
        layers += [nn.Conv2d(n_in, n_map, kernel_px, padding=kernel_px // 2), nn.ReLU(), nn.MaxPool2d(3)]
        n_in, side = n_map, side // 3
    dense = nn.Sequential(
        nn.Linear(n_in * side * side, 1024),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Dropout(dropout),
    )
    return PlainCNN(nn.Sequential(*layers), dense, 1024, n_out)


@register("lensflow", n_channel=1, stamp_px=101)
def lensflow(n_channel: int, stamp_px: int, n_out: int = 1, *, dropout: float = 0.5) -> Network:
    """
    LensFlow: the stamp averaged over 3 x 3 pixels, three convolutions, a dense layer (Pourrahmani et al. 2018).

    Pourrahmani et al. 2018, ApJ 856, 68, from the paper only: its own code was not found. Kernels of 5, 5 and 4 px
    with 16, 25 and 36 maps, pooling by 2 after each, a dense layer of 128. The paper reads COSMOS stamps of 200 px.
    Padding of the 4 px kernel by 2 keeps the last map symmetric and is ours.
    """
    _at_least(stamp_px, 24)
    layers: list[nn.Module] = [nn.AvgPool2d(3)]
    n_in, side = n_channel, stamp_px // 3
    for n_map, kernel_px in ((16, 5), (25, 5), (36, 4)):
        layers += [nn.Conv2d(n_in, n_map, kernel_px, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        n_in, side = n_map, (side + 1 - kernel_px % 2) // 2
    dense = nn.Sequential(nn.Linear(n_in * side * side, 128), nn.ReLU(), nn.Dropout(dropout))
    return PlainCNN(nn.Sequential(*layers), dense, 128, n_out)


@register("epfl-cnn", n_channel=3, stamp_px=200)
def epfl_cnn(n_channel: int, stamp_px: int, n_out: int = 1, *, dropout: float = 0.3) -> Network:
    """
    The small network of a report on the second challenge: five convolutions, three poolings, two dense layers.

    A course report at EPFL on the second lens-finding challenge, of which the numbers of layers, batch norm, dropout
    and "about 0.8 million parameters" are known; widths are ours, chosen to that size. The last map is averaged
    to 4 x 4, so that any stamp gives the same count.
    """
    _at_least(stamp_px, 8)
    layers: list[nn.Module] = []
    n_in = n_channel
    for n_map, pooled in ((32, False), (32, True), (64, False), (64, True), (128, True)):
        layers += [nn.Conv2d(n_in, n_map, 3, padding=1, bias=False), nn.BatchNorm2d(n_map), nn.ReLU()]
        if pooled:
            layers.append(nn.MaxPool2d(2))
        n_in = n_map
    layers.append(nn.AdaptiveAvgPool2d(4))
    dense = nn.Sequential(nn.Dropout(dropout), nn.Linear(2048, 320), nn.ReLU(), nn.Dropout(dropout))
    return PlainCNN(nn.Sequential(*layers), dense, 320, n_out)
