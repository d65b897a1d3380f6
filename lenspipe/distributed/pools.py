"""What a job asks of a cluster, beside what the cluster has and what it can grow to, before anything is started."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lenspipe.errors import ConfigError

MIB = 2**20
WORKER_BYTES, BYTES_PER_PX = 480 * MIB, 20.0
"""Memory of a worker's own: of one that has its programs and a model loaded, and per pixel of a window and band.
An estimate that gives the 908 MiB measured with four bands of 2432 x 2432 pixels (`benchmarks/scan_memory.py`)."""
NO_PROGRESS_S = 900.0
"""Seconds without an answer after which a scan or a catalogue is stuck."""
STUCK = (
    "no shard was done and no worker began for too long: look whether the cluster's machines have what a worker takes, "
    "then give the same command with --resume"
)
GROWS_TO = "LENSPIPE_GROWS_TO"
"""Environment variable that says which machines a cluster can have in the end; Ray's autoscaler tells nobody."""


@dataclass(frozen=True)
class Pool:
    """Processes of one kind."""

    name: str
    each: Mapping[str, float]
    """What one takes: ``CPU``, ``GPU`` (a part of one, where several share it), ``memory`` in bytes."""
    least: int
    """So many must run before the work can end."""
    most: int


@dataclass(frozen=True)
class Machines:
    """Machines of one kind that a cluster has, or can add."""

    each: Mapping[str, float]
    count: int | None
    """None where there is no bound."""


@dataclass(frozen=True)
class Row:
    """A pool and what there is for it."""

    pool: Pool
    now: int
    """So many fit on the machines that are there."""
    later: int | None
    """So many fit when the cluster has grown; None where nobody says how far it grows, or it grows without bound."""
    known: bool
    """Whether anybody says how far it grows."""


def parse_machines(text: str) -> list[Machines]:
    """
    Machines as ``COUNTxRESOURCE=N,...``, kinds apart by spaces; no count means that there is no bound.

    Raises
    ------
    ConfigError
        The text is not that.

    Examples
    --------
    >>> parse_machines("8xCPU=16,memory=64GiB xCPU=8,GPU=1")[1]
    Machines(each={'CPU': 8.0, 'GPU': 1.0}, count=None)
    """
    found = []
    for word in text.split():
        count, _, resources = word.partition("x")
        try:
            each = dict(_resource(one) for one in resources.split(","))
            found.append(Machines(each, int(count) if count else None))
        except ValueError as error:
            raise ConfigError(
                f"{GROWS_TO} says which machines a cluster can have, as 8xCPU=16,memory=64GiB 2xCPU=8,GPU=1", got=word
            ) from error
    return found


def _resource(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if name not in ("CPU", "GPU", "memory") or not equals:
        raise ValueError(text)
    return name, float(value.removesuffix("GiB")) * (2**30 if value.endswith("GiB") else 1)


def worker_bytes(window_px: int, n_band: int) -> int:
    """Memory of a worker that takes windows of so many pixels from pixels to rows."""
    return int(WORKER_BYTES + BYTES_PER_PX * window_px * n_band)


def fitting(each: Mapping[str, float], machine: Mapping[str, float]) -> int:
    """
    Processes that a machine holds.

    Examples
    --------
    >>> fitting({"CPU": 1, "GPU": 0.5}, {"CPU": 8, "GPU": 2}), fitting({"CPU": 1, "GPU": 1}, {"CPU": 8})
    (4, 0)
    """
    asked = {name: n for name, n in each.items() if n}
    return min((math.floor(machine.get(name, 0.0) / n + 1e-9) for name, n in asked.items()), default=0)


def room(each: Mapping[str, float], machines: Sequence[Machines]) -> int | None:
    """Processes that all machines hold together; None where there is no bound."""
    total = 0
    for kind in machines:
        n = fitting(each, kind.each)
        if n and kind.count is None:
            return None
        total += n * (kind.count or 0)
    return total


def preflight(pools: Sequence[Pool], now: Sequence[Machines], later: Sequence[Machines] | None) -> list[Row]:
    """
    Each pool beside the machines, as if it had them alone.

    Parameters
    ----------
    pools : sequence of Pool
    now : sequence of Machines
    later : sequence of Machines or None
        What there can be in the end; None where nobody says.
    """
    rows = []
    for pool in pools:
        here = room(pool.each, now) or 0
        grown = None if later is None else room(pool.each, later)
        rows.append(Row(pool, here, grown if grown is None else max(here, grown), later is not None))
    return rows


def demand_possible(
    rows: Sequence[Row], now: Sequence[Machines], later: Sequence[Machines] | None, *, grows: bool
) -> None:
    """
    Raise `ConfigError` where a job can never run: Ray would wait for ever.

    Parameters
    ----------
    rows : sequence of Row
    now, later
        As of `preflight`.
    grows : bool
        Whether machines may come of which nobody says anything: a range of workers whose least are not there.
    """
    for row in rows:
        most = row.now if later is None else row.later
        if most is None or most >= row.pool.least or (later is None and grows):
            continue
        kinds = [*now, *(later or ())]
        asked = said(row.pool.each)
        if not any(fitting(row.pool.each, kind.each) for kind in kinds):
            largest = {n: max((k.each.get(n, 0.0) for k in kinds), default=0.0) for n in row.pool.each}
            raise ConfigError(
                f"no machine of the cluster, now or grown, can hold one of the {row.pool.name}: ask for less, or add "
                "larger machines",
                each=asked,
                largest_machine=said(largest),
            )
        raise ConfigError(
            f"the cluster can never hold the {row.pool.name} that are asked for: ask for fewer, or let it grow further",
            asked=row.pool.least,
            each=asked,
            can_hold=most,
        )
    fixed = {"CPU": 0.0, "GPU": 0.0, "memory": 0.0}
    for row in rows:
        for name in fixed:
            fixed[name] += row.pool.least * row.pool.each.get(name, 0.0)
    if later is None and grows:
        return
    for name, least in fixed.items():
        in_the_end = now if later is None else later
        if any(kind.count is None and kind.each.get(name) for kind in in_the_end):
            continue
        there = sum(kind.each.get(name, 0.0) * (kind.count or 0) for kind in in_the_end)
        if least > there + 1e-9:
            what = "memory" if name == "memory" else f"{name}s"
            raise ConfigError(
                f"the pools together need more {what} than the cluster can have, for one process of each must run",
                least=round(least, 2),
                cluster=round(there, 2),
                pools=", ".join(row.pool.name for row in rows),
            )


def said(each: Mapping[str, float]) -> str:
    """
    What a process takes, in words.

    Examples
    --------
    >>> said({"CPU": 1, "GPU": 0.5, "memory": 2 * 2**30})
    '1 CPU, 0.5 GPU, 2.0 GiB'
    """
    words = [f"{each[name]:g} {name}" for name in ("CPU", "GPU") if each.get(name)]
    return ", ".join([*words, *([f"{each['memory'] / 2**30:.1f} GiB"] if each.get("memory") else [])])


def lines(rows: Sequence[Row]) -> list[str]:
    """
    The table, line by line.

    Examples
    --------
    >>> print(*lines(preflight([Pool("workers", {"CPU": 1}, 1, 8)], [Machines({"CPU": 2}, 1)], None)), sep="\\n")
    pool         each takes                      asked    there now  can grow to
    workers      1 CPU                           1 to 8   2          not said
    """
    form = "{:<12} {:<31} {:<8} {:<10} {}"
    told = [form.format("pool", "each takes", "asked", "there now", "can grow to")]
    for row in rows:
        pool = row.pool
        asked = str(pool.most) if pool.least == pool.most else f"{pool.least} to {pool.most}"
        later = str(row.later) if row.later is not None else "not bounded" if row.known else "not said"
        told.append(form.format(pool.name, said(pool.each), asked, row.now, later))
    return told


def capped(each: Mapping[str, float], machines: Sequence[Machines]) -> dict[str, float]:
    """
    What a process takes, its memory no more than the largest machine has: an estimate keeps no work from a machine.

    Examples
    --------
    >>> capped({"CPU": 1, "memory": 8e9}, [Machines({"CPU": 2, "memory": 4e9}, 1)])
    {'CPU': 1, 'memory': 4000000000.0}
    """
    largest = max(
        (kind.each.get("memory", 0.0) for kind in machines if fitting({**each, "memory": 0}, kind.each)), default=0.0
    )
    if not largest:
        return {name: n for name, n in each.items() if name != "memory"}
    return {**each, "memory": min(each.get("memory", 0.0), largest)}
