"""Heads whose result for a stamp does not depend on the stamps beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


class RowSum(nn.Module):
    """
    Linear map of features to outputs, as multiply and sum.

    A matrix product may sum in another order when the number of rows changes; this one cannot, so a stamp's
    outputs do not depend on the batch around it. ``dropout`` acts on the features, in training only.
    """

    def __init__(self, n_feature: int, n_out: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        shape = (n_feature,) if n_out == 1 else (n_out, n_feature)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-1, 1) / n_feature**0.5)
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.dropout = dropout

    def forward(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """``(n, feature)`` to ``(n, n_out)``, or ``(n,)`` for one output; features as they are with ``pre_logits``."""
        if self.dropout:
            features = dropout(features, self.dropout, self.training)
        if pre_logits:
            return features
        rows = features if self.weight.ndim == 1 else features[:, None]
        return (rows * self.weight).sum(dim=-1) + self.bias
