"""Network families by name. A family is a function from input shape, number of outputs and settings to a module."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from lenspipe.errors import ModelError

_FAMILIES: dict[str, Callable[..., nn.Module]] = {}


def register(name: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Enter a builder ``f(n_channel, stamp_px, n_out, **settings) -> nn.Module`` under ``name``."""

    def enter(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if name in _FAMILIES:
            raise ValueError(f"two network families are named {name!r}")
        _FAMILIES[name] = builder
        return builder

    return enter


def families() -> dict[str, Callable[..., nn.Module]]:
    """All families by name, sorted."""
    import lenspipe.nn.models  # noqa: F401  the package's modules register themselves when imported

    return dict(sorted(_FAMILIES.items()))


def build(family: str, n_channel: int, stamp_px: int, n_out: int = 1, **settings: Any) -> nn.Module:
    """
    A network with fresh weights: ``(n, n_channel, stamp_px, stamp_px)`` in, ``(n, n_out)`` out.

    Where ``n_out`` is 1 the last axis is dropped: ``(n,)``.

    Raises
    ------
    ModelError
        No such family (the nearest name is given), or a setting that it does not have.
    """
    known = families()
    if family not in known:
        near = difflib.get_close_matches(family, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Families: {', '.join(known)}."
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
