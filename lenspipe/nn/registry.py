"""Network families by name. A family is a function from input shape, number of outputs and settings to a module."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from lenspipe.errors import ModelError

TIMM = "timm:"


@dataclass(frozen=True)
class Family:
    """A family and the facts that are listed without building it."""

    builder: Callable[..., nn.Module]
    """``f(n_channel, stamp_px, n_out=1, *, settings...) -> nn.Module``."""
    n_channel: int
    """Channels of the input that the parameters are counted for."""
    stamp_px: int
    """Side of that input."""
    n_parameter: int
    """Trainable parameters at that input with default settings and one output."""


_FAMILIES: dict[str, Family] = {}


def register(
    name: str, *, n_channel: int = 3, stamp_px: int = 65, n_parameter: int = 0
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Enter a builder under ``name``, with its number of parameters at a stated input."""

    def enter(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if name in _FAMILIES:
            raise ValueError(f"two network families are named {name!r}")
        _FAMILIES[name] = Family(builder, n_channel, stamp_px, n_parameter)
        return builder

    return enter


def family_facts() -> dict[str, Family]:
    """All families with their facts, sorted by name."""
    import lenspipe.nn.families  # noqa: F401  the package's modules register themselves when imported

    return dict(sorted(_FAMILIES.items()))


def families() -> dict[str, Callable[..., nn.Module]]:
    """Builders of all families by name, sorted; ``timm:NAME`` is resolved by `build` and not listed."""
    return {name: family.builder for name, family in family_facts().items()}


def build(family: str, n_channel: int, stamp_px: int, n_out: int = 1, **settings: Any) -> nn.Module:
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
    known = families()
    if family not in known:
        near = difflib.get_close_matches(family.lower(), known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Families: {', '.join(known)}, {TIMM}NAME."
        raise ModelError(f"no such network family. {hint}", got=family)
    takes = set(inspect.signature(known[family]).parameters) - {"n_channel", "stamp_px", "n_out"}
    if unknown := sorted(set(settings) - takes):
        raise ModelError(
            "settings that the family does not have",
            family=family,
            got=",".join(unknown),
            known=",".join(sorted(takes)),
        )
    return known[family](n_channel, stamp_px, n_out, **settings)
