"""The plan of a scan: every shard of every tile, written down before any pixel is read."""

from __future__ import annotations

import concurrent.futures
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.errors import DataError, TileError
from lenspipe.rundir import atomic_path
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ShardTask
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.read import check_planes, read_facts
from lenspipe.survey.shards import Box, Shard, cut_into_shards
from lenspipe.survey.tile import BadTile, Tile
from lenspipe.tables import read_parquet, table_writer

BOX = pa.list_(pa.int32(), 4)
SCHEMA = pa.schema(
    [
        pa.field("tile", pa.string()),
        pa.field("files", pa.string(), metadata={"description": "JSON of the tile's planes"}),
        pa.field("shard_id", pa.string(), metadata={"description": "null for a tile that could not be planned"}),
        pa.field("core", BOX, metadata={"description": "x0 y0 x1 y1"}),
        pa.field("window", BOX),
        pa.field("first_of_tile", pa.bool_()),
        pa.field("error_type", pa.string()),
        pa.field("message", pa.string()),
        pa.field("file", pa.string()),
    ]
)
READERS = 16
PX_PER_S = 2.5e6
"""Pixels, counted in each band, that one core reads, searches and scores in a second, within a factor of three."""
HELD = pa.schema([f.with_type(pa.dictionary(pa.int32(), pa.string())) if f.name == "files" else f for f in SCHEMA])
"""How a plan is held in memory: what its tiles are made of once, and not once per shard."""
PIECE, TILES = 4096, 256
"""Shards that are made into tasks, or written, at a time; tiles that are known meanwhile."""


def plan_tiles(
    tiles: Sequence[Tile | BadTile],
    layout: SurveyLayout,
    config: ScanConfig,
    *,
    on_tile: Callable[[], None] = lambda: None,
) -> pa.Table:
    """
    Cut all tiles into shards; only headers are read.

    A tile whose headers are unusable gets one row with its error and no shard.

    Returns
    -------
    pa.Table
        With `HELD`, in the order of the tiles.
    """

    def rows_of(tile: Tile | BadTile) -> pa.Table:
        rows = _held(_rows(tile, layout, config))
        on_tile()
        return rows

    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(rows_of, tiles))
    return pa.concat_tables([HELD.empty_table(), *tables]).unify_dictionaries().combine_chunks()


def _held(rows: Sequence[dict[str, object]]) -> pa.Table:
    columns = {f.name: pa.array([row.get(f.name) for row in rows], f.type) for f in SCHEMA}
    columns["files"] = columns["files"].dictionary_encode()
    return pa.table(list(columns.values()), schema=HELD)


def _rows(tile: Tile | BadTile, layout: SurveyLayout, config: ScanConfig) -> list[dict[str, object]]:
    error, shards = None, []
    if isinstance(tile, BadTile):
        error = tile.error
    else:
        try:
            facts = read_facts(tile, layout, assumed_zero_point_ab=config.zero_point_ab)
            check_planes(tile, facts, layout)
            shards = cut_into_shards(
                tile.name,
                facts.shape,
                core_px=config.shard.core_px,
                halo_px=config.shard.halo_px,
                align_px=config.background.mesh_px,
            )
        except TileError as failure:
            error = failure
    if error is not None:
        return [
            {
                "tile": tile.name,
                "files": tile.to_json() if isinstance(tile, Tile) else None,
                "error_type": type(error).__name__,
                "message": str(error),
                "file": str(error.facts.get("file") or tile.file),
            }
        ]
    assert isinstance(tile, Tile)
    files = tile.to_json()
    return [_row(shard, files) for shard in shards]


def _row(shard: Shard, files: str) -> dict[str, object]:
    return {
        "tile": shard.tile,
        "files": files,
        "shard_id": shard.shard_id,
        "core": [shard.core.x0, shard.core.y0, shard.core.x1, shard.core.y1],
        "window": [shard.window.x0, shard.window.y0, shard.window.x1, shard.window.y1],
        "first_of_tile": shard.first_of_tile,
    }


def unplanned_tiles(plan: pa.Table) -> set[str]:
    """Names of the tiles that could not be planned."""
    return set(plan.filter(pc.is_null(plan["shard_id"]))["tile"].to_pylist())


def replace_tiles(plan: pa.Table, again: pa.Table) -> pa.Table:
    """A plan in which the tiles of ``again`` have its rows; the order of tiles stays."""
    order = {name: i for i, name in enumerate(dict.fromkeys(plan["tile"].to_pylist()))}
    kept = plan.filter(pc.invert(pc.is_in(plan["tile"], pc.unique(again["tile"]))))
    table = pa.concat_tables([kept.replace_schema_metadata(None), again])
    rank = pa.array([order[name] for name in table["tile"].to_pylist()], pa.int64())
    return table.take(pc.array_sort_indices(rank)).unify_dictionaries().combine_chunks()


class Tasks(Sequence[ShardTask]):
    """The shards of a plan as tasks, each made when it is asked for: memory holds the plan alone."""

    def __init__(self, plan: pa.Table) -> None:
        self.plan = plan.filter(pc.is_valid(plan["shard_id"])).combine_chunks()
        self._tile = functools.lru_cache(TILES)(Tile.from_json)

    def __len__(self) -> int:
        return int(self.plan.num_rows)

    @overload
    def __getitem__(self, index: int) -> ShardTask: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ShardTask]: ...
    def __getitem__(self, index: int | slice) -> ShardTask | Sequence[ShardTask]:
        """One task, or some."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            rows = (
                self.plan.slice(start, max(0, stop - start)) if step == 1 else self.plan.take(range(len(self))[index])
            )
            return Tasks(rows)
        return self._made(self.plan.slice(range(len(self))[index], 1))[0]

    def __iter__(self) -> Iterator[ShardTask]:
        for start in range(0, len(self), PIECE):
            yield from self._made(self.plan.slice(start, PIECE))

    def _made(self, rows: pa.Table) -> list[ShardTask]:
        return [
            ShardTask(
                Shard(row["shard_id"], row["tile"], Box(*row["core"]), Box(*row["window"]), row["first_of_tile"]),
                self._tile(row["files"]),
            )
            for row in rows.to_pylist()
        ]


def tasks_of(plan: pa.Table) -> list[ShardTask]:
    """The shards of a plan as tasks; tiles are shared between their shards."""
    return list(Tasks(plan))


def plain_s(tasks: Sequence[ShardTask]) -> float:
    """About how many seconds the plain loop takes for shards, by their pixels."""
    return sum(task.shard.window.n_px * len(task.tile.bands) for task in tasks) / PX_PER_S


def table_of(tasks: Sequence[ShardTask]) -> pa.Table:
    """Tasks as rows of a plan, the inverse of `tasks_of`; how they travel between processes."""
    if isinstance(tasks, Tasks):
        return tasks.plan
    files = {id(tile): tile.to_json() for tile in (task.tile for task in tasks)}
    return _held([_row(task.shard, files[id(task.tile)]) for task in tasks])


def write_plan(path: Path, plan: pa.Table, *, bands: tuple[str, ...]) -> None:
    """Write the plan and the bands of the run."""
    schema = SCHEMA.with_metadata({"bands": json.dumps(bands)})
    with atomic_path(path) as temporary, table_writer(temporary, schema) as writer:
        for start in range(0, plan.num_rows, PIECE):
            writer.write(plan.slice(start, PIECE).cast(SCHEMA).replace_schema_metadata(schema.metadata))


def read_plan(path: Path) -> tuple[pa.Table, tuple[str, ...]]:
    """
    The plan and the bands of the run.

    Raises
    ------
    DataError
        The file is damaged.
    """
    table = read_parquet(path, words_once=["files"])
    if not table.schema.equals(HELD) or b"bands" not in (table.schema.metadata or {}):
        raise DataError("the plan of the run is damaged; add --resume to have it made again", file=str(path))
    place = table.schema.get_field_index("shard_id")
    shard_id = pc.if_else(pc.equal(table["shard_id"], ""), None, table["shard_id"])  # the empty word is a missing one
    table = table.set_column(place, table.schema.field(place), shard_id)
    table = table.unify_dictionaries().combine_chunks()
    return table, tuple(json.loads(table.schema.metadata[b"bands"]))
