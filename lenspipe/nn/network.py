"""What every network family is: a trunk that gives features and a head that reads them, in timm's words."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError

Settings = dict[str, int | float | bool | str | list[int]]


class Network(nn.Module):
    """
    Trunk and head: ``forward(x)`` is ``forward_head(forward_features(x))``, bit for bit.

    A family sets ``num_features`` and ``head`` and defines `forward_features`; the rest has defaults. Outside of a
    family's file, only what stands here is asked of a network.

    Attributes
    ----------
    num_features : int
        Numbers that describe a stamp.
    head : nn.Module
        Reads them: ``head(features, pre_logits=False)``, such as `lenspipe.nn.heads.RowSum`. Its tensors start fresh
        when the others come from pretrained weights.
    """

    HEADS: ClassVar[tuple[str, ...]] = ("head.",)
    """What the names of the head's tensors start with."""
    fitted: ClassVar[bool] = False
    """Whether its arrays are fitted at once, so that steps teach it nothing."""
    num_features: int
    head: nn.Module

    def forward_features(self, *inputs: Any, **named: Any) -> Tensor:
        """
        Features of stamps: ``(n, channel, y, x)`` to ``(n, num_features)``, pooled.

        Families that take more than an image (``hybrid``) take it here as well, in the order of `forward`.
        """
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """
        Outputs of features: ``(n, num_features)`` to ``(n, n_out)``, or ``(n,)`` for one output.

        With ``pre_logits``, what the last layer of the head reads.
        """
        out: Tensor = self.head(features, pre_logits=pre_logits)
        return out

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """``(n, channel, y, x)`` to ``(n, n_out)``, or ``(n,)`` for one output."""
        return self.forward_head(self.forward_features(*inputs, **named))

    def head_names(self) -> set[str]:
        """Names in the state dictionary that belong to the head: what is trained first, before the trunk."""
        return {name for name in self.state_dict() if name.startswith(self.HEADS)}

    def plain_form(self) -> tuple[str, Settings] | None:
        """Family and settings of the form that a checkpoint stores; None where that is the network as it is."""
        return None

    def plain(self) -> Network:
        """The form that a checkpoint stores, with the same outputs: itself, unless `plain_form` says another."""
        return self


class ImageNetwork(Network):
    """
    A network that gives an image: ``(n, band + 1, y, x)``, the last plane the exposure ratio, to ``(n, band, y, x)``.

    It takes any size, and its features are those of its deepest maps; the image needs more than these.

    Attributes
    ----------
    step_px : int
        Windows of an image that start at multiples of this agree.
    reach_px : int
        No pixel depends on another that is further than this along an axis; a multiple of ``step_px``.
    bound_sigma : float
        No pixel is changed by more than this many times its noise.
    """

    HEADS = ()
    step_px: int
    reach_px: int
    bound_sigma: float

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Not possible: raises `ModelError`."""
        raise ModelError("this network gives an image, which pooled features alone cannot tell: call it as a whole")

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """``(n, band + 1, y, x)`` to ``(n, band, y, x)``."""
        raise NotImplementedError


class RebuildNetwork(Network):
    """
    A network that gives a stamp back: ``forward`` says how badly, ``(n, channel, y, x)`` to ``(n,)``.

    Its features are the narrow place that the stamp goes through; how badly it comes back needs the stamp as well.
    """

    HEADS = ()

    def rebuild(self, stamps: Tensor) -> Tensor:
        """What comes back, same shape."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Not possible: raises `ModelError`."""
        raise ModelError("how badly a stamp comes back needs the stamp: call the network as a whole")


class GeneratorNetwork(Network):
    """
    A network that gives stamps: of noise ``(n, n_noise)`` and what is asked for ``(n, n_condition)``.

    What it gives in training has mean 0 and spread 1 in every channel; `generate` gives stretched stamps.

    Attributes
    ----------
    n_noise : int
        Numbers, drawn from a unit Gaussian, that a stamp is made of.
    n_condition : int
        Numbers that say what is asked for.
    """

    HEADS = ()
    num_features = 0
    n_noise: int
    n_condition: int
    mean: Tensor
    spread: Tensor

    def __init__(self, n_channel: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_channel, 1, 1))
        self.register_buffer("spread", torch.ones(n_channel, 1, 1))

    def scaled(self, stamps: Tensor) -> Tensor:
        """Stretched stamps ``(n, channel, y, x)`` with the mean and spread of what the network gives."""
        return (stamps - self.mean) / self.spread

    def generate(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Stretched stamps ``(n, channel, y, x)``; the same of the same noise."""
        drawn: Tensor = self.draw(noise, condition)
        return self.mean + self.spread * drawn

    def draw(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Scaled stamps; what `forward` gives, unless a family takes several steps to one."""
        drawn: Tensor = self(noise, condition)
        return drawn

    def example(self, n: int) -> tuple[Tensor, ...]:
        """Arguments of `forward` for so many stamps."""
        return torch.zeros(n, self.n_noise), torch.zeros(n, self.n_condition)

    def critic(self) -> nn.Module:
        """A fresh opponent of the family's paper: scaled stamps and what was asked for to a number each ``(n,)``."""
        raise ModelError("this family has no opponent: it is not trained against one", got=type(self).__name__)

    def forward_features(self, *inputs: Any, **named: Any) -> Tensor:
        """Not possible: raises `ModelError`."""
        raise ModelError("a generator describes no stamp: it makes them")


class PatchNetwork(Network):
    """
    A network whose trunk makes a token of every patch of a stamp; its features are the mean of these.

    Attributes
    ----------
    patch : int
        Side of a patch, pixels; a stamp is filled up to whole patches with empty sky.
    n_patch : int
        Patches of a stamp, line by line.
    width : int
        Numbers of a token.
    """

    patch: int
    n_patch: int
    width: int

    def tokens(self, stamps: Tensor, keep: Tensor | None = None) -> Tensor:
        """``(n, channel, y, x)`` to ``(n, patch, width)``; of patches ``keep`` (n, m) as if there were no others."""
        raise NotImplementedError

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the mean of the tokens ``(n, width)``."""
        return self.tokens(stamps).mean(dim=1)
