"""Any model of the timm library, for any number of channels and any size of stamp that it can take."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lenspipe.errors import ModelError

GRID_PX = 32  # product of the strides of the transformers with a fixed grid: their input is padded to a multiple


class TimmModel(nn.Module):
    """A timm model behind the interface of our families; ``trunk`` is the model as timm knows it."""

    def __init__(self, trunk: nn.Module, margin_px: tuple[int, int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.margin_px = margin_px
        self.n_last = 0  # length of the model's vector, set once it has run

    def forward(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to ``(n, n_out)``, or ``(n,)`` for one output."""
        before, after = self.margin_px
        out: Tensor = self.trunk(pad(stamps, [before, after, before, after]) if after else stamps)
        return out[:, 0] if out.shape[1] == 1 else out


def timm_name(name: str) -> str:
    """
    A name that timm knows, checked.

    Raises
    ------
    ModelError
        timm has no such model; the nearest names are given.
    """
    import timm

    known = timm.list_models()
    if name.partition(".")[0] in known:
        return name
    near = difflib.get_close_matches(name.partition(".")[0], known, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "`timm.list_models()` lists them."
    raise ModelError(f"timm has no such model. {hint}", got=name)


def create_trunk(name: str, n_channel: int, stamp_px: int, n_out: int, **settings: Any) -> TimmModel:
    """
    A timm model with fresh weights; ``n_out`` 0 leaves the head out and gives pooled features.

    Raises
    ------
    ModelError
        timm has no such model, it does not have a setting, or it cannot take stamps of this size.
    """
    import timm

    timm_name(name)
    missing = -stamp_px % GRID_PX
    margin = (missing // 2, missing - missing // 2)
    made = {"pretrained": False, "in_chans": n_channel, "num_classes": n_out} | settings
    try:
        try:
            trunk = timm.create_model(name, img_size=stamp_px + missing, **made)
        except TypeError as error:  # models without a fixed grid have no such argument
            if "img_size" not in str(error):
                raise
            trunk, margin = timm.create_model(name, **made), (0, 0)
        model = TimmModel(trunk, margin).eval()
        with torch.no_grad():  # one stamp tells whether the poolings leave anything of it
            out = trunk(torch.zeros(1, n_channel, *(2 * [stamp_px + sum(margin)])))
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"timm's {name} cannot be built so: {(str(error) or type(error).__name__).splitlines()[0]}",
            n_channel=n_channel,
            stamp_px=stamp_px,
            settings=",".join(settings) or None,
        ) from error
    if out.ndim != 2:
        raise ModelError("this timm model gives no vector a stamp", got=name, shape=str(tuple(out.shape)))
    model.n_last = out.shape[1]
    return model.train()


def build_timm(name: str, n_channel: int, stamp_px: int, n_out: int = 1, **settings: Any) -> nn.Module:
    """
    ``timm:NAME``: a model of the timm library (Wightman 2019) with fresh weights.

    Transformers with a fixed grid (ViT, Swin) get the stamp's side, padded with zeros to a multiple of 32 px.
    Settings are passed on (``drop_rate``, ``depth``, ...). Nothing is downloaded; `lenspipe.nn.pretrained` reads
    local weights.
    """
    return create_trunk(name, n_channel, stamp_px, n_out, **settings)
