"""The plain loop over parts: the reference that every other runner must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lenspipe.stamps.cut.parts import CutTask, Part


def cut_local(parts: Sequence[Part], task: CutTask, *, on_part: Callable[[dict[str, int]], None]) -> None:
    """Make parts one after the other; see `lenspipe.stamps.cut.run.Runner`."""
    for part in parts:
        on_part(task.make(part))
