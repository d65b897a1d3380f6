"""What every command with runners shares: how a runner is started, and what work tells while it goes on."""

from __future__ import annotations

import contextlib
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypeVar

RunnerName: TypeAlias = Literal["auto", "ray", "local"]
"""What ``--runner`` takes."""
RunnerT = TypeVar("RunnerT")
RunnerT_co = TypeVar("RunnerT_co", covariant=True)


class Start(Protocol[RunnerT_co]):
    """Gives a context that starts a runner and stops it. A run enters it only where work is left: Ray takes seconds."""

    def __call__(self, plain_s: float | None = None) -> contextlib.AbstractContextManager[RunnerT_co]:
        """
        Such a context.

        Parameters
        ----------
        plain_s : float or None
            About how long the plain loop would take, in seconds; None where nobody knows.
        """
        ...


class Workers(NamedTuple):
    """CPUs to use on a cluster that grows: ``least`` must be there when the work begins, ``most`` may be in the end."""

    least: int
    most: int


def here(runner: RunnerT) -> Start[RunnerT]:
    """Start of a runner that has nothing to start: the plain loop, or Ray where it runs already."""
    return lambda plain_s=None: contextlib.nullcontext(runner)


class Progress(Protocol):
    """What work tells while it goes on; `lenspipe.cli.progress` draws it."""

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """A stage of ``total`` units begins, ``done`` of which are there already."""
        ...

    def advance(self, n: int = 1, **counts: int) -> None:
        """``n`` more units of the stage are done; ``counts`` of what is in them (``failed``, ``candidates``)."""
        ...

    def say(self, message: str) -> None:
        """One line for the reader."""
        ...


class Silent:
    """Progress that nobody is shown."""

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def advance(self, n: int = 1, **counts: int) -> None:
        """Nothing."""

    def say(self, message: str) -> None:
        """Nothing."""


SILENT = Silent()
