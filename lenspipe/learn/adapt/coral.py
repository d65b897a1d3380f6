"""Deep CORAL: the covariances of the features are alike."""

from __future__ import annotations

from torch import Tensor

from lenspipe.learn.adapt.contract import Adaptation, Course
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import Turn


class Coral(Adaptation):
    """
    Second moments of both domains' features are brought together (Sun & Saenko 2016, equation 1).

    The paper aligns covariances alone, of features before a layer that shifts them freely; ours come after ReLU and
    pooling and are read by the head as they are, so their means are aligned as well, by the same measure.
    """

    name = "coral"
    weight = 10.0

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """``|C_s - C_t|^2 / (4 d^2) + |m_s - m_t|^2 / (4 d)``."""
        source, target = outputs["source_features"], outputs["target_features"]
        return moments_apart(source, target)


def moments_apart(source: Tensor, target: Tensor) -> Tensor:
    """Squared distance of covariances over ``4 d^2`` and of means over ``4 d``; features ``(n, d)``."""
    d = source.shape[1]
    means = ((source.mean(dim=0) - target.mean(dim=0)) ** 2).sum() / (4 * d)
    return ((_covariance(source) - _covariance(target)) ** 2).sum() / (4 * d**2) + means


def _covariance(features: Tensor) -> Tensor:
    away = features - features.mean(dim=0)
    return away.T @ away / max(1, len(features) - 1)
