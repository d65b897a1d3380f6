"""AdaBN: the source is learnt as before, and what batch norms remember is of the target."""

from __future__ import annotations

import torch
from torch import Tensor

from lenspipe.learn.adapt.contract import TARGET, Adaptation, Course, TwoDomains, joined_domains, statistics_kept
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import MAIN, Turn


class TargetStatistics(Adaptation):
    """
    Each domain is normalised by its own mean and variance, layer by layer (Li et al. 2017).

    The paper computes the target's once, after the training; here they are followed while the source is still learnt.
    There is no loss between the domains and nothing to tune.
    """

    name = "adabn"
    normalises = True

    def forward(self, turn: Turn, whole: TwoDomains, course: Course) -> Tensors:
        """The source with its own statistics, then the target, whose statistics are kept."""
        with statistics_kept(whole):
            of_source = turn.networks[MAIN](turn.batch["image"])
        with torch.no_grad():
            of_target = whole(turn.streams[TARGET]["image"])
        return joined_domains(of_source, of_target)

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """Nothing."""
        return outputs["source_out"].new_zeros(())
