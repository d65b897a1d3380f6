"""Any model of the timm library, for any number of channels and any size of stamp that it can take."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lenspipe.errors import ModelError
from lenspipe.nn.network import Network

_RATES = "drop_rate drop_path_rate drop_block_rate attn_drop_rate proj_drop_rate patch_drop_rate pos_drop_rate"
_SIZES = (
    "depth depths dims embed_dim embed_dims num_heads mlp_ratio patch_size window_size init_values ls_init_value "
    "stem_width stem_type base_width cardinality block_reduce_first output_stride channels layers kernel_size "
    "kernel_sizes growth_rate"
)
_SWITCHES = "qkv_bias global_pool class_token no_embed_class conv_mlp"
SETTINGS = frozenset(f"{_RATES} {_SIZES} {_SWITCHES}".split())
"""Settings that are passed on to timm. Others of its arguments name files, or make it ask the network."""
HEADS = ("head.", "classifier.", "fc.", "last_linear.")
GRID_PX = 32  # product of the strides of the transformers with a fixed grid: their input is padded to a multiple


class TimmModel(Network):
    """
    A timm model behind the interface of our families; ``trunk`` is the model as timm knows it.

    Features are what timm calls ``forward_head(forward_features(x), pre_logits=True)``, and the head is timm's
    classifier. A few models (distilled, or with several heads) have outputs that pooled features do not tell: of these
    `forward_head` is refused, features and outputs are there.
    """

    def __init__(self, trunk: nn.Module, margin_px: tuple[int, int]) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.margin_px = margin_px
        self.has_head = True

    def try_out(self, n_channel: int, stamp_px: int) -> None:
        """
        Run one stamp, which tells what timm's facts do not: the number of features, and whether the head reads them.

        Raises
        ------
        ModelError
            The model gives no vector per stamp.
        """
        stamp = torch.linspace(-1, 1, n_channel * stamp_px**2).reshape(1, n_channel, stamp_px, stamp_px)
        with torch.no_grad():
            whole = self.trunk(self._framed(stamp))
            features = self.forward_features(stamp)
            if whole.ndim != 2 or features.ndim != 2:
                shapes = f"{tuple(whole.shape)}, {tuple(features.shape)}"
                raise ModelError("this timm model gives no vector per stamp", got=shapes)
            self.num_features = features.shape[1]
            try:
                again = self._classified(features)
            except (TypeError, RuntimeError, NotImplementedError, IndexError):
                again = None
            self.has_head = again is not None and torch.equal(again, whole)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to what timm pools of them."""
        pooled: Tensor = self.trunk.forward_head(self.trunk.forward_features(self._framed(stamps)), pre_logits=True)
        return pooled

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """
        ``(n, num_features)`` to ``(n, n_out)``, or ``(n,)`` for one output.

        Raises
        ------
        ModelError
            The head reads more than pooled features.
        """
        if pre_logits:
            return features
        if not self.has_head:
            raise ModelError("this timm model's head reads more than pooled features: call the model as a whole")
        return _flat(self._classified(features))

    def forward(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to ``(n, n_out)``, or ``(n,)`` for one output."""
        return _flat(self.trunk(self._framed(stamps)))

    def head_names(self) -> set[str]:
        """Names of the tensors of timm's classifier."""
        config = getattr(self.trunk, "pretrained_cfg", None) or {}
        classifier = config.get("classifier") or ()
        classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        prefixes = tuple(f"trunk.{name}." for name in classifiers) or tuple(f"trunk.{name}" for name in HEADS)
        return {name for name in self.state_dict() if name.startswith(prefixes)}

    def _classified(self, features: Tensor) -> Tensor:
        classifier = self.trunk.get_classifier()
        classifier = getattr(classifier, "fc", classifier)
        if isinstance(classifier, nn.Conv2d):  # of 1 x 1, as some of timm's are
            out: Tensor = classifier(features[:, :, None, None]).flatten(1)
        else:
            out = classifier(features)
        return out

    def _framed(self, stamps: Tensor) -> Tensor:
        before, after = self.margin_px
        return pad(stamps, [before, after, before, after]) if after else stamps


def _flat(out: Tensor) -> Tensor:
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
        timm has no such model, it does not have a setting, a setting is not one of `SETTINGS`, or it cannot take stamps
        of this size.
    """
    import timm

    timm_name(name)
    if unknown := sorted(set(settings) - SETTINGS):
        raise ModelError(
            "settings that are not passed on to timm: sizes and rates alone are",
            family=name,
            got=",".join(unknown),
            known=",".join(sorted(SETTINGS)),
        )
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
        model.try_out(n_channel, stamp_px)
    except (TypeError, RuntimeError, AssertionError, ValueError, AttributeError) as error:
        raise ModelError(
            f"timm's {name} cannot be built so: {(str(error) or type(error).__name__).splitlines()[0]}",
            n_channel=n_channel,
            stamp_px=stamp_px,
            settings=",".join(settings) or None,
        ) from error
    return model.train()


def build_timm(name: str, n_channel: int, stamp_px: int, n_out: int = 1, **settings: Any) -> Network:
    """
    ``timm:NAME``: a model of the timm library (Wightman 2019) with fresh weights.

    Transformers with a fixed grid (ViT, Swin) get the stamp's side, padded with zeros to a multiple of 32 px.
    Settings are passed on (``drop_rate``, ``depth``, ...). Nothing is downloaded; `lenspipe.nn.pretrained` reads
    local weights.
    """
    return create_trunk(name, n_channel, stamp_px, n_out, **settings)
