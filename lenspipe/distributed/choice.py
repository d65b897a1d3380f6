"""``--runner auto``: Ray where a cluster is named or where it saves time, else the plain loop; and why."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from lenspipe.cores import usable_cores
from lenspipe.distributed.address import has_joined
from lenspipe.runner import RunnerName, RunnerT, Start, Workers, here

RAY_START_S = 5.0
"""What a local Ray takes until its first worker has what it needs (`scan_ray_speed`)."""


def is_cluster_named() -> bool:
    """Whether Ray runs in this process already, or its address is in the environment."""
    return has_joined() or bool(os.environ.get("RAY_ADDRESS"))


def choose(plain_s: float | None, workers: int | Workers | None = None) -> tuple[bool, str]:
    """
    Whether to take Ray, and why, as a line for the reader.

    Parameters
    ----------
    plain_s : float or None
        About how long the plain loop would take, in seconds; None where nobody knows.
    workers : int, Workers or None
        ``--workers``; the cores of this process where None.

    Examples
    --------
    >>> choose(3.0, workers=2)
    (False, 'Without Ray, which would take 5 s to start: there is about 3 s of work.')
    >>> choose(600.0, workers=2)
    (True, 'With Ray on 2 cores: there is about 10 min of work for one.')
    """
    if has_joined():
        return True, "With Ray, which runs in this process."
    if os.environ.get("RAY_ADDRESS"):
        return True, "With Ray on the cluster of RAY_ADDRESS."
    if isinstance(workers, Workers):
        return True, "With Ray, as --workers says how far it may grow."
    n_core = workers or usable_cores()
    if n_core == 1:
        return False, "Without Ray: there is one core."
    if plain_s is None:
        return True, f"With Ray on {n_core} cores."
    if plain_s > RAY_START_S + plain_s / n_core:
        return True, f"With Ray on {n_core} cores: there is about {said_time(plain_s)} of work for one."
    return False, (
        f"Without Ray, which would take {RAY_START_S:.0f} s to start: there is about {said_time(plain_s)} of work."
    )


def said_time(seconds: float) -> str:
    """
    A rough time in words.

    Examples
    --------
    >>> said_time(0.2), said_time(90), said_time(400), said_time(9000)
    ('1 s', '90 s', '7 min', '2.5 h')
    """
    if seconds <= 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds <= 7200 else f"{seconds / 3600:.1f} h"


def started(
    name: RunnerName,
    local: RunnerT,
    ray: Callable[[], Start[RunnerT]],
    *,
    workers: int | Workers | None = None,
    say: Callable[[str], None] | None = None,
) -> Start[RunnerT]:
    """
    Start of the runner that ``--runner`` names.

    Parameters
    ----------
    name : {"auto", "ray", "local"}
    local : runner
        The plain loop.
    ray : callable
        Gives the start of the runner with Ray (`on_ray`).
    workers : int, Workers or None
    say : callable, optional
        Is told which ``auto`` takes and why, when it starts.

    Raises
    ------
    ConfigError
        At once: nothing answers at ``RAY_ADDRESS``.
    """
    if name == "local":
        return here(local)
    on_ray = ray()
    if name == "ray":
        return on_ray

    def start(plain_s: float | None = None) -> contextlib.AbstractContextManager[RunnerT]:
        with_ray, why = choose(plain_s, workers)
        if say is not None:
            say(why)
        return on_ray(plain_s) if with_ray else contextlib.nullcontext(local)

    return start
