"""What every way to learn a generator is: the players that step, and what each minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import MAIN, OUT, Player, Turn
from lenspipe.learn.settings import GenerateSettings, OptimSettings
from lenspipe.nn.network import GeneratorNetwork

CRITIC = "critic"
"""Name of the opponent; the state file has it before the names of its tensors."""


class Game(ABC):
    """One way to learn a generator, without labels but those that it is told."""

    name: ClassVar[str]

    def check_network(self, module: GeneratorNetwork, settings: GenerateSettings) -> None:
        """Raise `ModelError` where a family cannot be learnt so."""
        return None

    @abstractmethod
    def players(
        self, module: GeneratorNetwork, called: nn.Module, settings: GenerateSettings, optim: OptimSettings, seed: int
    ) -> list[tuple[Player, nn.Module | None]]:
        """
        Who steps: the generator first; beside each a module of its own that is still to be wrapped, or None.

        Parameters
        ----------
        module, called : nn.Module
            The generator, and it as it is called in training.
        settings : GenerateSettings
        optim : OptimSettings
        seed : int
            Of the opponent's weights.
        """


class Adversarial(Game):
    """A critic that tells stamps from what is made, and a generator that is to be taken for them."""

    critic_steps: ClassVar[int] = 1
    """Steps of the critic for one of the generator."""
    penalty: ClassVar[float] = 0.0
    """Weight of the penalty on slopes."""
    betas: ClassVar[tuple[float, float]] = (0.5, 0.999)
    """Decays of Adam's moments."""

    def check_network(self, module: GeneratorNetwork, settings: GenerateSettings) -> None:
        """Raise `ModelError` where the family has no opponent, or one whose slopes are not those of single stamps."""
        norms = [one for one in module.critic().modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        if norms and self.weight_of(settings):
            raise ModelError(
                "slopes are of single stamps, and this family's critic sees the batch (batch norms): choose "
                "wgan, stylegan, conditional or gan, or generate.penalty = 0",
                method=self.name,
                penalty=self.weight_of(settings),
            )

    def weight_of(self, settings: GenerateSettings) -> float:
        """Weight of the penalty that is asked for."""
        return self.penalty if settings.penalty is None else settings.penalty

    @abstractmethod
    def made(self, said: Tensor) -> Tensor:
        """What the generator minimises, of what the critic says of its stamps ``(n,)``."""

    @abstractmethod
    def told(self, said_of_real: Tensor, said_of_made: Tensor) -> Tensor:
        """What the critic minimises beside the penalty."""

    def slopes(self, critic: nn.Module, real: Tensor, made: Tensor, condition: Tensor) -> Tensor:
        """Penalty on the critic's slopes: half their mean square at the stamps (Mescheder et al. 2018, equation 9)."""
        points = real.detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(points, condition).sum(), points, create_graph=True)
        return slope.flatten(1).square().sum(1).mean() / 2

    def players(
        self, module: GeneratorNetwork, called: nn.Module, settings: GenerateSettings, optim: OptimSettings, seed: int
    ) -> list[tuple[Player, nn.Module | None]]:
        """The generator, and its opponent, which takes ``critic_steps`` steps for one."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            critic = module.critic().to(module.mean.device)
        weight = self.weight_of(settings)

        def drawn(turn: Turn) -> Tensors:
            return {OUT: turn.networks[MAIN](*_asked(module, turn))}

        def fooled(out: Tensors, turn: Turn) -> Tensor:
            return self.made(critic(out[OUT], turn.batch["condition"]))

        def shown(turn: Turn) -> Tensors:
            with torch.no_grad():
                made = module(*_asked(module, turn))
            return {"real": module.scaled(turn.batch["image"]), "made": made}

        def judged(out: Tensors, turn: Turn) -> Tensor:
            asked, network = turn.batch["condition"], turn.networks[CRITIC]
            value = self.told(network(out["real"], asked), network(out["made"], asked))
            if weight:
                penalty = self.slopes(network, out["real"], out["made"], asked)
                turn.told["penalty"] = penalty
                value = value + weight * penalty
            return value

        own = optim.model_copy(update={"learning_rate": optim.learning_rate * settings.critic_rate, "ema_decay": 0.0})
        every = settings.critic_steps or self.critic_steps
        return [
            (Player(module=module, network=called, forward=drawn, loss=fooled, betas=self.betas, every=every), None),
            (Player(name=CRITIC, module=critic, forward=shown, loss=judged, betas=self.betas, optim=own), critic),
        ]


def _asked(module: GeneratorNetwork, turn: Turn) -> tuple[Tensor, Tensor]:
    condition = turn.batch["condition"]
    return torch.randn(len(condition), module.n_noise, device=condition.device), condition


def demand_steps(module: GeneratorNetwork, names: tuple[str, ...]) -> None:
    """Raise `ModelError` where a network lacks what a way to learn it calls."""
    if missing := [name for name in names if not hasattr(module, name)]:
        raise ModelError("this family is not learnt so: leave --method out", missing=",".join(missing))
