"""
How fast are describe and validate, and does their memory grow with the data set?

`python -m benchmarks.stamps_speed` writes `results/stamps_speed.json` and fails where validate misses what was planted
or where its memory grows. CPU seconds of one process are counted, so other work on the machine disturbs little.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import psutil
import pyarrow as pa

from benchmarks import record
from benchmarks.memory import PeakMemory, rss_mib
from benchmarks.timing import Clock
from lenspipe.stamps.describe import describe
from lenspipe.stamps.format import ImageSpec, StampSet, image_column, stamp_schema, write_part
from lenspipe.stamps.validate import validate

SPEC, PART = ImageSpec(("g", "r", "i"), 64, 0.2), 500
COUNTS = (2000, 6000)


def make(folder: Path, n: int) -> None:
    """``n`` stamps of noise; the last is the first one turned by a right angle."""
    schema, first = stamp_schema({"image": SPEC}), None
    for start in range(0, n, PART):
        pixels = np.random.default_rng([1, start]).normal(size=(PART, *SPEC.shape)).astype(np.float32)
        first = pixels[0].copy() if first is None else first
        if start + PART == n:
            pixels[-1] = np.rot90(first, axes=(1, 2))
        names = [f"s{start + k}" for k in range(PART)]
        columns = {"stamp_id": names, "host": names, "label": ["nonlens"] * PART, "recipe": ["noise"] * PART}
        columns |= {"seed": [1] * PART, "split": ["train"] * PART}
        arrays = [
            image_column(pixels, SPEC) if f.name == "image" else pa.array(columns[f.name], f.type) for f in schema
        ]
        write_part(pa.table(arrays, schema=schema), folder, f"part-{start:06d}")


def measure(folder: Path) -> str:
    """CPU seconds of describe and of validate, and how far the resident memory rose above that of the imports."""
    stamps, process = StampSet.open(folder), psutil.Process()
    before = rss_mib(process)
    with PeakMemory(lambda: rss_mib(process), every_s=0.01) as memory:
        with Clock() as described:
            assert describe(stamps).counts == {("nonlens", "train"): stamps.n}
        with Clock() as validated:
            problems = validate(stamps, radius_arcsec=2.0)
    assert [(p.n, p.examples) for p in problems] == [(1, (f"s0 = s{stamps.n - 1}",))], problems
    return f"{described.cpu_s} {validated.cpu_s} {memory.peak_mib - before}"


@click.command()
@click.option("--measure", "data", type=click.Path(path_type=Path), hidden=True, help="This data set, in this process.")
@record.keep_option
def main(data: Path | None, keep: bool) -> None:
    """Measure describe and validate on two data sets."""
    if data is not None:
        print(measure(data))
        return
    result: dict[str, object] = {"stamps": "3 bands of 64 px"}
    rises = []
    with tempfile.TemporaryDirectory() as folder:
        for n in COUNTS:
            made = Path(folder) / str(n)
            make(made, n)
            # a process of its own, so that one measurement's memory is not the next one's
            command = [sys.executable, "-m", "benchmarks.stamps_speed", "--measure", str(made)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            describe_s, validate_s, rise_mib = map(float, run.stdout.split())
            rises.append(rise_mib)
            result[f"describe_stamps_per_cpu_s_{n}"] = round(n / describe_s)
            result[f"validate_stamps_per_cpu_s_{n}"] = round(n / validate_s)
            result[f"memory_rise_mib_{n}"] = round(rise_mib)
    aims = [record.at_most("MiB that memory rises by with three times the stamps", rises[1], 1.3 * rises[0] + 20)]
    record.write("stamps_speed", result, aims, keep=keep)


if __name__ == "__main__":
    main()
