"""The plain loop over shards: the reference that every other runner must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.ledger import write_part
from lenspipe.scan.scoring import ScoreShards
from lenspipe.scan.shard import scan_shard


def scan_local(
    tasks: Sequence[ShardTask],
    context: ScanContext,
    parts: Path | str,
    *,
    session: str,
    on_part: Callable[[dict[str, int]], None],
) -> None:
    """
    Scan shards one after the other and commit them in parts of ``score.shards_per_call``.

    Parameters
    ----------
    tasks : sequence of ShardTask
    context : ScanContext
    parts : Path or str
        Folder of the ledger's parts, or its URL.
    session : str
        Name of this session; part names start with it.
    on_part : callable
        Called with the counts of each part after it is committed.
    """
    finish = ScoreShards(context)
    step = context.config.score.shards_per_call
    for number, start in enumerate(range(0, len(tasks), step)):
        # shard by shard, so that the cutouts of one are gone before the next is read
        rows = [finish(scan_shard(task, context)) for task in tasks[start : start + step]]
        on_part(write_part(parts, f"part-{session}-{number:06d}", pa.concat_tables(rows)))
