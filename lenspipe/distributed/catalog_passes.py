"""Passes of Ray Data over catalogue rows: a histogram of HEALPix cells, a scattering by pixel, one task a pixel."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray
from ray.data import DataContext, ExecutionResources

from lenspipe.catalog.append import pixels_near
from lenspipe.catalog.columns import HEALPIX
from lenspipe.catalog.hats import HIGHEST_ORDER, Pixel, write_pixel
from lenspipe.catalog.pieces import BATCH_ROWS, cell_counts, gather, merge_pixel, scatter
from lenspipe.errors import ConfigError
from lenspipe.scan.attempts import MAX_DEATHS, begin, clear, deaths
from lenspipe.sky.healpix import N_BASE

MAX_BLOCKS = 10_000
NO_PROGRESS_S = 900
SCRATCH = ".scatter"
REFUSED = "refused"
"""Column of an answer that says what is wrong with the request."""


class Reader(Protocol):
    """What turns a source (a row of `sources_of`) into catalogue rows, on any node."""

    def index(self, source: dict[str, Any]) -> NDArray[np.int64]:
        """``_healpix_29`` of its rows."""
        ...

    def chunks(self, source: dict[str, Any]) -> Iterator[pa.Table]:
        """Its rows in catalogue schema, some at a time."""
        ...


class CatalogRows:
    """Rows that are in catalogue schema already."""

    def index(self, source: dict[str, Any]) -> NDArray[np.int64]:
        """``_healpix_29`` of a row group."""
        with pq.ParquetFile(source["path"]) as file:
            return np.asarray(file.read_row_group(source["group"], columns=[HEALPIX])[HEALPIX].to_numpy())

    def chunks(self, source: dict[str, Any]) -> Iterator[pa.Table]:
        """Rows of a row group."""
        with pq.ParquetFile(source["path"]) as file:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[source["group"]]):
                yield pa.Table.from_batches([batch])


def sources_of(files: Sequence[Path], *, is_new: bool = True) -> pa.Table:
    """
    Row groups of Parquet files, one row each: what one task reads.

    Parameters
    ----------
    files : sequence of Path
    is_new : bool
        Whether the rows are to be added, rather than in the catalogue already.
    """
    rows, begun = [], 0
    for path in files:
        footer = pq.read_metadata(path)
        for group in range(footer.num_row_groups):
            rows.append({"path": str(path), "group": group, "begun": begun, "is_new": is_new})
            begun += footer.row_group(group).num_rows
    kinds = [("path", pa.string()), ("group", pa.int64()), ("begun", pa.int64()), ("is_new", pa.bool_())]
    return pa.Table.from_pylist(rows, pa.schema(kinds))


@dataclasses.dataclass(frozen=True)
class Passes:
    """Passes over sources and pixels on the Ray that runs."""

    root: Path
    reader: Reader
    radius_arcsec: float
    n_worker: int | None

    @contextlib.contextmanager
    def scratch(self) -> Iterator[None]:
        """The tree's folder, with a folder for what travels between tasks."""
        (self.root / "dataset").mkdir(parents=True, exist_ok=True)
        (self.root / SCRATCH).mkdir()
        try:
            yield
        finally:
            shutil.rmtree(self.root / SCRATCH, ignore_errors=True)

    def histogram(self, sources: pa.Table, *, near: list[Pixel] | None = None) -> tuple[NDArray[np.int64], list[int]]:
        """Rows in each cell of the highest order, and which pixels of ``near`` hold a row or have one close by."""
        counts = np.zeros(N_BASE * 4**HIGHEST_ORDER, np.int64)
        close: set[int] = set()
        for found in self.each("count", sources, partial(_count, self.reader, near or [], self.radius_arcsec)):
            of_cells = pc.equal(found["kind"], "cell")
            cells = found.filter(of_cells)
            np.add.at(counts, cells["number"].to_numpy(), cells["n"].to_numpy())
            close.update(found.filter(pc.invert(of_cells))["number"].to_pylist())
        return counts, sorted(close)

    def merge(
        self, sources: pa.Table, pixels: list[Pixel], *, keep: Sequence[Pixel] = ()
    ) -> list[tuple[Pixel, dict[str, Any]]]:
        """Write the files of pixels; one of ``keep`` that does not change is not written."""
        if not pixels:
            return []
        scratch = self.root / SCRATCH
        work = partial(_scatter, self.reader, pixels, scratch, self.radius_arcsec)
        pieces = pa.concat_tables([t for t in self.each("scatter", sources, work) if t.num_rows])
        pieces = pieces.sort_by([(key, "ascending") for key in ("pixel", "source", "batch")])
        starts = np.searchsorted(pieces["pixel"].to_numpy(), np.arange(len(pixels) + 1))
        lists = {
            key: pa.ListArray.from_arrays(starts.astype(np.int32), pieces[key].combine_chunks())
            for key in ("path", "batch", "is_new")
        }
        items, kept = _pixel_items(pixels), set(keep)
        for key, values in lists.items():
            items = items.append_column(key, values)
        items = items.append_column("keep", pa.array([pixel in kept for pixel in pixels]))
        work = partial(_gather, self.root, self.radius_arcsec)
        found = [row for table in self.each("gather", items, work) for row in table.to_pylist()]
        return [(pixels[row["number"]], row) for row in sorted(found, key=lambda row: int(row["number"]))]

    def close_ranks(self, pixels: Sequence[Pixel]) -> None:
        """Make ranks 1, 2, 3 ... where merging left gaps; the driver holds eight bytes a row."""
        items = _pixel_items(pixels)
        there = [table["rank"].to_numpy() for table in self.each("ranks", items, partial(_ranks, self.root))]
        known = ray.put(np.sort(np.concatenate([np.zeros(0, np.int64), *there])))
        for _ in self.each("close", items, partial(_rewrite_ranks, self.root, known)):
            pass

    def each(self, stage: str, items: pa.Table, work: Callable[[dict[str, Any], int], pa.Table]) -> Iterator[pa.Table]:
        """Answers of ``work`` for every row of a table, each by a Ray Data task of its own, as they come."""
        if not items.num_rows:
            return
        items = items.append_column("item", pa.array(np.arange(items.num_rows)))
        per_block = -(-items.num_rows // MAX_BLOCKS)
        blocks = [items.slice(i, per_block).combine_chunks() for i in range(0, items.num_rows, per_block)]
        guarded = partial(_one_item, work, self.root / SCRATCH / "attempts", stage)
        with DataContext.current(_context(self.n_worker)):
            answers = ray.data.from_arrow(blocks).map_batches(guarded, batch_size=1, batch_format="pyarrow", num_cpus=1)
            for answer in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                if REFUSED in answer.column_names:
                    message, facts = json.loads(answer[REFUSED].drop_null()[0].as_py())
                    raise ConfigError(message, **facts)
                yield answer


def _context(n_worker: int | None) -> DataContext:
    """Ray Data's settings for a catalogue; the caller's own stay as they are."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    if n_worker is not None and n_worker < ray.cluster_resources().get("CPU", 0):
        context.execution_options.resource_limits = ExecutionResources.for_limits(cpu=n_worker)
    return context


def _one_item(work: Callable[[dict[str, Any], int], pa.Table], attempts: Path, stage: str, batch: pa.Table) -> pa.Table:
    """Work on one row, unless it has killed its process before: Ray would try for ever."""
    (row,) = batch.to_pylist()
    number = row.pop("item")
    died = deaths(attempts, stage, str(number))
    try:
        if died >= MAX_DEATHS:
            raise ConfigError(
                "the process that wrote the catalogue died again and again at one pixel or file, for want of memory "
                "perhaps; give fewer --workers",
                stage=stage,
                item=number,
                deaths=died,
            )
        begin(attempts, stage, str(number))
        answer = work(row, number)
    except ConfigError as error:  # as data: what a task raises, Ray hands on as text
        return pa.table({REFUSED: [json.dumps([error.message, error.facts])]})
    clear(attempts, stage, str(number))
    return answer


def _pixel_items(pixels: Sequence[Pixel]) -> pa.Table:
    return pa.table({"order": [p.order for p in pixels], "number": [p.number for p in pixels]})


def _count(reader: Reader, near: list[Pixel], radius_arcsec: float, source: dict[str, Any], _: int) -> pa.Table:
    index = reader.index(source)
    cells, n = cell_counts(index)
    close = [near.index(pixel) for pixel in pixels_near(index, near, radius_arcsec)] if near else []
    kind = ["cell"] * len(cells) + ["pixel"] * len(close)
    numbers = np.concatenate([cells, np.array(close, np.int64)])
    return pa.table({"kind": pa.array(kind, pa.string()), "number": numbers, "n": [*n.tolist(), *([0] * len(close))]})


def _scatter(
    reader: Reader, pixels: list[Pixel], scratch: Path, radius_arcsec: float, source: dict[str, Any], number: int
) -> pa.Table:
    file = scratch / f"{number:06d}.arrow"
    pieces = scatter(reader.chunks(source), pixels, file, radius_arcsec=radius_arcsec)
    n = len(pieces)
    return pa.table(
        {
            "pixel": pa.array([p.pixel for p in pieces], pa.int64()),
            "source": pa.array([number] * n, pa.int64()),
            "path": pa.array([p.path for p in pieces], pa.string()),
            "batch": pa.array([p.batch for p in pieces], pa.int64()),
            "is_new": pa.array([source["is_new"]] * n, pa.bool_()),
        }
    )


def _gather(root: Path, radius_arcsec: float, item: dict[str, Any], number: int) -> pa.Table:
    pixel = Pixel(item["order"], item["number"])
    there = list(zip(item["path"], item["batch"], strict=True))
    tables = {new: [pair for pair, flag in zip(there, item["is_new"], strict=True) if flag == new] for new in (0, 1)}
    parts = [gather(pairs) for pairs in tables.values() if pairs]
    rows = pa.concat_tables(parts)
    n_old = parts[0].num_rows if tables[0] else 0
    del parts
    is_new = np.arange(rows.num_rows) >= n_old
    merged = merge_pixel(rows, pixel, radius_arcsec=radius_arcsec, is_new=is_new)
    del rows
    changed = merged.changed or not item["keep"]
    if changed and merged.rows.num_rows:
        write_pixel(root / "dataset", pixel, merged.rows)
    counts = {"n_row": merged.rows.num_rows, "n_new": merged.n_new, "n_merged": merged.n_merged}
    return pa.Table.from_pylist([{"number": number, **counts, "changed": changed}])


def _ranks(root: Path, item: dict[str, Any], _: int) -> pa.Table:
    path = root / "dataset" / Pixel(item["order"], item["number"]).path
    rank = pq.read_table(path, columns=["rank"], partitioning=None)["rank"]
    return pa.table({"rank": rank.drop_null()})


def _rewrite_ranks(root: Path, known: ray.ObjectRef, item: dict[str, Any], _: int) -> pa.Table:
    pixel = Pixel(item["order"], item["number"])
    rows = pq.read_table(root / "dataset" / pixel.path, partitioning=None)
    place, missing = rows.schema.get_field_index("rank"), rows["rank"].is_null().to_numpy()
    closed = np.searchsorted(ray.get(known), pc.fill_null(rows["rank"], 0).to_numpy()) + 1
    rows = rows.set_column(place, rows.schema.field(place), pa.array(closed, pa.int64(), mask=missing))
    write_pixel(root / "dataset", pixel, rows)
    return pa.table({"n_row": [rows.num_rows]})
