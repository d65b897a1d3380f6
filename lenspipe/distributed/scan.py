"""A scan by Ray Data: actors take shards from pixels to the ledger, or, on GPUs, score what tasks have measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from lenspipe.distributed.data import MAX_BLOCKS, NO_PROGRESS_S, data_context
from lenspipe.errors import ConfigError
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.ledger import write_part
from lenspipe.scan.plan import table_of, tasks_of
from lenspipe.scan.scoring import ScoreShards
from lenspipe.scan.shard import scan_shard

ROW_BYTES = 4 << 20
"""A guess at a shard row with its cutouts, for Ray's budget before it has seen one."""
CALLS_A_WORKER = 4
"""Fewest calls that a worker gets, where there are shards enough."""


def scan_ray(
    tasks: Sequence[ShardTask],
    context: ScanContext,
    parts: Path | str,
    *,
    session: str,
    n_worker: int,
    on_part: Callable[[dict[str, int]], None],
    separate_scorers: bool | None = None,
) -> None:
    """
    Scan shards on the Ray that runs.

    Without a GPU each worker takes shards from pixels to committed rows: nothing but the tasks and the counts travels.
    (Measured: with scoring in actors of its own two cores gained 1.28 over one, because cutouts cross the object store
    and three processes share two cores; two plain processes gain 1.68.) With GPUs, reading and measuring are one
    task, so that a window's pixels never enter the object store; rows with their cutouts travel to actors that hold
    the model and commit. (Not by a Ray Data sink: that is one operator more to place, and its counts come only at the
    end.)

    Parameters
    ----------
    tasks : sequence of ShardTask
    context : ScanContext
    parts : Path or str
        Folder of the ledger's parts, on a file system that every node sees, or its URL.
    session : str
        Name of this session; part names start with it.
    n_worker : int
        CPUs to use.
    on_part : callable
        Called on the driver with the counts of each part after it is committed.
    separate_scorers : bool, optional
        Score in actors of their own; where not given, where Ray has a GPU to score on.

    Raises
    ------
    ConfigError
        ``score.device`` is cuda and Ray has no GPU; it would wait for ever.
    ray.exceptions.RayTaskError
        A bug in a worker; what was committed stays.
    """
    n_gpu = int(ray.cluster_resources().get("GPU", 0))
    score = context.config.score
    on_gpu = bool(context.models) and score.device != "cpu" and score.engine == "torch" and n_gpu > 0
    if score.device == "cuda" and context.models and not on_gpu:
        raise ConfigError("score.device is cuda, and Ray has no GPU; use auto or cpu", gpus=n_gpu)
    with data_context(n_worker, no_progress_s=NO_PROGRESS_S):
        if on_gpu if separate_scorers is None else separate_scorers:
            dataset = _read_then_score(tasks, context, parts, session, n_worker, n_gpu if on_gpu else 0)
        else:
            dataset = _scan_whole(tasks, context, parts, session, n_worker)
        for counts in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in counts.to_pylist():
                on_part(row)


def _scan_whole(
    tasks: Sequence[ShardTask], context: ScanContext, parts: Path | str, session: str, n_worker: int
) -> ray.data.Dataset:
    """Shards from pixels to committed rows in each of ``n_worker`` actors."""
    most = len(tasks) // (CALLS_A_WORKER * n_worker)  # few shards: short calls, so that the workers end together
    per_call = max(1, min(context.config.score.shards_per_call, most))
    # blocks from the driver, not read tasks: tasks of a fraction of a CPU make Ray start a process for each
    per_block = per_call * -(-len(tasks) // (per_call * MAX_BLOCKS))
    blocks = [table_of(tasks[start : start + per_block]) for start in range(0, len(tasks), per_block)]
    return ray.data.from_arrow(blocks).map_batches(
        ScanShards,
        fn_constructor_args=(context, parts, session),
        batch_size=per_call,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=n_worker, initial_size=min(n_worker, len(blocks))),
        num_cpus=1,
    )


def _read_then_score(
    tasks: Sequence[ShardTask], context: ScanContext, parts: Path | str, session: str, n_worker: int, n_gpu: int
) -> ray.data.Dataset:
    """Shards read and measured in tasks, scored and committed in actors: on GPUs, or sharing the CPUs."""
    # One scorer to two readers: measured, scoring takes about half of the time of all before it. On CPUs the two
    # together fill the cores that there are, and Ray's own split between operators lets both run at once.
    scorer: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if n_gpu else {"num_cpus": 0.5}
    return ray.data.read_datasource(
        ShardSource(tasks, context),
        override_num_blocks=min(len(tasks), MAX_BLOCKS),
        num_cpus=1.0 if n_gpu else 0.5 if n_worker == 1 else 0.75,
    ).map_batches(
        CommitShards,
        fn_constructor_args=(context, parts, session),
        batch_size=context.config.score.shards_per_call,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=n_gpu or (n_worker + 1) // 2),
        **scorer,
    )


class ShardSource(Datasource):
    """Shards as a Ray Data source: one row per shard, read and measured inside the read task."""

    def __init__(self, tasks: Sequence[ShardTask], context: ScanContext) -> None:
        super().__init__()
        self._tasks = list(tasks)
        self._context = ray.put(context)

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all rows, before any is seen."""
        return len(self._tasks) * ROW_BYTES

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """Shards in ``parallelism`` runs of neighbours."""
        chunks = np.array_split(np.arange(len(self._tasks)), max(1, min(parallelism, len(self._tasks))))
        return [
            ReadTask(
                partial(_read, [self._tasks[i] for i in chunk], self._context),
                BlockMetadata(
                    num_rows=len(chunk), size_bytes=len(chunk) * ROW_BYTES, input_files=None, exec_stats=None
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for chunk in chunks
        ]


def _read(tasks: list[ShardTask], context: ray.ObjectRef) -> Iterator[pa.Table]:
    known: ScanContext = ray.get(context)
    for task in tasks:
        yield scan_shard(task, known)


class ScanShards:
    """Actor: take shards from pixels to committed rows, answer with the counts."""

    scan = staticmethod(scan_shard)

    def __init__(self, context: ScanContext, parts: Path | str, session: str) -> None:
        self._context, self._parts, self._session = context, parts, session
        self._finish = ScoreShards(context)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Scan one call's shards, each to its end before the next is read, and commit them as one part."""
        rows = pa.concat_tables([self._finish(self.scan(task, self._context)) for task in tasks_of(table)])
        return _commit(rows, self._parts, self._session)


class CommitShards:
    """Actor: score rows where a model applies, commit them, answer with the counts."""

    def __init__(self, context: ScanContext, parts: Path | str, session: str) -> None:
        self._parts, self._session = parts, session
        self._finish = ScoreShards(context)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Score one call's rows together and commit them as one part."""
        return _commit(self._finish(table), self._parts, self._session)


def _commit(rows: pa.Table, parts: Path | str, session: str) -> pa.Table:
    """Write a call's rows as one part; a retried call replaces the part it may have written."""
    ids = "\n".join(sorted(rows["shard_id"].to_pylist()))
    name = f"part-{session}-{hashlib.sha256(ids.encode()).hexdigest()[:16]}"
    return pa.Table.from_pylist([write_part(parts, name, rows)])
