"""Network families by name. A family is a function from input shape, number of outputs and settings to a network."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from lenspipe.errors import ModelError, did_you_mean
from lenspipe.nn.network import Network

TIMM = "timm:"
ENTRY_POINTS = "lenspipe.families"
"""Group of the entry points by which other packages name the modules that register their families."""
Builder = Callable[..., Network]


class _Undrawn(TorchFunctionMode):
    """Weights stay as they were allocated. Torch's meta device does that too, but its first use imports for 2 s."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (
            torch.Tensor.uniform_,
            torch.Tensor.normal_,
        ):
            return args[0] if args else named["tensor"]
        return func(*args, **named)


@dataclass(frozen=True)
class Family:
    """A family, and the input that its parameters are counted for."""

    builder: Builder
    """``f(n_channel, stamp_px, n_out=1, *, settings...)``."""
    n_channel: int
    """Channels of that input."""
    stamp_px: int
    """Side of that input."""
    n_out: int
    """Outputs that the parameters are counted for."""
    by_settings: bool
    """Whether the number of parameters is mostly a matter of settings, so that none is listed."""
    count: Callable[[int, int, int], int] | None
    """Trainable parameters of ``(n_channel, stamp_px, n_out)``, where building the network would take long."""

    @functools.cached_property
    def n_parameter(self) -> int:
        """Trainable parameters with default settings."""
        asked = self.n_channel, self.stamp_px, self.n_out
        if self.count is not None:
            return self.count(*asked)
        with torch.random.fork_rng(devices=[]), _Undrawn():
            module = self.builder(*asked)
        return sum(p.numel() for p in module.parameters() if p.requires_grad)


_FAMILIES: dict[str, Family] = {}


def register(
    name: str,
    *,
    n_channel: int = 3,
    stamp_px: int = 65,
    n_out: int = 1,
    by_settings: bool = False,
    count: Callable[[int, int, int], int] | None = None,
) -> Callable[[Builder], Builder]:
    """Enter a builder under ``name``, with the input that its parameters are counted for (see `Family`)."""

    def enter(builder: Builder) -> Builder:
        if name in _FAMILIES:
            raise ValueError(f"two network families are named {name!r}")
        _FAMILIES[name] = Family(builder, n_channel, stamp_px, n_out, by_settings, count)
        return builder

    return enter


def family_facts() -> dict[str, Family]:
    """All families with their facts, sorted by name: ours, and those of other packages (`ENTRY_POINTS`)."""
    _own()
    _of_packages()
    return dict(sorted(_FAMILIES.items()))


def families() -> dict[str, Builder]:
    """Builders of all families by name, sorted; ``timm:NAME`` is resolved by `build` and not listed."""
    return {name: family.builder for name, family in family_facts().items()}


def check_family(name: str) -> None:
    """
    Refuse a name that is no family's, before there is anything to build it for.

    Raises
    ------
    ModelError
        No such family, or timm has no such model; the nearest name is given.
    """
    if name.startswith(TIMM):
        from lenspipe.nn.families.timm_model import timm_name

        timm_name(name.removeprefix(TIMM))
    else:
        _builder(name)


def build(family: str, n_channel: int, stamp_px: int, n_out: int = 1, **settings: Any) -> Network:
    """
    A network with fresh weights: ``(n, n_channel, stamp_px, stamp_px)`` in, ``(n, n_out)`` out.

    Where ``n_out`` is 1 the last axis is dropped: ``(n,)``. A family ``timm:NAME`` is a model of the timm library.

    Raises
    ------
    ModelError
        No such family (the nearest name is given), a setting that it does not have, or a stamp that it cannot take.
    """
    if family.startswith(TIMM):
        from lenspipe.nn.families.timm_model import build_timm

        return build_timm(family.removeprefix(TIMM), n_channel, stamp_px, n_out, **settings)
    builder = _builder(family)
    takes = set(inspect.signature(builder).parameters) - {"n_channel", "stamp_px", "n_out"}
    if unknown := sorted(set(settings) - takes):
        raise ModelError(
            "settings that the family does not have",
            family=family,
            got=",".join(unknown),
            known=",".join(sorted(takes)),
        )
    module = builder(n_channel, stamp_px, n_out, **settings)
    if not isinstance(module, Network):
        raise ModelError(
            "a family must build a lenspipe.nn.network.Network: trunk, head and num_features",
            family=family,
            got=type(module).__name__,
        )
    return module


def _builder(name: str) -> Builder:
    _own()
    if name not in _FAMILIES:
        known = families()  # other packages are imported only where a name is not ours
        if name not in known:
            hint = did_you_mean(name, known) or f"Families: {', '.join(known)}, {TIMM}NAME."
            raise ModelError(f"no such network family. {hint}", got=name)
    return _FAMILIES[name].builder


def _own() -> None:
    import lenspipe.nn.families  # noqa: F401  the package's modules register themselves when imported


@functools.cache
def _of_packages() -> None:
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            raise ModelError(
                f"families of another package cannot be imported: {error}", entry_point=entry.name, module=entry.value
            ) from error
