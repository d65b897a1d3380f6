"""The commands on real pixels: a piece of the KiDS tile to hosts, painted stamps and what `ground-gri` misses."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from pictures import drawn

from benchmarks.studies.finder_survey.crop import KEPT
from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.completeness.config import CompletenessConfig
from lenspipe.completeness.measure import measure_completeness
from lenspipe.completeness.selection import recovered
from lenspipe.finder.request import FinderRequest
from lenspipe.finder.run import make_finder
from lenspipe.finder.settings import FinderSettings
from lenspipe.runner import SILENT, here
from lenspipe.scan.local import scan_local
from lenspipe.stamps.format import StampSet
from lenspipe.survey.layout import read_layout
from lenspipe.toml import put_over

FWHM_ARCSEC = {"g": 1.11, "r": 0.86, "i": 0.92}
ROWS, COLUMNS = slice(0, 1690), slice(0, 1300)


@pytest.mark.long
def test_a_piece_of_kids_gives_hosts_stamps_and_a_selection_function(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "tile").mkdir()
    for band in "gri":
        with fits.open(real_data / "tiles/kids_viking" / f"{band}.fits") as hdus:
            piece = fits.ImageHDU(hdus[1].data[ROWS, COLUMNS].astype("f4"))
            piece.header.update({c.keyword: c.value for c in hdus[1].header.cards if c.keyword.startswith(KEPT)})
        fits.HDUList([fits.PrimaryHDU(), piece]).writeto(tmp_path / "tile" / f"{band}.fits")
    layout = put_over(read_layout("kids"), {f"psf_fwhm_arcsec.{b}": w for b, w in FWHM_ARCSEC.items()}, origin="test")
    settings = put_over(FinderSettings(), {"stamps.count": 60}, origin="test")
    request = FinderRequest((str(tmp_path / "tile"),), layout, settings, pretrained="ground-gri")
    out = tmp_path / "mine"
    record = make_finder(request, out, progress=SILENT, until="stamps").record
    assert sum(record["hosts_by_split"].values()) >= 12 and record["sources"]["star"] >= 20, record
    stamps = StampSet.open(out / "stamps")
    assert stamps.images["image"].pixel_scale_arcsec == 0.27 and set(stamps.column("label")) == {"lens", "nonlens"}
    config = CompletenessConfig(count=160, first=(20,), rates=(0.05,), bootstraps=20)
    with drawn():
        outcome = measure_completeness(
            open_run_folder(out / "scan"),
            "ground-gri",
            tmp_path / "sel",
            config,
            seed=1,
            real=None,
            runner=here(scan_local),
            progress=SILENT,
            resume=False,
        )
    assert json.loads((tmp_path / "sel" / "hosts.json").read_text())["colour"] == ["g", "i"]
    table = pq.read_table(tmp_path / "sel" / "injections.parquet")
    found = recovered(table, next(p.threshold for p in outcome.selection.points if p.name == "first 20"))
    bright = table["arc_snr"].to_numpy() >= 30
    assert min(bright.sum(), (~bright).sum()) >= 40
    assert found[bright].mean() > found[~bright].mean() + 0.2, (found[bright].mean(), found[~bright].mean())
