"""One timer for all measurements: a clock of wall and processor time, and the fastest of several rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Call = Callable[[], Any]


class Clock:
    """
    Wall time, and processor time of all threads of this process: the second is the same on a busy machine.

    Runs from when it is made; as a context it stops with the body.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()
        self._ended: tuple[float, float] | None = None

    def __enter__(self) -> Clock:
        self.__init__()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = time.perf_counter(), time.process_time()

    @property
    def wall_s(self) -> float:
        """Wall seconds, so far or until it stopped."""
        return (self._ended or (time.perf_counter(), 0.0))[0] - self._begun[0]

    @property
    def cpu_s(self) -> float:
        """Processor seconds, so far or until it stopped."""
        return (self._ended or (0.0, time.process_time()))[1] - self._begun[1]

    def seconds(self) -> dict[str, float]:
        """Both, for a record."""
        return {"seconds": round(self.wall_s, 3), "cpu_seconds": round(self.cpu_s, 3)}


def rounds_s(calls: Mapping[str, Call], n: int) -> dict[str, list[float]]:
    """Processor seconds of each call in ``n`` rounds, the calls taking turns; a first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(n + 1):
        for name, call in calls.items():
            with Clock() as clock:
                call()
            if number:
                found[name].append(clock.cpu_s)
    return found


def fastest_s(call: Call, n: int) -> float:
    """Processor seconds of the fastest of ``n`` rounds, after one that is not counted."""
    return min(rounds_s({"call": call}, n)["call"])


def median_s(call: Call, n: int) -> float:
    """Processor seconds in the median of ``n`` rounds, after one that is not counted."""
    return statistics.median(rounds_s({"call": call}, n)["call"])
