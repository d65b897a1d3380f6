"""The plain loop over parts: the reference that every other runner must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lenspipe.simulate.parts import Part, PartTask


def simulate_local(parts: Sequence[Part], task: PartTask, *, on_part: Callable[[int], None]) -> None:
    """Make parts one after the other; see `lenspipe.simulate.run.Runner`."""
    for part in parts:
        on_part(task.make(part))
