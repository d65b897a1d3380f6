"""The unit of work: some windows of tiles whose stamps are one part of the output."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import TileError
from lenspipe.rundir import read_json, write_json
from lenspipe.stamps.cut.pixels import Cells, SkyMesh, read_for_stamps, windows_of
from lenspipe.stamps.cut.write import Form, Plane, Write, fits_files, npy_part, parquet_part
from lenspipe.stamps.spec import ImageSpec
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.read import TileFacts, read_facts
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import Tile

DONE = ".done"
"""Folder, in that of the output, that says which parts are there."""
PART_BYTES, PART_BYTES_MAX = 128 << 20, 1 << 30
"""Pixels of a part: windows are put together up to the first, and one that holds more than the second is divided."""
SAME_SCALE = 1e-3
"""Part by which the pixel scales of tiles may differ in one data set."""
NO_DATA = "the tile has no data there: every pixel is masked"


@dataclasses.dataclass(frozen=True, eq=False)
class TileRows:
    """
    A tile and the positions that it shows.

    ``rows`` has ``stamp_id``, ``ra_deg``, ``dec_deg``, ``x_px``, ``y_px`` (0-based in the tile), ``size_px``, and
    whatever else the stamps shall carry.
    """

    tile: Tile
    shape: tuple[int, int]
    """Rows and columns of the tile."""
    rows: pa.Table


@dataclasses.dataclass(frozen=True, eq=False)
class PartWindow:
    """A window of a tile, and the positions in it."""

    tile: Tile
    window: Box
    rows: pa.Table


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Windows whose stamps are written together."""

    name: str
    windows: tuple[PartWindow, ...]

    def __len__(self) -> int:
        return sum(window.rows.num_rows for window in self.windows)


@dataclasses.dataclass(frozen=True)
class CutTask:
    """What is the same for all parts; picklable."""

    layout: SurveyLayout
    spec: ImageSpec
    """Of the stamps; of FITS files the side is that of each row."""
    sky: SkyMesh | None
    cells: Cells
    zero_point_ab: float | None
    form: Form
    planes: tuple[Plane, ...]
    out: str

    def make(self, part: Part) -> dict[str, int]:
        """
        Cut a part, write it, and say that it is done.

        Returns
        -------
        dict
            ``rows`` that are written and positions ``left_out``; which, and why, is in the file of `DONE`.
        """
        folder, kept = Path(self.out), 0
        left_out: list[tuple[str, str]] = []
        known: tuple[Tile, TileFacts] | None = None
        with self._writer(folder, part) as write:
            for window in part.windows:
                try:
                    if known is None or known[0] != window.tile:
                        known = window.tile, self._facts(window.tile)
                    kept += self._window(window, known[1], write, left_out)
                except TileError as error:
                    left_out += [(name, str(error)) for name in window.rows["stamp_id"].to_pylist()]
        if not kept:
            for file in folder.glob(f"{part.name}.*"):
                file.unlink()
        marker = folder / DONE / f"{part.name}.json"
        marker.parent.mkdir(exist_ok=True)
        write_json(marker, {"rows": kept, "left_out": left_out})
        return {"rows": kept, "left_out": len(left_out)}

    def _writer(self, folder: Path, part: Part) -> contextlib.AbstractContextManager[Write]:
        rows = part.windows[0].rows.schema
        if self.form == "parquet":
            return parquet_part(folder, part.name, spec=self.spec, rows=rows, planes=self.planes)
        if self.form == "fits":
            return fits_files(folder, part.name, spec=self.spec, rows=rows, planes=self.planes)
        return npy_part(folder, part.name, spec=self.spec, rows=rows, planes=self.planes, n=len(part))

    def _facts(self, tile: Tile) -> TileFacts:
        facts = read_facts(tile, self.layout, assumed_zero_point_ab=self.zero_point_ab)
        scale = self.spec.pixel_scale_arcsec
        if self.form != "fits" and abs(facts.pixel_scale_arcsec / scale - 1) > SAME_SCALE:
            raise TileError(
                "the tile has another pixel scale than most; its stamps need a data set of their own",
                tile=tile.name,
                got_arcsec=facts.pixel_scale_arcsec,
                want_arcsec=scale,
            )
        return facts

    def _window(self, part: PartWindow, facts: TileFacts, write: Write, left_out: list[tuple[str, str]]) -> int:
        read = read_for_stamps(
            part.tile,
            facts,
            self.layout,
            part.window,
            bands=self.spec.bands,
            sky=self.sky,
            invvar="invvar" in self.planes,
        )
        sizes = part.rows["size_px"].to_numpy()
        x_px, y_px, kept = part.rows["x_px"].to_numpy(), part.rows["y_px"].to_numpy(), 0
        for size_px in np.unique(sizes):
            here = np.flatnonzero(sizes == size_px)
            for stamps in read.stamps(x_px[here], y_px[here], size_px=int(size_px)):
                rows = part.rows.take(here[stamps.rows])
                empty: NDArray[np.bool_] = np.asarray(stamps.mask.all(axis=(1, 2, 3)))
                if empty.any():
                    left_out += [(name, NO_DATA) for name in rows.filter(pa.array(empty))["stamp_id"].to_pylist()]
                    stamps, rows = stamps.of(~empty), rows.filter(pa.array(~empty))
                if rows.num_rows:
                    write(rows, stamps, facts)
                    kept += rows.num_rows
        return kept


def plan_parts(tiles: Sequence[TileRows], task: CutTask) -> Iterator[Part]:
    """Parts in the order of tiles and windows: the same for the same positions, whoever makes them."""
    waiting: list[PartWindow] = []
    n_bytes, number = 0, 0
    for window in _windows(tiles, task):
        size = _bytes(window.rows, task)
        if waiting and n_bytes + size > PART_BYTES:
            yield Part(f"part-{number:06d}", tuple(waiting))
            waiting, n_bytes, number = [], 0, number + 1
        waiting.append(window)
        n_bytes += size
    if waiting:
        yield Part(f"part-{number:06d}", tuple(waiting))


def _windows(tiles: Sequence[TileRows], task: CutTask) -> Iterator[PartWindow]:
    for one in tiles:
        x_px, y_px = one.rows["x_px"].to_numpy(), one.rows["y_px"].to_numpy()
        largest = int(np.max(one.rows["size_px"].to_numpy(), initial=1))
        for found in windows_of(one.shape, x_px, y_px, size_px=largest, cells=task.cells, whole=task.sky is not None):
            rows = one.rows.take(found.rows)
            n = 1 + (_bytes(rows, task) - 1) // PART_BYTES_MAX
            for some in np.array_split(np.arange(rows.num_rows), n):
                yield PartWindow(one.tile, found.window, rows.slice(int(some[0]), len(some)))


def _bytes(rows: pa.Table, task: CutTask) -> int:
    sizes = rows["size_px"].to_numpy().astype(np.int64)
    return int(4 * len(task.spec.bands) * (1 + len(task.planes)) * (sizes**2).sum())


def parts_done(out: Path) -> dict[str, dict[str, Any]]:
    """What is written, by the name of the part."""
    return {file.stem: read_json(file) for file in sorted((out / DONE).glob("*.json"))}


def digest_of(tiles: Sequence[TileRows]) -> str:
    """Which positions of which tiles: what must be the same for a resume."""
    import hashlib

    digest = hashlib.sha256()
    for one in tiles:
        digest.update(one.tile.to_json().encode())
        for column in ("x_px", "y_px", "size_px"):
            digest.update(one.rows[column].to_numpy().tobytes())
        digest.update(json.dumps(one.rows["stamp_id"].to_pylist()).encode())
    return digest.hexdigest()[:16]
