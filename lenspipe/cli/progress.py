"""What a running command shows: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class ShownProgress:
    """`lenspipe.runner.Progress` on stderr; a context manager."""

    def __init__(self, unit: str) -> None:
        self._console = Console(stderr=True)
        self._unit = unit
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._name, self._total, self._done, self._new = "", 0, 0, 0
        self._counts: dict[str, int] = {}
        self._begun = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:<9}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=self._console,
            )

    def __enter__(self) -> ShownProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Begin a stage of ``total`` units, ``done`` of which are there already."""
        self._name, self._total, self._done, self._new, self._counts = name, total, done, 0, {}
        self._begun = time.monotonic()
        if self._bar:
            self._task = self._bar.add_task(name, total=total, completed=done, note="")
        else:
            self.say(f"{name}: {done}/{total} {self._unit}s" if total != 1 else name)

    def advance(self, n: int = 1, **counts: int) -> None:
        """Count ``n`` finished units, and what is in them."""
        self._done, self._new = self._done + n, self._new + n
        for key, value in counts.items():
            self._counts[key] = self._counts.get(key, 0) + value
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=n, note=self._note())
        elif time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            elapsed = self._last_line - self._begun
            left = elapsed / max(1, self._new) * (self._total - self._done)
            parts = [f"{self._done}/{self._total} {self._unit}s", self._note(), f"about {left:.0f} s left"]
            self.say(f"{self._name}: {', '.join(part for part in parts if part)}")

    def counter(self, name: str) -> Callable[[int, int], None]:
        """A function of units done and units in all, which begins the stage ``name`` at its first call."""
        last: list[int] = []

        def count(done: int, total: int) -> None:
            if last:
                self.advance(done - last[-1])
            else:
                self.stage(name, total, done)
            last[:] = [done]

        return count

    def counters(self) -> Callable[[str, int, int], None]:
        """A function of a stage, units done and units in all, which begins each stage at its first call."""
        known: dict[str, Callable[[int, int], None]] = {}

        def count(stage: str, done: int, total: int) -> None:
            if stage not in known:
                known[stage] = self.counter(stage.capitalize())
            known[stage](done, total)

        return count

    def say(self, message: str) -> None:
        """One line."""
        (self._bar.console if self._bar else self._console).print(
            message, markup=False, highlight=False, soft_wrap=True
        )

    def _note(self) -> str:
        shown = [f"{self._counts[k]} {k}" for k in ("candidates", "failed") if self._counts.get(k)]
        return ", ".join(shown)
