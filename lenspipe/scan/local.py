"""The plain loop over shards: the reference that every other runner must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from lenspipe.scan.ledger import write_part
from lenspipe.scan.scoring import ScoreShards, without_cutouts
from lenspipe.scan.settings import ScanSettings, ShardTask
from lenspipe.scan.shard import scan_shard


def scan_local(
    tasks: Sequence[ShardTask],
    settings: ScanSettings,
    parts: Path,
    *,
    session: str,
    on_part: Callable[[dict[str, int]], None],
) -> None:
    """
    Scan shards one after the other and commit them in parts of ``score.shards_per_call``.

    Parameters
    ----------
    tasks : sequence of ShardTask
    settings : ScanSettings
    parts : Path
        Folder of the ledger's parts.
    session : str
        Name of this session; part names start with it.
    on_part : callable
        Called with the counts of each part after it is committed.
    """
    score = ScoreShards(settings) if settings.model else None
    step = settings.config.score.shards_per_call
    for number, start in enumerate(range(0, len(tasks), step)):
        table = pa.concat_tables(scan_shard(task, settings) for task in tasks[start : start + step])
        rows = score(table) if score else without_cutouts(table, settings.bands)
        on_part(write_part(parts, f"part-{session}-{number:06d}", rows))
