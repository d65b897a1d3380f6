"""Cores that this process may use, and those of them that other work leaves free."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may run on, which batch systems and containers make fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_cores() -> int:
    """
    Cores for threads that wait for each other: those idle in the last minute, at least one; OMP_NUM_THREADS if set.

    One thread that waits for a core stops all: on cores that others fill, two threads are far slower than one.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return min(int(asked), usable_cores())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, usable_cores() - round(load))
