"""An image trunk with a table of features beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.families.timm_model import create_trunk
from lenspipe.nn.heads import RowSum
from lenspipe.nn.registry import register


class Hybrid(nn.Module):
    """Pooled image features joined with a small network's view of the tabular ones."""

    def __init__(self, trunk: nn.Module, n_image: int, n_feature: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.n_feature = n_feature
        self.trunk = trunk
        self.table = nn.Sequential(nn.Linear(n_feature, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.joined = nn.Sequential(nn.Dropout(dropout), nn.Linear(n_image + 32, 128), nn.ReLU(), nn.Dropout(dropout))
        self.head = RowSum(128, n_out)

    def forward(self, stamps: Tensor, features: Tensor) -> Tensor:
        """
        Outputs of stamps and their features.

        Parameters
        ----------
        stamps : Tensor (n, channel, y, x)
        features : Tensor (n, n_feature)
            Scaled to mean 0 and spread 1, as the card says.

        Returns
        -------
        Tensor (n, n_out), or (n,) for one output

        Raises
        ------
        ModelError
            Another number of features than the network was built for.
        """
        if features.ndim != 2 or features.shape[1] != self.n_feature:
            raise ModelError(
                "another number of features than the network takes", got=str(tuple(features.shape)), want=self.n_feature
            )
        out: Tensor = self.head(self.joined(torch.cat([self.trunk(stamps), self.table(features)], dim=1)))
        return out


@register("hybrid", n_channel=3, stamp_px=65, n_parameter=7_886_915)
def hybrid(
    n_channel: int,
    stamp_px: int,
    n_out: int = 1,
    *,
    n_feature: int = 8,
    trunk: str = "efficientnet_b2",
    dropout: float = 0.2,
) -> nn.Module:
    """
    A timm trunk (EfficientNet-B2) and tabular features, joined before the last layers.

    After proposals that join image and catalogue columns (AUC .972 on their own data). The trunk is any timm model;
    the layers for the table and after the join are ours. Takes ``(stamps, features)``.
    """
    image = create_trunk(trunk, n_channel, stamp_px, 0)
    return Hybrid(image, image.n_last, n_feature, n_out, dropout)
