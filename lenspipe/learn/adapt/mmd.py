"""Maximum mean discrepancy: no smooth function of the features has another mean in the target."""

from __future__ import annotations

import torch
from torch import Tensor

from lenspipe.learn.adapt.contract import Adaptation, Course
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import Turn

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Variances of the kernels, in units of the median squared distance."""


class MeanDiscrepancy(Adaptation):
    """The discrepancy of both domains' features under a sum of Gaussian kernels is small (Long et al. 2015)."""

    name = "mmd"

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """`discrepancy` of the features."""
        return discrepancy(outputs["source_features"], outputs["target_features"])


def discrepancy(source: Tensor, target: Tensor) -> Tensor:
    """
    Squared maximum mean discrepancy ``(n, d)``, ``(m, d)`` (Gretton et al. 2012, equation 5, the biased estimate).

    The mean of Gaussian kernels whose variances are `WIDTHS` times the median squared distance of the batch.
    """
    n, both = len(source), torch.cat([source, target])
    square = ((both[:, None] - both[None]) ** 2).sum(dim=-1)
    median = square.detach()[~torch.eye(len(both), dtype=torch.bool, device=both.device)].median().clamp(min=1e-12)
    kernel = torch.stack([torch.exp(-square / (width * median)) for width in WIDTHS]).mean(dim=0)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
