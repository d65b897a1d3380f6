"""No adaptation: what the others are compared with."""

from __future__ import annotations

from torch import Tensor

from lenspipe.learn.adapt.contract import Adaptation, Course
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import Turn
from lenspipe.learn.settings import AdaptSettings


class SourceOnly(Adaptation):
    """Trained on the source, watched on the target."""

    name = "source-only"
    sees_target = False

    def first_epoch(self, settings: AdaptSettings, epochs: int) -> int:
        """None of them."""
        return epochs

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """Nothing."""
        return outputs["source_out"].new_zeros(())
