"""Every error lenspipe raises on purpose. Each says what, which value, what to do, and survives pickling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeAlias

Fact: TypeAlias = str | int | float | bool | None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    A question with the known name that is nearest; empty where none is near.

    Examples
    --------
    >>> did_you_mean("kid", ["kids", "des"]), did_you_mean("panstarrs", ["kids", "des"])
    ("Did you mean 'kids'?", '')
    """
    near = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else ""


def _rebuild(cls: type[LenspipeError], message: str, facts: dict[str, Fact]) -> LenspipeError:
    return cls(message, **facts)


class LenspipeError(Exception):
    """
    Base of all deliberate errors.

    Parameters
    ----------
    message : str
        What is wrong and what to do, one sentence each.
    **facts : str, int, float, bool or None
        The values that matter (file, key, got, want), kept as attributes for tables of failures.

    Examples
    --------
    >>> str(TileError("pixel scale differs from the survey's", tile="A", got_arcsec=0.3))
    "pixel scale differs from the survey's [tile='A', got_arcsec=0.3]"
    """

    def __init__(self, message: str, **facts: Fact) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def __str__(self) -> str:
        if not self.facts:
            return self.message
        return f"{self.message} [{', '.join(f'{k}={v!r}' for k, v in self.facts.items())}]"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.facts)


class ConfigError(LenspipeError):
    """A request that cannot be carried out as asked; raised before any work (exit code 2)."""


class TileError(LenspipeError):
    """One tile cannot be used; becomes a failure row and the run goes on (exit code 3)."""


class ModelError(LenspipeError):
    """A checkpoint that is broken, unsafe, or does not fit the data; stops the run."""


class DataError(LenspipeError):
    """A data set of labelled stamps that is broken, empty or inconsistent."""


class StoreError(LenspipeError):
    """An object store that fails for longer than is waited for; what was committed is kept (exit code 2)."""


class ForbiddenError(StoreError):
    """The credentials are good, but an object or folder of a store is not theirs to read or write."""


class ClusterError(LenspipeError):
    """A cluster whose workers do not start or do not answer; what was committed is kept (exit code 2)."""
