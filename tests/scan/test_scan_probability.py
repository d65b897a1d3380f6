"""A calibrated model gives probabilities at the prior that was asked for, from the scan to the catalogue."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from click.testing import CliRunner
from sky import NOISE_NJY, write_tile

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.cli.scan import command
from lenspipe.errors import ConfigError
from lenspipe.nn.card import read_card, write_card
from lenspipe.nn.outputs import Calibration
from lenspipe.scan.after.explain import explain
from lenspipe.scan.prior import survey_prior
from lenspipe.stats.calibrate import calibration_digest
from lenspipe.survey.layout import read_layout

CALIBRATION = Calibration(
    method="platt", slope=0.7, intercept=-0.4, prior=0.4, n_lens=40, n_other=60, data="stamps of an example"
)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("calibrated") / "tiny"
    shutil.copytree(tiny_model, folder)
    write_card(folder, read_card(folder).with_outputs(calibration=CALIBRATION))
    return folder


def _scan(folder: Path, *options: str) -> None:
    result = CliRunner().invoke(command, [*options, "--runner", "local", "--out", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small tile in the form of the sample survey, whose layout says how common lenses are."""
    folder = tmp_path_factory.mktemp("probability") / "tiles"
    write_tile(folder, "sample-1", shape=(300, 300), n_source=40)
    for path in folder.glob("*.fits"):
        pixels, header = fits.getdata(path), fits.getheader(path)
        planes = (("IMAGE", pixels), ("INVVAR", np.full_like(pixels, NOISE_NJY**-2)))
        hdus = [fits.ImageHDU(plane, header, name=name) for name, plane in planes]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)
    return str(folder)


@pytest.fixture(scope="module")
def run(tiles: str, calibrated: Path) -> Path:
    folder = Path(tiles).parent / "run"
    _scan(folder, tiles, "--survey", "sample", "--model", str(calibrated), "--prior", "0.001")
    return folder


def test_the_odds_of_each_candidate_are_those_of_its_score_at_the_prior(run: Path) -> None:
    rows = pq.read_table(run / "candidates.parquet")
    score, stated = rows["score"].to_numpy(), rows["probability"].to_numpy()
    odds = np.exp(0.7 * np.log(score / (1 - score)) - 0.4) * (0.001 / 0.999) / (0.4 / 0.6)
    assert len(score) > 20
    np.testing.assert_allclose(stated, odds / (1 + odds), rtol=1e-9)


def test_the_run_and_the_catalogue_say_which_prior_and_calibration(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())["probability"]
    assert record["prior"] == 0.001 and record["prior_from"] == "the request"
    assert record["calibration"] == calibration_digest(CALIBRATION)
    rows = pq.read_table(run / "catalog" / "candidates.parquet")
    assert set(rows["prior"].to_pylist()) == {0.001}
    assert set(rows["calibration"].to_pylist()) == {calibration_digest(CALIBRATION)}
    scanned = pq.read_table(run / "candidates.parquet", columns=["candidate_id", "probability"]).to_pylist()
    of_scan = {row["candidate_id"]: row["probability"] for row in scanned}
    assert all(row["probability"] == of_scan[row["candidate_id"]] for row in rows.to_pylist())
    assert json.loads((run / "catalog" / "provenance.json").read_text())["probability"] == record


def test_a_candidate_explained_has_its_probability_again(run: Path) -> None:
    candidate = pq.read_table(run / "candidates.parquet")["candidate_id"][0].as_py()
    found = explain(open_run_folder(run), candidate)
    assert found.same and found.again is not None and found.again["probability"] is not None


def test_a_row_without_a_score_has_no_prior(run: Path) -> None:
    rows = pq.read_table(run / "catalog" / "candidates.parquet")
    for name in ("prior", "calibration"):
        assert rows[name].null_count == rows["probability"].null_count == rows["score"].null_count


def test_a_prior_without_a_calibration_is_refused_before_the_folder_is_made(
    tiles: str, tmp_path: Path, tiny_model: Path
) -> None:
    asked = [tiles, "--survey", "sample", "--model", str(tiny_model), "--prior", "0.01"]
    with pytest.raises(ConfigError, match="needs a model with a calibration"):
        _scan(tmp_path / "run", *asked)
    assert not (tmp_path / "run").exists()


def test_without_a_prior_that_of_the_survey_is_taken_and_said(tmp_path: Path, calibrated: Path, tiles: str) -> None:
    asked = [tiles, "--survey", "sample", "--model", str(calibrated)]
    result = CliRunner().invoke(command, [*asked, "--runner", "local", "--out", str(tmp_path / "a")])
    rows, record = pq.read_table(tmp_path / "a/candidates.parquet"), json.loads((tmp_path / "a/run.json").read_text())
    area, n = record["counts"]["area_deg2"], record["counts"]["candidates"]
    prior = 1600.0 * area / n
    assert record["probability"]["prior"] == pytest.approx(prior)
    assert "painted into the sample" in record["probability"]["prior_from"]
    assert f"Probability at a prior of {prior:.3g} (1600 lenses per deg2" in result.output
    score, stated = rows["score"].to_numpy(), rows["probability"].to_numpy()
    odds = np.exp(0.7 * np.log(score / (1 - score)) - 0.4) * (prior / (1 - prior)) / (0.4 / 0.6)
    np.testing.assert_allclose(stated, odds / (1 + odds), rtol=1e-9)
    assert set(pq.read_table(tmp_path / "a/catalog/candidates.parquet")["prior"].to_pylist()) == {
        record["probability"]["prior"]
    }
    found = explain(open_run_folder(tmp_path / "a"), rows["candidate_id"][0].as_py())
    assert found.same and found.again is not None and found.again["probability"] == stated[0]


def test_where_nobody_says_how_common_lenses_are_there_is_no_probability(
    tmp_path: Path, calibrated: Path, tiles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    layout = tmp_path / "mine.toml"
    text = resources.files("lenspipe.survey").joinpath("layouts/sample.toml").read_text()
    layout.write_text("\n".join(line for line in text.splitlines() if not line.startswith("lenses_")))
    asked = [tiles, "--survey", str(layout), "--model", str(calibrated)]
    result = CliRunner().invoke(command, [*asked, "--runner", "local", "--out", str(tmp_path / "a")])
    rows = pq.read_table(tmp_path / "a/candidates.parquet")
    assert rows["score"].null_count == 0
    assert rows["probability"].null_count == rows.num_rows
    assert "does not say how common lenses are; give --prior" in result.output
    assert f"Next:\n  uv run lenspipe gallery {tmp_path / 'a'}  # a web page" in result.output
    assert "lenses_per_deg2" in json.loads((tmp_path / "a/run.json").read_text())["probability"]["why"]
    found = explain(open_run_folder(tmp_path / "a"), rows["candidate_id"][0].as_py())
    assert found.same


def test_a_prior_of_more_than_half_is_no_expectation() -> None:
    found = survey_prior(read_layout("sample"), area_deg2=1.0, n_candidate=2000)
    assert found.value is None and "more than half" in found.said
    assert survey_prior(read_layout("sample"), area_deg2=1.0, n_candidate=0).value is None
