"""The tasks of a catalogue with Ray Data, for more rows than one machine holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle

from lenspipe.catalog.executor import BATCH_ROWS, AnswerT, ItemT
from lenspipe.distributed.data import MAX_BLOCKS, data_context
from lenspipe.distributed.pools import NO_PROGRESS_S
from lenspipe.errors import ConfigError
from lenspipe.scan.attempts import MAX_DEATHS, begin, clear, deaths

REFUSED = "refused"
"""Column of an answer that says what is wrong with the request."""


@dataclass(frozen=True)
class RayTasks:
    """`lenspipe.catalog.executor.Executor` on the Ray that runs: a task of Ray Data per item."""

    n_worker: int | None = None
    """CPUs to use; all where None."""
    batch_rows: int = BATCH_ROWS

    def each(
        self, stage: str, work: Callable[[ItemT], AnswerT], items: Sequence[ItemT], *, scratch: Path
    ) -> Iterator[tuple[int, AnswerT]]:
        """
        Number and answer of every item, as they come.

        Raises
        ------
        ConfigError
            From a task; or a task's process died again and again.
        """
        if not items:
            return
        per_block = -(-len(items) // MAX_BLOCKS)
        blocks = [
            pa.table(
                {
                    "number": range(start, min(start + per_block, len(items))),
                    "item": [cloudpickle.dumps(item) for item in items[start : start + per_block]],
                }
            )
            for start in range(0, len(items), per_block)
        ]
        guarded = partial(_one_item, work, scratch / "attempts", stage)
        with data_context(self.n_worker, no_progress_s=NO_PROGRESS_S):
            answers = ray.data.from_arrow(blocks).map_batches(guarded, batch_size=1, batch_format="pyarrow", num_cpus=1)
            for table in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in table.to_pylist():
                    if row.get(REFUSED):
                        message, facts = json.loads(row[REFUSED])
                        raise ConfigError(message, **facts)
                    yield row["number"], cloudpickle.loads(row["answer"])


def _one_item(work: Callable[[Any], Any], attempts: Path, stage: str, batch: pa.Table) -> pa.Table:
    """Work on one item, unless it has killed its process before: Ray would try for ever."""
    (row,) = batch.to_pylist()
    number = row["number"]
    died = deaths(attempts, stage, str(number))
    try:
        if died >= MAX_DEATHS:
            raise ConfigError(
                "the process that wrote the catalogue died again and again at one pixel or file, for want of memory "
                "perhaps; give fewer --workers",
                stage=stage,
                item=number,
                deaths=died,
            )
        begin(attempts, stage, str(number))
        answer = work(cloudpickle.loads(row["item"]))
    except ConfigError as error:  # as data: what a task raises, Ray hands on as text
        return pa.table({"number": [number], REFUSED: [json.dumps([error.message, error.facts])]})
    clear(attempts, stage, str(number))
    return pa.table({"number": [number], "answer": pa.array([cloudpickle.dumps(answer)], pa.large_binary())})
