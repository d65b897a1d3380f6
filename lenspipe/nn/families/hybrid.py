"""An image trunk with a table of features beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.families.timm_model import create_trunk
from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register


class Hybrid(Network):
    """Pooled image features joined with a small network's view of the tabular ones."""

    def __init__(self, trunk: Network, n_feature: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.n_feature = n_feature
        self.trunk = trunk
        self.table = nn.Sequential(nn.Linear(n_feature, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        n_joined = trunk.num_features + 32
        self.joined = nn.Sequential(nn.Dropout(dropout), nn.Linear(n_joined, 128), nn.ReLU(), nn.Dropout(dropout))
        self.num_features = 128
        self.head = RowSum(128, n_out)

    def forward_features(self, stamps: Tensor, columns: Tensor) -> Tensor:
        """
        What the layer after the join gives of stamps and their table.

        Parameters
        ----------
        stamps : Tensor (n, channel, y, x)
        columns : Tensor (n, n_feature)
            Scaled to mean 0 and spread 1, as the card says.

        Returns
        -------
        Tensor (n, 128)

        Raises
        ------
        ModelError
            Another number of features than the network was built for.
        """
        if columns.ndim != 2 or columns.shape[1] != self.n_feature:
            raise ModelError(
                "another number of features than the network takes", got=str(tuple(columns.shape)), want=self.n_feature
            )
        joined: Tensor = self.joined(torch.cat([self.trunk.forward_features(stamps), self.table(columns)], dim=1))
        return joined


@register("hybrid", by_settings=True)
def hybrid(
    n_channel: int,
    stamp_px: int,
    n_out: int = 1,
    *,
    n_feature: int = 8,
    trunk: str = "efficientnet_b2",
    dropout: float = 0.2,
) -> Network:
    """
    A timm trunk (EfficientNet-B2) and tabular features, joined before the last layers.

    After proposals that join image and catalogue columns (AUC .972 on their own data). The trunk is any timm model;
    the layers for the table and after the join are ours. Takes ``(stamps, features)``.
    """
    return Hybrid(create_trunk(trunk, n_channel, stamp_px, 0), n_feature, n_out, dropout)
