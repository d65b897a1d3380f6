"""Where the tasks of a catalogue are carried out: here, one after the other; Ray's is in `lenspipe.distributed`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")

BATCH_ROWS = 100_000
"""Rows that a task of many makes and scatters at a time."""


class Executor(Protocol):
    """Carries out one task per item, and gathers their answers, which are small."""

    @property
    def batch_rows(self) -> int | None:
        """Rows that a task may make at a time; None where one task may hold all rows, and nothing need be scattered."""
        ...

    def each(
        self, stage: str, work: Callable[[ItemT], AnswerT], items: Sequence[ItemT], *, scratch: Path
    ) -> Iterator[tuple[int, AnswerT]]:
        """
        Number and answer of every item, in any order; carried out as they are asked for.

        Parameters
        ----------
        stage : str
            Name of the step.
        work : function
            Of one item; it may be called again for an item whose process died.
        items : sequence
        scratch : Path
            Folder that all tasks see.
        """
        ...


@dataclass(frozen=True)
class Here:
    """The plain loop in this process."""

    batch_rows: int | None = None

    def each(
        self, stage: str, work: Callable[[ItemT], AnswerT], items: Sequence[ItemT], *, scratch: Path
    ) -> Iterator[tuple[int, AnswerT]]:
        """One after the other."""
        return ((number, work(item)) for number, item in enumerate(items))
