"""Pixels that are changed between reading and search are searched as if the files held them so."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from sky import write_tile

from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext
from lenspipe.scan.models import choose_readers
from lenspipe.scan.plan import plan_tiles, tasks_of
from lenspipe.scan.read import ReadShard
from lenspipe.scan.request import ScanRequest, find_tiles
from lenspipe.scan.scoring import ScoreShards
from lenspipe.scan.shard import scan_shard
from lenspipe.survey.layout import read_layout

SHAPE, BANDS = (300, 300), "gri"
AT_PX = ((70.0, 80.0), (152.0, 140.0), (215.0, 231.0))


def arcs() -> np.ndarray:
    """Three arcs (y, x) in nJy a pixel, brighter than the noise, across the edges of shards."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.zeros(SHAPE)
    for x, y in AT_PX:
        radius, angle = np.hypot(columns - x, rows - y), np.arctan2(rows - y, columns - x)
        image += 150 * np.exp(-(((radius - 7) / 2) ** 2) - (angle / 0.8) ** 2)
    return image.astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Paint:
    arc_njy: np.ndarray

    def __call__(self, read: ReadShard) -> ReadShard:
        for plane in read.pixels.image:
            plane += self.arc_njy[read.task.shard.window.slices]
        return read


def rows_of(tiles: Path, model: Path, scratch: Path, change: Paint | None) -> pa.Table:
    config = ScanConfig.model_validate({"shard": {"core_px": 128, "halo_px": 64}, "score": {"model": str(model)}})
    request = ScanRequest((str(tiles),), read_layout("generic"), config, None)
    found, bands = find_tiles(request)
    readers = choose_readers(config, bands, request.layout).readers
    context = ScanContext(config, request.layout, bands, scratch / "attempts", readers, change)
    score = ScoreShards(context)
    tasks = tasks_of(plan_tiles(found, request.layout, config))
    assert len(tasks) == 4
    table = pa.concat_tables([score(scan_shard(task, context)) for task in tasks])
    return table.drop_columns(["file", "inputs", *(name for name in table.column_names if name.endswith("_s"))])


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tile as it is, and in a folder beside it the same tile with the arcs in its files."""
    folder = tmp_path_factory.mktemp("painted")
    for name in ("plain", "painted"):
        write_tile(folder / name, "a", bands=BANDS, shape=SHAPE, n_source=15)
    for band in BANDS:
        with fits.open(folder / "painted" / f"a_{band}.fits", mode="update") as hdus:
            assert hdus[0].data.dtype == np.dtype(">f4") and hdus[0].header["BUNIT"] == "nJy"  # so that sums are exact
            hdus[0].data = hdus[0].data.astype(np.float32) + arcs()
    return folder


def test_painted_pixels_give_the_rows_of_a_file_with_the_same_arcs(
    tiles: Path, tiny_model: Path, tmp_path: Path
) -> None:
    plain = rows_of(tiles / "plain", tiny_model, tmp_path, None)
    painted = rows_of(tiles / "plain", tiny_model, tmp_path, Paint(arcs()))
    assert painted.equals(rows_of(tiles / "painted", tiny_model, tmp_path, None))
    n_plain, n_painted = (sum(table["n_candidate"].to_pylist()) for table in (plain, painted))
    assert n_painted > n_plain > 10
    assert all(candidate["score"] is not None for row in painted["candidates"].to_pylist() for candidate in row)


def test_a_change_travels_to_workers() -> None:
    config = ScanConfig()
    context = ScanContext(config, read_layout("generic"), ("g",), Path(), change=Paint(arcs()))
    assert np.array_equal(pickle.loads(pickle.dumps(context)).change.arc_njy, arcs())
