"""One watcher of memory for all measurements, and the kinds of memory of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psutil

MIB = 2**20
Reader = Callable[[psutil.Process], float]


class PeakMemory:
    """
    Largest value of a reading of memory while the body runs.

    Parameters
    ----------
    read : callable
        Memory now, MiB; processes that end meanwhile are left out.
    every_s : float
        Time between readings.
    """

    def __init__(self, read: Callable[[], float], *, every_s: float = 0.05) -> None:
        self.peak_mib = 0.0
        self._read, self._every_s = read, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        self.peak_mib = max(self.peak_mib, self._read())


def rss_mib(process: psutil.Process) -> float:
    """Resident memory, what is shared with others included."""
    return process.memory_info().rss / MIB


def own_mib(process: psutil.Process) -> float:
    """Resident memory less what is shared: not Ray's object store, not libraries."""
    info = process.memory_info()
    return (info.rss - info.shared) / MIB


def pss_mib(process: psutil.Process) -> float:
    """Resident memory, shared parts divided among those that share them: sums of it count nothing twice."""
    return process.memory_full_info().pss / MIB


def uss_mib(process: psutil.Process) -> float:
    """Memory that would be free if the process ended."""
    return process.memory_full_info().uss / MIB


def each_mib(read: Reader, processes: list[psutil.Process]) -> list[float]:
    """A reading of each process that still runs."""
    found = []
    for process in processes:
        try:
            found.append(read(process))
        except psutil.Error:
            continue
    return found


def tree(pid: int | None = None) -> list[psutil.Process]:
    """A process, this one unless another is named, and all that it started; empty once it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def ray_workers(pid: int | None = None) -> list[psutil.Process]:
    """The workers of Ray in that tree."""
    found = []
    for process in tree(pid):
        try:
            if (process.cmdline() or [""])[0].startswith("ray::"):
                found.append(process)
        except psutil.Error:
            continue
    return found
