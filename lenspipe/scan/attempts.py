"""
Attempt markers: how a shard that kills its worker is told from one whose worker was killed by chance.

A marker is made before a shard is worked on and removed after. A worker process that dies leaves its marker.
Ray starts such work again for ever, so a shard with two markers left is given up and becomes a failure row.
Markers belong to one session of the driver: what a killed driver leaves says nothing about a shard.
Of a run in an object store they are objects.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from lenspipe.store.objects import listed, remove, write_bytes
from lenspipe.store.urls import joined

MAX_DEATHS = 2


def deaths(folder: Path | str, stage: str, shard_id: str) -> int:
    """How many workers died in this stage of this shard in this session."""
    return len(_markers(folder, stage, shard_id))


def begin(folder: Path | str, stage: str, shard_id: str) -> None:
    """Leave a marker."""
    name = f"{stage}.{shard_id}.{uuid.uuid4().hex[:12]}"
    if isinstance(folder, str):
        write_bytes(joined(folder, name), b"")
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def clear(folder: Path | str, stage: str, shard_id: str) -> None:
    """Remove all markers of a stage of a shard: it is through."""
    names = _markers(folder, stage, shard_id)
    if isinstance(folder, str):
        remove(folder, names)
        return
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _markers(folder: Path | str, stage: str, shard_id: str) -> list[str]:
    begin = f"{stage}.{shard_id}."
    if isinstance(folder, str):
        return [name for name in listed(folder) if name.startswith(begin)]
    return [path.name for path in folder.glob(f"{begin}*")] if folder.is_dir() else []
