"""DANN: an opponent is to tell the domains by the features, and the features are to deceive it."""

from __future__ import annotations

from torch import Tensor

from lenspipe.learn.adapt.contract import Adaptation, Course, Rival, domain_entropy, perceptron, rising
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import Turn
from lenspipe.learn.settings import AdaptSettings


class DomainAdversarial(Adaptation):
    """
    Features from which no opponent can tell the domain (Ganin et al. 2016, equation 9).

    The reversed gradient of the paper is two players here: the opponent lowers the cross-entropy of the domains, the
    network raises it.
    """

    name = "dann"

    def rivals(self, n_feature: int, settings: AdaptSettings) -> dict[str, Rival]:
        """The opponent, with two hidden layers."""
        return {
            "critic": Rival(
                perceptron(n_feature, settings.hidden), lambda critic, s, t: domain_entropy(critic(s), critic(t))
            )
        }

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """Less the opponent's cross-entropy."""
        critic = turn.networks["critic"]
        return -domain_entropy(critic(outputs["source_features"]), critic(outputs["target_features"]))

    def strength(self, progress: float) -> float:
        """The paper's schedule."""
        return rising(progress)
