"""What every network family is: a trunk that gives features and a head that reads them, in timm's words."""

from __future__ import annotations

from typing import Any, ClassVar

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
