"""AdaMatch: the network's own sure answers on the target teach it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lenspipe.learn.adapt.contract import TARGET, Adaptation, Course, TwoDomains, log_probabilities, split_domains
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import MAIN, Turn


class AdaMatch(Adaptation):
    """
    Answers on weakly augmented stamps of the target are held to on strongly augmented ones (Berthelot et al. 2022).

    The paper's three parts: logits of the source are drawn between those of a batch of both domains and of the source
    alone; the answers' shares of the classes are brought to the source's (distribution alignment); and an answer counts
    where it is as sure as a part ``threshold`` of the mean sureness on the source.
    """

    name = "adamatch"
    n_view = 2
    weak_first = True

    def forward(self, turn: Turn, whole: TwoDomains, course: Course) -> Tensors:
        """Both views of both domains; ``source_out`` is of the weak view, with logits drawn between."""
        views = torch.cat([turn.batch["image"], turn.batch["image_1"]])
        target = turn.streams[TARGET]
        n, images = len(views), torch.cat([views, target["image"], target["image_1"]])
        outputs = split_domains(turn.networks[MAIN](images), n)
        alone = whole.network(views)  # its statistics are of the source
        part = torch.rand_like(alone)
        weak, strong = (part * outputs["source_out"] + (1 - part) * alone).chunk(2)
        said, said_strong = outputs["target_out"].chunk(2)
        features = {k: x[: len(x) // 2] for k, x in outputs.items() if k.endswith("features")}
        return features | {
            "source_out": weak,
            "source_out_strong": strong,
            "target_out": said,
            "target_out_strong": said_strong,
        }

    def alignment(self, outputs: Tensors, turn: Turn, course: Course) -> Tensor:
        """Cross-entropy of the strong views: of the source with its labels, of the target with its own answers."""
        source = log_probabilities(outputs["source_out"]).detach().exp()
        answers = log_probabilities(outputs["target_out"]).detach().exp()
        answers = answers * source.mean(dim=0) / answers.mean(dim=0).clamp(min=1e-6)
        answers = answers / answers.sum(dim=1, keepdim=True)
        sure = answers.amax(dim=1) >= course.settings.threshold * source.amax(dim=1).mean()
        entropy = -(answers * log_probabilities(outputs["target_out_strong"])).sum(dim=1)
        ramp = 0.5 - 0.5 * math.cos(min(math.pi, 2 * math.pi * course.progress(turn)))
        turn.told["sure"] = sure.float().mean()
        return course.loss(outputs["source_out_strong"], turn.batch) + ramp * (entropy * sure).mean()
