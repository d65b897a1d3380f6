"""One cutting from positions to folder: make the parts that are not there, say what was left out and why."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.errors import ConfigError, DataError
from lenspipe.rundir import atomic_path, open_run, read_json, utc_now, versions, write_json
from lenspipe.runner import SILENT, Progress, Start, here
from lenspipe.stamps.cut.local import cut_local
from lenspipe.stamps.cut.parts import DONE, CutTask, Part, TileRows, digest_of, parts_done, plan_parts
from lenspipe.stamps.cut.places import places_of
from lenspipe.stamps.spec import SPLITS
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.tile import BadTile, Tile
from lenspipe.tables import safe_cell

LEFT_OUT, RECORD = "left_out.csv", "cut.json"
OUTSIDE = "outside every tile"


class Runner(Protocol):
    """Makes parts and writes them; the plain loop, or Ray."""

    def __call__(self, parts: Sequence[Part], task: CutTask, *, on_part: Callable[[dict[str, int]], None]) -> None:
        """Make ``parts``; ``on_part`` is called here with the counts of each when it is written."""
        ...


PLAIN: Start[Runner] = here(cut_local)


@dataclasses.dataclass(frozen=True, eq=False)
class Located:
    """Positions by the tile that shows them, and those that none shows."""

    tiles: tuple[TileRows, ...]
    pixel_scale_arcsec: float
    """Median of the tiles, by position."""
    left_out: tuple[tuple[str, str], ...]
    """Name and reason of positions that no stamp can be cut of."""
    notes: tuple[str, ...] = ()
    """One line for each thing that the user should know of the tiles."""


@dataclasses.dataclass(frozen=True)
class CutResult:
    """What a cutting came to."""

    n: int
    """Stamps in the folder."""
    n_new: int
    """Of them, those that were not there before."""
    left_out: tuple[tuple[str, str], ...]
    """Name and reason."""
    seconds: float

    @property
    def reasons(self) -> Counter[str]:
        """How many were left out, by reason."""
        return Counter(reason for _, reason in self.left_out)


def locate(
    tiles: Sequence[Tile | BadTile],
    layout: SurveyLayout,
    positions: pa.Table,
    *,
    size_px: int | None,
    zero_point_ab: float | None,
    progress: Progress = SILENT,
) -> Located:
    """
    Find the tile of each position by the tiles' footprints.

    Parameters
    ----------
    tiles, layout
        The survey's.
    positions : pa.Table
        From `lenspipe.stamps.cut.positions.read_positions`.
    size_px : int or None
        Side of the stamps of positions that do not say theirs.
    zero_point_ab : float or None
        For tiles whose headers state none.
    progress : Progress

    Raises
    ------
    ConfigError
        Not one position lies on a tile that can be used, or one has no size.
    """
    progress.stage("Headers", len(tiles))
    ra_deg, dec_deg = positions["ra_deg"].to_numpy(), positions["dec_deg"].to_numpy()
    places = places_of(tiles, layout, ra_deg, dec_deg, zero_point_ab=zero_point_ab, on_tile=lambda: progress.advance(1))
    names = positions["stamp_id"].to_pylist()
    outside = np.flatnonzero(places.tile < 0).tolist()
    if len(outside) == len(names):
        reason = places.bad[0][1] if places.bad else "are they of this survey?"
        raise ConfigError(
            f"none of the positions lies on a tile: {reason}",
            positions=len(names),
            tiles=len(tiles),
            unusable_tiles=len(places.bad),
            first_ra=float(ra_deg[0]),
            first_dec=float(dec_deg[0]),
        )
    rows = with_size(positions, size_px)
    found, scales = [], []
    for number in sorted(places.facts):
        tile, facts = tiles[number], places.facts[number]
        assert isinstance(tile, Tile)
        index = np.flatnonzero(places.tile == number)
        some = rows.take(index)
        for name, values in {
            "survey": pa.array([layout.name] * len(index)),
            "tile": pa.array([tile.name] * len(index)),
            "x_px": pa.array(places.x_px[index]),
            "y_px": pa.array(places.y_px[index]),
        }.items():
            some = put(some, name, values)
        found.append(TileRows(tile, facts.shape, some))
        scales += [facts.pixel_scale_arcsec] * len(index)
    notes = [f"tile {name} cannot be used: {reason}" for name, reason in places.bad]
    return Located(tuple(found), float(np.median(scales)), tuple((names[i], OUTSIDE) for i in outside), tuple(notes))


def with_bands(tile: Tile | BadTile, bands: Sequence[str]) -> Tile | BadTile:
    """A tile without its other bands, so that they are not read; in the order of the tile."""
    if not isinstance(tile, Tile):
        return tile
    kept = tuple(files for files in tile.bands if files.band in bands)
    return dataclasses.replace(tile, bands=kept) if kept else tile


def with_size(rows: pa.Table, size_px: int | None) -> pa.Table:
    """Rows with ``size_px`` where they do not say it; raises `ConfigError` where one has none at all."""
    sizes = rows["size_px"]
    if size_px is not None:
        sizes = sizes.fill_null(size_px)
    if sizes.null_count:
        raise ConfigError("say the side of the stamps: --size PX, or a column size in the list of positions")
    return put(rows, "size_px", sizes)


def labelled(
    rows: pa.Table, splits: Callable[[pa.Table], Sequence[str | None]] | None, *, label: str | None = None
) -> pa.Table:
    """
    Rows with what every stamp has: ``label`` (null where none), ``host`` (the stamp itself) and ``split``.

    Parameters
    ----------
    rows : pa.Table
        With ``stamp_id``; what it says of label, host and split stays.
    splits : callable or None
        Splits of rows that state none; None leaves them null.
    label : str, optional
        Class of rows that state none.
    """
    n = rows.num_rows
    given = {name: rows[name] if name in rows.column_names else pa.nulls(n) for name in ("label", "host", "split")}
    given = {name: column.cast(pa.string()) for name, column in given.items()}
    unknown = sorted({s for s in given["split"].unique().to_pylist() if s is not None and s not in SPLITS})
    if unknown:
        raise ConfigError(
            "the list of positions states splits that do not exist", got=unknown[0], splits=",".join(SPLITS)
        )
    if label is not None:
        given["label"] = pc.coalesce(given["label"], label)
    given["host"] = pc.coalesce(given["host"], rows["stamp_id"])
    if splits is not None and given["split"].null_count:
        given["split"] = pc.coalesce(given["split"], pa.array(splits(rows), pa.string()))
    for name, column in given.items():
        rows = put(rows, name, column)
    return rows


def put(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """A table with a column, in the place of one of its name or at the end."""
    at = rows.schema.get_field_index(name)
    return rows.append_column(name, values) if at < 0 else rows.set_column(at, name, values)


def cut_stamps(
    located: Located,
    task: CutTask,
    out: Path,
    request: Mapping[str, Any],
    *,
    runner: Start[Runner] = PLAIN,
    resume: bool = False,
    progress: Progress = SILENT,
) -> CutResult:
    """
    Cut stamps into a folder, with ``left_out.csv`` and ``cut.json`` beside them.

    Which rows a part has depends on the positions and the tiles alone, not on workers or what was there before.

    Parameters
    ----------
    located : Located
    task : CutTask
    out : Path
        New or empty folder, or a cutting to resume.
    request : mapping
        What was asked for; it must be the same for a resume.
    runner : Start, optional
    resume : bool
        Finish a cutting that was cut off.
    progress : Progress

    Raises
    ------
    ConfigError
        The folder holds something else; stamps of one array would have several sides; two files would have one name.
    DataError
        Not one stamp could be cut.
    """
    begun = time.perf_counter()
    _demand_one_side(located, task)
    asked = {"command": "stamps cut", **request, "places": digest_of(located.tiles)}
    with open_run(out, asked, resume=resume, command="--out", readme="stamps"):
        if (out / RECORD).exists():  # a resume of what is whole
            return _stored(out, time.perf_counter() - begun)
        parts, done = list(plan_parts(located.tiles, task)), parts_done(out)
        todo = [part for part in parts if part.name not in done]
        n_all, n_todo = sum(map(len, parts)), sum(map(len, todo))
        progress.stage("Cutting", n_all, n_all - n_todo)
        if todo:
            with runner() as run:
                run(todo, task, on_part=lambda counts: progress.advance(counts["rows"] + counts["left_out"]))
            done = parts_done(out)
        left_out = [*located.left_out, *(tuple(item) for one in done.values() for item in one["left_out"])]
        n = sum(one["rows"] for one in done.values())
        if not n:
            name, reason = left_out[0]
            raise DataError(f"not one stamp could be cut: {reason}", stamp=name, left_out=len(left_out))
        with atomic_path(out / LEFT_OUT) as temporary, temporary.open("w", newline="") as stream:
            csv.writer(stream).writerows([("stamp_id", "reason"), *(map(safe_cell, row) for row in left_out)])
        result = CutResult(n, n_todo, tuple(left_out), time.perf_counter() - begun)
        write_json(
            out / RECORD,
            {
                "stamps": n,
                "left_out": dict(result.reasons),
                "notes": list(located.notes),
                "request": asked,
                "seconds": round(result.seconds, 2),
                "finished": utc_now(),
                "versions": versions(),
            },
        )
        shutil.rmtree(out / DONE)
    return result


def _stored(out: Path, seconds: float) -> CutResult:
    with (out / LEFT_OUT).open(newline="") as stream:
        left_out = [(row[0], row[1]) for row in csv.reader(stream)][1:]
    return CutResult(read_json(out / RECORD)["stamps"], 0, tuple(left_out), seconds)


def _demand_one_side(located: Located, task: CutTask) -> None:
    sizes = sorted({size for one in located.tiles for size in one.rows["size_px"].unique().to_pylist()})
    if task.form != "fits" and len(sizes) > 1:
        raise ConfigError(
            "stamps of one data set have one side; give --size and no column of sizes, or write --format fits",
            sizes=", ".join(map(str, sizes[:8])),
        )
