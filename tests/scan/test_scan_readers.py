"""A reader is one file: what it says of candidates becomes columns, wherever it fits, with what others said before."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from sky import write_tile

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.errors import ConfigError
from lenspipe.runner import Silent, here
from lenspipe.scan import models, scoring
from lenspipe.scan.after.explain import explain
from lenspipe.scan.after.partial import finalize_partial
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.local import scan_local
from lenspipe.scan.readers.contract import Candidates, CutoutKey, Reader, Work
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.schema import field
from lenspipe.survey.layout import read_layout


@dataclasses.dataclass(frozen=True)
class Peak(Reader):
    """The brightest pixel of a cutout in one band, times the finder's score: what a reader of one's own looks like."""

    band: str
    needs_score: bool = True
    name: str = "peak"
    digest: str = "0123456789abcdef"

    @property
    def takes(self) -> tuple[str, ...]:
        return ("score",) if self.needs_score else ()

    @property
    def demands(self) -> tuple[str, ...]:
        return (self.band,)

    def cutouts(self, pixel_scale_arcsec: float) -> tuple[CutoutKey, ...]:
        return (CutoutKey((self.band,), 5),)

    def fits(self, bands: tuple[str, ...], pixel_scale_arcsec: float) -> str | None:
        return None if self.band in bands else f"no {self.band}"

    def fields(self) -> list[pa.Field]:
        return [field("peak", pa.float64(), "Brightest pixel", unit="nJy", ucd="phot.flux.density")]

    def record(self) -> dict[str, Any]:
        return {"peak": {"name": self.name, "digest": self.digest}}

    def digests(self) -> dict[str, str]:
        return {"peak": self.digest}

    def load(self, device: str) -> Work:
        def read(candidates: Candidates) -> dict[str, Any]:
            (key,) = self.cutouts(candidates.pixel_scale_arcsec)
            score = candidates.said["score"] if self.needs_score else 1.0
            return {"peak": candidates.cutouts[key].max(axis=(1, 2, 3)) * score}

        return read


def scan(tiles: Path, out: Path, model: object, **config: Any) -> pa.Table:
    raw = {"shard": {"core_px": 128, "halo_px": 64}, "score": {"model": str(model)}, **config}
    request = ScanRequest((str(tiles),), read_layout("generic"), ScanConfig.model_validate(raw), None)
    run_scan(request, out, here(scan_local), Silent(), resume=False)
    return pq.read_table(out / "candidates.parquet")


@pytest.fixture
def with_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "CHOOSERS", (lambda asked: Peak("r"), *models.CHOOSERS))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of tile b the band r is masked throughout."""
    folder = tmp_path_factory.mktemp("readers") / "tiles"
    write_tile(folder, "a")
    write_tile(folder, "b", seed=1)
    with fits.open(folder / "b_r.fits", mode="update") as hdus:
        hdus[0].data[:] = np.nan
    return folder


@pytest.fixture(scope="module")
def run(tiles: Path, tiny_model: Path) -> Path:
    """A scan with the reader."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "CHOOSERS", (lambda asked: Peak("r"), *models.CHOOSERS))
        scan(tiles, tiles.parent / "run", tiny_model)
    return tiles.parent / "run"


@pytest.mark.usefixtures("with_peak")
def test_a_readers_column_stands_beside_those_of_every_scan(tiles: Path, run: Path, tmp_path: Path) -> None:
    rows = pq.read_table(run / "candidates.parquet")
    assert rows.schema.field("peak").metadata[b"unit"] == b"nJy"
    of_a, of_b = (rows.filter(pa.compute.equal(rows["tile"], name)) for name in ("a", "b"))
    assert of_a.num_rows > 5 and of_b.num_rows > 5
    # the band that it demands, and the finder's, holds no data in b
    assert of_b["peak"].null_count == of_b["score"].null_count == of_b.num_rows
    data = fits.getdata(tiles / "a_r.fits")
    for row in of_a.to_pylist():
        x, y = round(row["x_px"]), round(row["y_px"])
        around = data[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].max()
        assert row["peak"] / row["score"] == pytest.approx(around, abs=5)  # the sky of the tile is 0, within its noise
    record = open_run_folder(run).record
    assert record["peak"]["name"] == "peak" and record["model"]["name"] == "tiny"
    finalize_partial(run, tmp_path / "part")
    assert pq.read_table(tmp_path / "part" / "candidates.parquet").equals(rows)


@pytest.mark.usefixtures("with_peak")
def test_explain_knows_a_readers_column(run: Path) -> None:
    rows = pq.read_table(run / "candidates.parquet")
    found = explain(open_run_folder(run), rows["candidate_id"][0].as_py())
    assert found.same and found.again is not None
    assert found.again["peak"] == rows["peak"][0].as_py() is not None


def test_a_reader_that_needs_no_finder_reads_without_one(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "CHOOSERS", (lambda asked: Peak("r", needs_score=False), *models.CHOOSERS))
    rows = scan(tiles, tmp_path / "run", "none")
    assert rows["score"].null_count == rows.num_rows
    assert rows.filter(pa.compute.equal(rows["tile"], "a"))["peak"].null_count == 0


@pytest.mark.usefixtures("with_peak")
def test_a_reader_whose_need_nobody_gives_is_refused(tiles: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs what no other gives.*model='peak', needs='score'"):
        scan(tiles, tmp_path / "run", "none")
    assert not (tmp_path / "run").exists()


def test_a_run_without_such_readers_has_todays_columns(tiles: Path, tiny_model: Path, tmp_path: Path) -> None:
    from lenspipe.schema import candidates_schema

    assert scan(tiles, tmp_path / "run", tiny_model).schema.equals(candidates_schema(("g", "r", "i")))


@dataclasses.dataclass(frozen=True)
class Slow(Peak):
    """A hundred seconds to load, one for each time that it is shown candidates, of a clock that is told so."""

    clock_s: tuple[list[float], ...] = ()

    def load(self, device: str) -> Work:
        self.clock_s[0][0] += 100.0
        work = super().load(device)

        def read(candidates: Candidates) -> dict[str, Any]:
            self.clock_s[0][0] += 1.0
            return work(candidates)

        return read


def test_loading_a_model_is_no_part_of_the_time_to_score(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = [0.0]
    monkeypatch.setattr(scoring, "time", SimpleNamespace(perf_counter=lambda: clock_s[0]))
    monkeypatch.setattr(models, "CHOOSERS", (lambda asked: Slow("r", needs_score=False, clock_s=(clock_s,)),))
    scan(tiles, tmp_path / "run", "none")
    shards = pq.read_table(tmp_path / "run/shards.parquet").to_pylist()
    of_a = [row["score_s"] for row in shards if row["tile"] == "a" and row["n_candidate"]]
    assert of_a and of_a == [1.0] * len(of_a)
    assert clock_s[0] == 100.0 + len(of_a)
