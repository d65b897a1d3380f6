"""ADDA: features of the target come to look like those that the source's network gives of the source."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lenspipe.learn.adapt.contract import TARGET, Adaptation, Course, Rival, TwoDomains, domain_entropy, perceptron
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import MAIN, Turn
from lenspipe.learn.settings import AdaptSettings


class AdversarialDiscriminative(Adaptation):
    """
    The network of the source is frozen, a copy of its trunk learns to map the target to the same features.

    An opponent tells the features of the source, from the frozen network, from those of the target; the copy is held to
    the inverted labels, and keeps the frozen head (Tzeng et al. 2017, equation 9). The model is the copy: it is for the
    target, and no longer for the source.
    """

    name = "adda"
    keeps_source = False
    anchored = True

    def rivals(self, n_feature: int, settings: AdaptSettings) -> dict[str, Rival]:
        """The opponent, with two hidden layers."""
        return {
            "critic": Rival(
                perceptron(n_feature, settings.hidden), lambda critic, s, t: domain_entropy(critic(s), critic(t))
            )
        }

    def forward(self, turn: Turn, whole: TwoDomains, course: Course) -> Tensors:
        """The source through the frozen network, the target through the copy."""
        anchor = whole.anchor
        assert anchor is not None
        with torch.no_grad():
            if course.begins(turn):
                average = turn.averaged[MAIN]
                own = {name: average[f"network.{name}"] for name in anchor.state_dict()}
                anchor.load_state_dict(own)
                whole.network.load_state_dict(own)
            whole.network.head.load_state_dict(anchor.head.state_dict())  # no gradient, but the optimizer has momentum
            features = anchor.eval().forward_features(turn.batch["image"])
            source = {"source_out": anchor.forward_head(features), "source_features": features}
        target = turn.networks[MAIN](turn.streams[TARGET]["image"])
        return source | {f"target_{name}": x for name, x in target.items()}

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """Cross-entropy of the target as if it were the source."""
        said = turn.networks["critic"](outputs["target_features"])
        return functional.binary_cross_entropy_with_logits(said, torch.ones_like(said))
