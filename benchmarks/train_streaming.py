"""
Does reading keep the training step busy? An epoch streamed from Parquet against the same steps on a batch in memory.

    python -m benchmarks.train_streaming

Both run the fit loop of `lenspipe train` with augmentation on one thread of torch, the reader on the other core.
Turns alternate; the medians are compared. The aim is a ratio of at most 1.15. The streamed order is checked: every
step gets the stamps of its rows.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.distributed.session import ray_session
from lenspipe.learn.batches import batch_of, epoch_batches, order_of
from lenspipe.learn.fit import fit
from lenspipe.learn.job import TrainJob, make_job
from lenspipe.learn.network import fresh_network
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.stream import read_rows
from lenspipe.learn.world import World
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

N, SIDE, BATCH, TURNS = 4000, 64, 64, 3
AIM = 1.15


def make_data(folder: Path) -> None:
    import pyarrow as pa

    spec = ImageSpec(("g", "r", "i"), SIDE, 0.2)
    schema = stamp_schema({"image": spec})
    rng = np.random.default_rng(1)
    for part in range(N // 500):
        rows = range(500 * part, 500 * part + 500)
        stamps = rng.normal(0, 1, (500, 3, SIDE, SIDE)).astype(np.float32)
        stamps[1::2] += 0.2
        columns = {
            "stamp_id": [str(k) for k in rows],
            "label": ["lens" if k % 2 else "nonlens" for k in rows],
            "recipe": ["noise"] * 500,
            "seed": [1] * 500,
            "host": [str(k) for k in rows],
            "split": ["validation" if k % 10 in (0, 5) else "train" for k in rows],
        }
        arrays = [
            image_column(stamps, spec) if f.name == "image" else pa.array(columns[f.name], f.type) for f in schema
        ]
        write_part(pa.table(arrays, schema=schema), folder, f"part-{part}")


def seconds(job: TrainJob, world: World, *, in_memory: bool) -> float:
    """One epoch by the fit loop, without validation."""
    torch.set_num_threads(1)
    module, _ = fresh_network(job)
    objective = job.objective
    streams = objective.streams(job, world)
    rows = job.truth.train[:BATCH]
    held = batch_of(job, rows, read_rows(job.index, rows))
    if in_memory:
        streams = {name: lambda epoch: (held for _ in range(job.steps)) for name in streams}
    clock = Clock()
    fit(
        objective.players(job, module, wrap=lambda own: own, loaded=()),
        streams,
        job.settings.optim.model_copy(update={"epochs": 1}),
        steps=job.steps,
        seed=job.seed,
        prepare=partial(objective.prepare, job, world),
    )
    return clock.wall_s


@click.command()
@record.keep_option
def main(keep: bool) -> None:
    """Time epochs that are streamed and epochs in memory."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "stamps"
        make_data(data)
        settings = TrainSettings.model_validate(
            {"sampling": {"batch_size": BATCH, "window_mib": 16}, "optim": {"threads": 1}}
        )
        job = make_job(data, "small-cnn", "find", folder, settings, seed=1)
        order = order_of(job, 0)
        for k, batch in enumerate(epoch_batches(job, World(), 0)):
            want = read_rows(job.index, order.rows[k * BATCH : (k + 1) * BATCH])
            assert np.array_equal(batch["image"], want), f"step {k} has other stamps than its rows"
        times: dict[str, list[float]] = {"in_memory": [], "plain_reader": [], "ray_data": []}
        with ray_session(keep_idle=True) as n_cpu:
            from lenspipe.distributed.feed import ray_batches

            feed = partial(ray_batches, n_reader=n_cpu)
            worlds = {"in_memory": World(), "plain_reader": World(), "ray_data": World(feed=feed)}
            for name, world in worlds.items():
                seconds(job, world, in_memory=name == "in_memory")  # caches, the first Ray tasks
            for _ in range(TURNS):
                for name, world in worlds.items():
                    times[name].append(seconds(job, world, in_memory=name == "in_memory"))
    median = {name: float(np.median(values)) for name, values in times.items()}
    ratio = {name: median[name] / median["in_memory"] for name in ("plain_reader", "ray_data")}
    record.write(
        "train_streaming",
        {
            "stamps": job.steps * BATCH,
            "stamp": [3, SIDE, SIDE],
            "network": "small-cnn",
            "threads": 1,
            "seconds_per_epoch": {name: [round(v, 3) for v in values] for name, values in times.items()},
            "ratio_of_medians": {name: round(value, 3) for name, value in ratio.items()},
        },
        [record.at_most(f"{name} over a batch in memory", value, AIM) for name, value in ratio.items()],
        keep=keep,
    )


if __name__ == "__main__":
    main()
