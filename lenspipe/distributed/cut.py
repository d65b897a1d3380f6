"""Cut stamps with Ray Data: actors read windows and write parts, and only positions and counts travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import ray

from lenspipe.distributed.data import data_context
from lenspipe.stamps.cut.parts import CutTask, Part


def cut_ray(parts: Sequence[Part], task: CutTask, *, n_worker: int, on_part: Callable[[dict[str, int]], None]) -> None:
    """Make parts on the Ray that runs, ``n_worker`` at a time; see `lenspipe.stamps.cut.run.Runner`."""
    n_cutter = min(n_worker, len(parts))
    held = [ray.put(part) for part in parts]
    with data_context():
        made = ray.data.from_items(
            [{"part": i} for i in range(len(parts))], override_num_blocks=len(parts)
        ).map_batches(
            PartCutter,
            fn_constructor_args=(task, held),
            batch_format="pyarrow",
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=n_cutter, initial_size=n_cutter, max_tasks_in_flight_per_actor=2
            ),
        )
        for row in made.iter_rows():
            on_part({"rows": row["rows"], "left_out": row["left_out"]})


class PartCutter:
    """Actor: cut the parts that it is sent, one per row."""

    def __init__(self, task: CutTask, parts: list[ray.ObjectRef]) -> None:
        self._task, self._parts = task, parts

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Cut parts by their numbers; answers with the counts of each."""
        return pa.Table.from_pylist([self._task.make(ray.get(self._parts[i])) for i in batch["part"].to_pylist()])
