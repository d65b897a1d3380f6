"""No game: a network learns to take noise of every strength off stamps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.learn.generate.contract import Game, demand_steps
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import MAIN, OUT, Player, Turn
from lenspipe.learn.settings import GenerateSettings, OptimSettings
from lenspipe.nn.network import GeneratorNetwork

SPREAD_LOG_SIGMA = 1.6
"""Of the noise in training, in units of the stamps' spread; its mean is ``generate.log_sigma``. Karras et al. (2022),
table 1, have -1.2 and 1.2 for images whose spread is .5, which is a mean of -.5 here. It is wider, as the flux of a
galaxy and what stands opposite are settled where the noise is more than 5 times the spread (theirs: one stamp in
thirty), and the noise of the sky below .3."""


class Denoising(Game):
    """
    The mean square of equation 2 of Karras et al. (2022), weighted as their table 1.

    No schedule comes from a library: theirs is two lines here and one line in the network, and needs no package.
    """

    name = "diffusion"

    def check_network(self, module: GeneratorNetwork, settings: GenerateSettings) -> None:
        """Raise `ModelError` where the family takes no noise off."""
        demand_steps(module, ("steps",))

    def players(
        self, module: GeneratorNetwork, called: nn.Module, settings: GenerateSettings, optim: OptimSettings, seed: int
    ) -> list[tuple[Player, nn.Module | None]]:
        """The network alone."""

        def denoised(turn: Turn) -> Tensors:
            stamps = module.scaled(turn.batch["image"])
            sigma = torch.exp(settings.log_sigma + SPREAD_LOG_SIGMA * torch.randn(len(stamps), device=stamps.device))
            noisy = stamps + sigma[:, None, None, None] * torch.randn_like(stamps)
            return {OUT: turn.networks[MAIN](noisy, sigma, turn.batch["condition"]), "stamps": stamps, "sigma": sigma}

        def loss(out: Tensors, turn: Turn) -> Tensor:
            return self.apart(out[OUT], out["stamps"], out["sigma"])

        return [(Player(module=module, network=called, forward=denoised, loss=loss), None)]

    def apart(self, found: Tensor, stamps: Tensor, sigma: Tensor) -> Tensor:
        """Mean square of what is found less the stamps, times ``1 + 1 / sigma^2``."""
        weight = 1 + sigma[:, None, None, None] ** -2
        return (weight * (found - stamps) ** 2).mean()
