"""
Do two Ray Train workers pay? Seconds of an epoch with one and with two on the same stamps and the same batch.

    python -m benchmarks.train_workers

Each worker has one thread of torch; the network fills a core. Seconds are those of the history (training and
validation of the epochs after the first, which starts Ray's tasks); turns alternate, the medians are compared. The aim
on two cores is 1.5. Both must have learnt: the run checks that the losses fall.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq

from benchmarks import record
from benchmarks.train_streaming import make_data
from lenspipe.distributed.session import ray_session
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.runner import here

AIM, EPOCHS, TURNS = 1.5, 3, 2
SETTINGS = {
    "model": {"width": 32},
    "sampling": {"batch_size": 64, "window_mib": 16},
    "optim": {"epochs": EPOCHS, "threads": 1},
}


@click.command()
@record.keep_option
def main(keep: bool) -> None:
    """Time epochs of one worker and of two."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder, ray_session(keep_idle=True):
        from lenspipe.distributed.train import train_ray

        data = Path(folder) / "stamps"
        make_data(data)
        for turn, n_worker in itertools.product(range(TURNS), seconds):
            out = Path(folder) / f"{n_worker}-{turn}"
            train(
                data,
                model="small-cnn",
                task="find",
                out=out,
                settings=TrainSettings.model_validate(SETTINGS),
                seed=1,
                runner=here(train_ray),
                n_worker=n_worker,
            )
            history = pq.read_table(out / "history.parquet").to_pydict()
            assert history["loss"][-1] < history["loss"][0], "the network did not learn its stamps"
            seconds[n_worker] += history["seconds"][1:]
    ratio = float(np.median(seconds[1]) / np.median(seconds[2]))
    record.write(
        "train_workers",
        {
            "cores": os.cpu_count(),
            "network": "small-cnn, width 32",
            "seconds_per_epoch": {f"{n} workers": [round(v, 3) for v in values] for n, values in seconds.items()},
            "speed_up": round(ratio, 3),
        },
        [record.at_least("speed-up of two workers", ratio, AIM)],
        keep=keep,
    )


if __name__ == "__main__":
    main()
