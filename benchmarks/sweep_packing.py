"""
A sweep of eight trials of known length against the ideal packing of its CPUs.

    python -m benchmarks.sweep_packing [SECONDS]

Trials train by `lenspipe sweep` as a user types it, two at a time, with one thread each. A trial's own time is what it
trained, from its row; the ideal is the shortest end of these lengths on two machines (longest first). ``start_s`` is
the time until the first trial reports its first step: Ray, its processes, the import of torch. The trials' length is
set by the number of steps, after one trial has been timed alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

N_TRIAL, AT_ONCE, SIZE_PX, EPOCHS, TRIED_STEPS = 8, 2, 48, 5, 200
SPACE = """
task = "find"
[base.sampling]
batch_size = 16
steps_per_epoch = {steps}
[base.optim]
epochs = {epochs}
[[model]]
family = "small-cnn"
settings = {{ width = 8 }}
train = {{ "optim.learning_rate" = [{rates}] }}
"""


def make_stamps(folder: Path, n: int = 800) -> None:
    rng = np.random.default_rng(1)
    spec = ImageSpec(("g", "r"), SIZE_PX, 0.2)
    label = rng.integers(0, 2, n)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - (SIZE_PX - 1) / 2
    stamps = rng.normal(0, 1, (n, 2, SIZE_PX, SIZE_PX)).astype(np.float32)
    stamps[label == 1] += np.exp(-((np.hypot(x, y) - 10) ** 2)).astype(np.float32)
    split = rng.choice(["train", "validation"], n, p=[0.8, 0.2])
    columns: dict[str, Any] = {
        "stamp_id": [f"s{k}" for k in range(n)],
        "label": [("nonlens", "lens")[k] for k in label],
        "recipe": ["rings"] * n,
        "seed": [1] * n,
        "host": [f"h{k}" for k in range(n)],
        "split": split.tolist(),
    }
    schema = stamp_schema({"image": spec}, [])
    arrays = [
        image_column(stamps, spec) if field.name == "image" else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    write_part(pa.table(arrays, schema=schema), folder, "part-0")


def sweep(folder: Path, data: Path, steps: int, n_trial: int, at_once: int) -> tuple[float, float, pa.Table]:
    """Wall time, time until the first state of a trial was written, and the table."""
    space = folder / f"space-{n_trial}.toml"
    rates = ", ".join(f"{0.001 * (1 + 0.1 * k):.5f}" for k in range(n_trial))
    space.write_text(SPACE.format(steps=steps, epochs=EPOCHS, rates=rates))
    out = folder / f"out-{n_trial}"
    command = [sys.executable, "-m", "lenspipe", "sweep", "--data", data, "--space", space, "--out", out]
    clock, first = Clock(), None
    run = subprocess.Popen(
        [*map(str, command), "--max-concurrent", str(at_once)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while run.poll() is None:
        if first is None and next(out.glob("trials/*/model/request.json"), None):
            first = clock.wall_s
        time.sleep(0.05)
    wall = clock.wall_s
    assert run.returncode == 0 and first is not None, f"the sweep ended with {run.returncode}"
    return wall, first, pq.read_table(out / "trials.parquet")


def ideal(lengths: list[float], n_machine: int) -> float:
    """End of the longest-first packing, within 4/3 - 1/3m of the shortest there is (Graham 1969)."""
    ends = [0.0] * n_machine
    for length in sorted(lengths, reverse=True):
        k = int(np.argmin(ends))
        ends[k] += length
    return max(ends)


@click.command()
@click.argument("wanted", metavar="SECONDS", type=float, default=60.0)
@record.keep_option
def main(wanted: float, keep: bool) -> None:
    """Pack trials of about SECONDS."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = folder / "stamps"
        make_stamps(data)
        _, _, alone = sweep(folder, data, TRIED_STEPS, 1, 1)
        steps = max(1, round(TRIED_STEPS * wanted / alone["seconds"][0].as_py()))
        wall, start, table = sweep(folder, data, steps, N_TRIAL, AT_ONCE)
    assert table["status"].to_pylist() == ["done"] * N_TRIAL
    lengths = table["seconds"].to_pylist()
    best = ideal(lengths, AT_ONCE)
    result = {
        "asked_s": wanted,
        "trial_s": [round(s, 1) for s in lengths],
        "wall_s": round(wall, 1),
        "start_s": round(start, 1),
        "ideal_s": round(best, 1),
        "wall_over_ideal": round(wall / best, 2),
        "without_start_over_ideal": round((wall - start) / best, 2),
        "load": round(os.getloadavg()[0], 1),
    }
    aims = [record.at_most("end over that of the ideal packing, start excluded", (wall - start) / best, 1.3)]
    record.write("sweep_packing", result, aims, keep=keep)


if __name__ == "__main__":
    main()
