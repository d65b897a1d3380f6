"""A shard is scanned several times, each time with other lenses in it: the tasks of these passes and their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from lenspipe.completeness.seeds import share_of
from lenspipe.scan.context import ShardTask

BARE, PAINTED = "bare", "painted"
"""Folders of the two stages: the pass in which nothing is painted, whose name it is too, and all others."""


def task_in(task: ShardTask, name: str) -> ShardTask:
    """The task of a shard in a pass."""
    shard = dataclasses.replace(task.shard, shard_id=f"{task.shard.shard_id}_{name}", first_of_tile=False)
    return dataclasses.replace(task, shard=shard)


def name_of(number: int) -> str:
    """Name of a pass that paints."""
    return f"p{number:04d}"


def home_and_pass(shard_id: str) -> tuple[str, str]:
    """
    The run's shard, and the pass.

    Examples
    --------
    >>> home_and_pass("A_x0y0c2048_p0003")
    ('A_x0y0c2048', 'p0003')
    """
    home, _, name = shard_id.rpartition("_")
    return home, name


def share_passes(
    area_arcmin2: Mapping[str, float], *, count: int, per_arcmin2: float, seed: int
) -> tuple[dict[str, int], float]:
    """
    How often each tile is painted, and how densely.

    A tile takes ``per_arcmin2`` lenses per pass. Where one pass over all tiles would be too much, some tiles are drawn
    and painted once; else every tile gets as many passes as the next, or one more.

    Parameters
    ----------
    area_arcmin2 : mapping
        Searched area by tile.
    count : int
        Lenses that are wanted in all.

    Returns
    -------
    passes : dict
        By tile, in the given order; tiles without a pass are left out.
    per_arcmin2 : float
        Lenses per area and pass, so that they add up to the count.

    Examples
    --------
    >>> share_passes({"a": 100.0, "b": 100.0}, count=300, per_arcmin2=0.5, seed=0)
    ({'a': 3, 'b': 3}, 0.5)
    """
    tiles = sorted((tile for tile, area in area_arcmin2.items() if area > 0), key=lambda t: share_of(seed, "tile", t))
    passes = dict.fromkeys(tiles, 0)
    painted = 0.0
    while tiles and painted * per_arcmin2 < count * (1 - 1e-9):
        for tile in tiles:
            if painted * per_arcmin2 >= count * (1 - 1e-9):
                break
            passes[tile] += 1
            painted += area_arcmin2[tile]
    return {tile: passes[tile] for tile in area_arcmin2 if passes.get(tile)}, min(per_arcmin2, count / painted)


def tasks_of_passes(tasks: Sequence[ShardTask], passes: Mapping[str, int]) -> list[ShardTask]:
    """Every shard of every tile in each of its passes."""
    return [task_in(task, name_of(number)) for task in tasks for number in range(passes.get(task.shard.tile, 0))]
