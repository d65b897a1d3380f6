"""Simulate a data set with Ray Data: actors make parts and write them, and only their numbers travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import ray

from lenspipe.distributed.data import data_context
from lenspipe.simulate.parts import Part, PartTask


def simulate_ray(parts: Sequence[Part], task: PartTask, *, n_worker: int, on_part: Callable[[int], None]) -> None:
    """Make parts on the Ray that runs, ``n_worker`` at a time; see `lenspipe.simulate.run.Runner`."""
    n_maker = min(n_worker, len(parts))
    with data_context():
        made = ray.data.from_items(
            [{"start": part.start, "stop": part.stop} for part in parts], override_num_blocks=len(parts)
        ).map_batches(
            PartMaker,
            fn_constructor_args=(task,),
            batch_format="pyarrow",
            batch_size=1,
            # a part always waits at each worker: the driver looks for ended ones ten times a second only
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=n_maker, initial_size=n_maker, max_tasks_in_flight_per_actor=2
            ),
        )
        for row in made.iter_rows():
            on_part(row["rows"])


class PartMaker:
    """Actor: make the parts that it is sent, one per row."""

    def __init__(self, task: PartTask) -> None:
        self._task = task

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Make the parts ``start`` to ``stop``; answers with the rows of each."""
        return pa.table({"rows": [self._task.make(Part(row["start"], row["stop"])) for row in batch.to_pylist()]})
