"""
Attempt markers: how a shard that kills its worker is told from one whose worker was killed by chance.

A marker is made before a shard is worked on and removed after. A worker process that dies leaves its marker.
Ray starts such work again for ever, so a shard with two markers left is given up and becomes a failure row.
Markers belong to one session of the driver: what a killed driver leaves says nothing about a shard.
"""

from __future__ import annotations

import uuid
from pathlib import Path

MAX_DEATHS = 2


def deaths(folder: Path, stage: str, shard_id: str) -> int:
    """How many workers died in this stage of this shard in this session."""
    return sum(1 for _ in folder.glob(f"{stage}.{shard_id}.*")) if folder.is_dir() else 0


def begin(folder: Path, stage: str, shard_id: str) -> Path:
    """Leave a marker."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f"{stage}.{shard_id}.{uuid.uuid4().hex[:12]}"
    marker.touch()
    return marker


def clear(folder: Path, stage: str, shard_id: str) -> None:
    """Remove all markers of a stage of a shard: it is through."""
    for marker in folder.glob(f"{stage}.{shard_id}.*"):
        marker.unlink(missing_ok=True)
