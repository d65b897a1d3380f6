"""A scan with GPUs: readers, scorers and committers in pools of their own, joined by Ray Data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from lenspipe.distributed.data import MAX_BLOCKS, data_context
from lenspipe.distributed.pools import NO_PROGRESS_S, Pool
from lenspipe.distributed.scan import commit, shards_per_call
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.plan import table_of, tasks_of
from lenspipe.scan.scoring import ScoreShards
from lenspipe.scan.shard import scan_shard

CALLS_AT_ONCE = 2
"""Of a scorer on a GPU: rows of the second are fetched while the first is scored. Two are never scored side by side, as
a call tries shards that killed a scorer alone."""


def scan_apart(
    tasks: Sequence[ShardTask],
    context: ScanContext,
    parts: Path | str,
    session: str,
    pools: Sequence[Pool],
    on_part: Callable[[dict[str, int]], None],
    *,
    n_worker: int | None,
    no_progress_s: float = NO_PROGRESS_S,
) -> list[str]:
    """
    Read and measure shards in one pool, score them in a second, commit them in a third.

    Parameters
    ----------
    pools : sequence of Pool
        Readers, scorers, committers.
    n_worker : int or None
        CPUs of all pools together; no bound where None.
    no_progress_s : float
        Longest time in which nothing moves between the pools.

    Returns
    -------
    list of str
        What Ray Data says of its operators.

    Raises
    ------
    ClusterError
    """
    readers, scorers, committers = pools
    per_call, blocks = _blocks(tasks, context, readers.most)
    with data_context(n_worker, no_progress_s=no_progress_s):
        read = _in_pool(ray.data.from_arrow(blocks), readers, ReadShards, (context,), per_call, at_first=len(blocks))
        at_once = CALLS_AT_ONCE if scorers.each.get("GPU") else None
        scored = _in_pool(
            read, scorers, ScoreCutouts, (context,), context.config.score.shards_per_call, at_first=1, at_once=at_once
        )
        committed = _in_pool(scored, committers, CommitRows, (parts, session), None, at_first=1)
        for counts in committed.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in counts.to_pylist():
                on_part(row)
        return list(committed.stats().splitlines())


def _blocks(tasks: Sequence[ShardTask], context: ScanContext, n_worker: int) -> tuple[int, list[pa.Table]]:
    """Shards of a call, and tasks in blocks of whole calls."""
    per_call = shards_per_call(tasks, context, n_worker)
    # blocks from the driver, not read tasks: tasks of a fraction of a CPU make Ray start a process for each
    per_block = per_call * -(-len(tasks) // (per_call * MAX_BLOCKS))
    return per_call, [table_of(tasks[start : start + per_block]) for start in range(0, len(tasks), per_block)]


def _in_pool(
    rows: ray.data.Dataset,
    pool: Pool,
    work: type,
    settings: tuple[Any, ...],
    batch_size: int | None,
    *,
    at_first: int,
    at_once: int | None = None,
) -> ray.data.Dataset:
    """Rows that actors of a pool have worked on; what they need to know travels once per actor."""
    return rows.map_batches(
        work,
        fn_constructor_args=settings,
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=1,
            max_size=pool.most,
            initial_size=min(pool.most, at_first),
            **({} if at_once is None else {"max_concurrent_calls_per_actor": at_once}),
        ),
        num_cpus=pool.each["CPU"],
        num_gpus=pool.each.get("GPU"),
        memory=pool.each.get("memory"),
    )


class ReadShards:
    """Actor: read and measure shards, one row with cutouts each."""

    scan = staticmethod(scan_shard)

    def __init__(self, context: ScanContext) -> None:
        self._context = context

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Rows of one call's shards, each as it is done."""
        for task in tasks_of(table):
            yield self.scan(task, self._context)


class ScoreCutouts:
    """Actor: show cutouts to all models of a scan; rows come back without them."""

    def __init__(self, context: ScanContext) -> None:
        self._finish = ScoreShards(context)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Score one call's rows together."""
        return self._finish(table)


class CommitRows:
    """Actor: commit rows to the ledger, answer with the counts."""

    def __init__(self, parts: Path | str, session: str) -> None:
        self._parts, self._session = parts, session

    def __call__(self, table: pa.Table) -> pa.Table:
        """Commit one call's rows as one part."""
        return pa.Table.from_pylist([commit(table, self._parts, self._session)])
