"""Write a measurement's result with the machine and the commit it was made on, and check what was aimed at."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

RESULTS = Path(__file__).parent / "results"

keep_option = click.option("--record/--no-record", "keep", default=True, help="Write the record, or print it alone.")
"""The option of every measurement that may be run without leaving a record."""


@dataclass(frozen=True)
class Aim:
    """What a number should be; kept in the record, and checked."""

    what: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the value lies within the bounds; NaN does not."""
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)


def at_least(what: str, value: float, bound: float) -> Aim:
    """Aim at this much or more."""
    return Aim(what, float(value), at_least=bound)


def at_most(what: str, value: float, bound: float) -> Aim:
    """Aim at this much or less."""
    return Aim(what, float(value), at_most=bound)


def machine() -> dict[str, Any]:
    """CPU model, cores, memory, Python and platform."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), None)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": None if memory is None else round(memory / 2**20, 1),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def commit() -> str:
    """Commit of the working tree, with ``+changes`` where tracked files differ from it."""
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True)
    dirty = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "../lenspipe"], cwd=here)
    return head.stdout.strip() + ("+changes" if dirty.returncode else "")


def write(name: str, result: dict[str, Any], aims: Sequence[Aim] = (), *, keep: bool = True) -> None:
    """
    Write ``results/NAME.json``, print it, and end the process with exit code 1 where an aim is missed.

    What makes a measurement wrong (rows that differ, scores that do not agree) is no aim: assert it before this.

    Parameters
    ----------
    name : str
    result : dict
        What was measured.
    aims : sequence of Aim
        Kept beside the result, each with whether it was reached.
    keep : bool
        Write the file; else it is printed alone.
    """
    record = told(name, result)
    if aims:
        record["aims"] = [_told(aim) for aim in aims]
    text = json.dumps(record, indent=2)
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
    if missed := [aim for aim in aims if not aim.reached]:
        for aim in missed:
            print(f"missed: {json.dumps(_told(aim))}", file=sys.stderr)
        sys.exit(1)


def told(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """A record of a result: with its time, commit and machine."""
    return {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "result": result,
    }


def _told(aim: Aim) -> dict[str, Any]:
    return {key: value for key, value in asdict(aim).items() if value is not None} | {"reached": aim.reached}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
