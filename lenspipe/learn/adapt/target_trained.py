"""Training on all labels of the target: what an adaptation without them could reach."""

from __future__ import annotations

from typing import ClassVar, Literal

from lenspipe.learn.adapt.fine_tune import FineTune
from lenspipe.learn.settings import AdaptSettings


class TargetTrained(FineTune):
    """A supervised training on the target's training split; the source is read and not learnt from."""

    name = "target-trained"
    target_labels: ClassVar[Literal["none", "few", "all"]] = "all"

    def first_epoch(self, settings: AdaptSettings, epochs: int) -> int:
        """The first."""
        return 0
