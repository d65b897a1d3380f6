"""Self-ensembling: on the target the network is held to what its own average says of another view."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from lenspipe.learn.adapt.contract import TARGET, Adaptation, Course, TwoDomains, log_probabilities
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import MAIN, Turn

BALANCE = 0.005
"""Weight of the class balance, as in the paper."""


class SelfEnsemble(Adaptation):
    """
    A teacher, the average of the network, and its pupil see two views of a stamp of the target (French et al. 2018).

    Where the teacher is sure, the squared distance of their probabilities is small, and the pupil's mean answer is no
    single class. The average is that of the fit (``optim.ema_decay``).
    """

    name = "self-ensemble"
    weight = 3.0
    n_view = 2

    def forward(self, turn: Turn, whole: TwoDomains, course: Course) -> Tensors:
        """Both domains through the pupil, the target's other view through the teacher."""
        outputs = super().forward(turn, whole, course)
        with torch.no_grad():
            taught = functional_call(whole, dict(turn.averaged[MAIN]), (turn.streams[TARGET]["image_1"],))
        return outputs | {"teacher_out": taught["out"]}

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """Consistency where the teacher is surer than the threshold, and class balance."""
        pupil, teacher = (log_probabilities(outputs[name]).exp() for name in ("target_out", "teacher_out"))
        sure = (teacher.amax(dim=1) > course.settings.threshold).float()
        turn.told["sure"] = sure.mean()
        apart = (((pupil - teacher) ** 2).mean(dim=1) * sure).mean()
        mean = pupil.mean(dim=0).clamp(1e-6, 1 - 1e-6)
        even = torch.full_like(mean, 1 / len(mean))
        balance = torch.nn.functional.binary_cross_entropy(mean, even)
        return apart + BALANCE * sure.mean() * balance
