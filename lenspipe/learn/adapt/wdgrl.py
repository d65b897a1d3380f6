"""WDGRL: the Wasserstein distance of the features, by a critic with a gradient penalty."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.learn.adapt.contract import Adaptation, Course, Rival, perceptron
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import Turn
from lenspipe.learn.settings import AdaptSettings

PENALTY = 10.0
"""Weight of the gradient penalty (Gulrajani et al. 2017)."""


class WassersteinGuided(Adaptation):
    """A critic with slopes near one measures how far apart the features are; the network brings them together."""

    name = "wdgrl"
    weight = 0.1

    def rivals(self, n_feature: int, settings: AdaptSettings) -> dict[str, Rival]:
        """The critic (Shen et al. 2018, equation 4)."""
        return {"critic": Rival(perceptron(n_feature, settings.hidden), critic_loss, betas=(0.0, 0.9))}

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """What the critic gives more to the source than to the target, in the mean (equation 1)."""
        critic = turn.networks["critic"]
        apart: Tensor = critic(outputs["source_features"]).mean() - critic(outputs["target_features"]).mean()
        return apart


def critic_loss(critic: nn.Module, source: Tensor, target: Tensor) -> Tensor:
    """Less the difference of means, and the penalty for slopes that are not one, between and at the features."""
    n = min(len(source), len(target))
    part = torch.rand(n, 1, device=source.device)
    between = part * source[:n] + (1 - part) * target[:n]
    points = torch.cat([between, source[:n], target[:n]]).requires_grad_()
    (slope,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
    apart: Tensor = critic(source).mean() - critic(target).mean()
    return PENALTY * penalty - apart
