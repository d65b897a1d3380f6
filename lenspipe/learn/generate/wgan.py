"""The Wasserstein distance between stamps and what is made, by a critic with slopes near one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.learn.generate.contract import Adversarial


class WassersteinPenalty(Adversarial):
    """WGAN with gradient penalty (Gulrajani et al. 2017, equation 3)."""

    name = "wgan"
    critic_steps = 5
    penalty = 10.0
    betas = (0.0, 0.9)

    def made(self, said: Tensor) -> Tensor:
        """Less the mean of what the critic says."""
        return -said.mean()

    def told(self, said_of_real: Tensor, said_of_made: Tensor) -> Tensor:
        """Less the difference of means."""
        return said_of_made.mean() - said_of_real.mean()

    def slopes(self, critic: nn.Module, real: Tensor, made: Tensor, condition: Tensor) -> Tensor:
        """Mean square of slope less one, between stamps and what is made."""
        part = torch.rand(len(real), 1, 1, 1, device=real.device)
        points = (part * real + (1 - part) * made).requires_grad_()
        (slope,) = torch.autograd.grad(critic(points, condition).sum(), points, create_graph=True)
        return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
