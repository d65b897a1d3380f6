"""The first half of a shard's scan: its pixels as the files hold them, before anything is searched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa

from lenspipe.image.sky import Flat, subtract_sky
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.survey.read import Pixels, TileFacts, read_facts, read_window
from lenspipe.survey.shards import Box, Shard
from lenspipe.survey.tile import Tile

if TYPE_CHECKING:
    from lenspipe.scan.search import Found


@dataclasses.dataclass(frozen=True, eq=False)
class ReadShard:
    """
    A shard with its pixels: calibrated, masked, the sky still in them.

    What changes the pixels of a scan (`ScanContext.change`) takes one and gives one; it may work in place. `search` and
    `flatten` subtract the sky in place.
    """

    task: ShardTask
    facts: TileFacts
    pixels: Pixels
    watch: Callable[[Found], tuple[Found, pa.Table]] | None = None
    """Set by what changed the pixels: sees what the search finds, says what the readers are shown of it
    (`Found.showing`), and gives a table that is kept with the shard's row (`lenspipe.scan.rows.noted`)."""


def facts_of(tile: Tile, context: ScanContext) -> TileFacts:
    """
    What the headers of a tile say.

    Raises
    ------
    TileError
        The headers are unusable (`lenspipe.survey.read.read_facts`).
    """
    return read_facts(tile, context.layout, assumed_zero_point_ab=context.config.zero_point_ab)


def read_shard(task: ShardTask, context: ScanContext, *, facts: TileFacts | None = None) -> ReadShard:
    """
    Read the window of a shard.

    Parameters
    ----------
    task : ShardTask
    context : ScanContext
    facts : TileFacts, optional
        The tile's, where the caller has read them.

    Raises
    ------
    TileError
        The tile cannot be used.
    """
    facts = facts or facts_of(task.tile, context)
    shard = task.shard
    return ReadShard(task, facts, read_window(task.tile, facts, context.layout, shard.window, core=shard.core))


def flatten(read: ReadShard, context: ScanContext) -> Flat:
    """
    Subtract the sky as a scan does, in place: the pixels of ``read`` are without it afterwards.

    Raises
    ------
    TileError
        A band is constant.
    """
    pixels, mesh = read.pixels, context.config.background
    return subtract_sky(
        pixels.image, pixels.mask, bands=pixels.bands, mesh_px=mesh.mesh_px, filter_mesh=mesh.filter_mesh
    )


def task_of(tile: Tile, window: Box) -> ShardTask:
    """A window of a tile that is in no plan as a shard without a halo."""
    return ShardTask(Shard(tile.name, tile.name, core=window, window=window, first_of_tile=False), tile)
