"""Fine-tuning: the network of the source goes on with a few labels of the target. The baseline."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from lenspipe.learn.adapt.contract import TARGET, Adaptation, Course, TwoDomains
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import MAIN, Turn


class FineTune(Adaptation):
    """The loss of some labelled stamps of the target in place of the source's, at the rates that are left."""

    name = "fine-tune"
    target_labels: ClassVar[Literal["none", "few", "all"]] = "few"
    keeps_source = False

    def forward(self, turn: Turn, whole: TwoDomains, course: Course) -> Tensors:
        """The target alone."""
        return {f"target_{name}": x for name, x in turn.networks[MAIN](turn.streams[TARGET]["image"]).items()}

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """The task's loss."""
        return course.loss(outputs["target_out"], turn.streams[TARGET])
