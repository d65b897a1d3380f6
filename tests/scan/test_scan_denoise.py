# A scan through a denoiser scores denoised cutouts, says which and what its gate said, and refuses what does not fit.

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from denoisers import write_denoiser
from sky import write_tile

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.cli.scan import command
from lenspipe.errors import ConfigError
from lenspipe.infer.denoise import Denoiser
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import read_card, write_card
from lenspipe.scan.after.explain import explain


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory) -> Path:
    return write_denoiser(tmp_path_factory.mktemp("models") / "denoise", metrics={"gate": {"passed": False}})


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    write_tile(folder, "a")
    return folder


def scan(tiles, out, *options):
    arguments = [str(tiles), "--runner", "local", "--no-catalog", "--out", str(out), *map(str, options)]
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def runs(tiles, denoiser, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    scan(tiles, folder / "raw", "--model", tiny_model)
    result = scan(tiles, folder / "denoised", "--model", tiny_model, "--denoiser", denoiser)
    assert result.exit_code == 0, result.output
    return folder, result


def test_scores_differ_and_all_else_stays(runs):
    folder, _ = runs
    raw, denoised = (
        pq.read_table(folder / name / "candidates.parquet").sort_by("candidate_id") for name in ("raw", "denoised")
    )
    assert raw.num_rows == denoised.num_rows > 5
    assert raw.drop_columns(["score"]).equals(denoised.drop_columns(["score"]))
    assert (raw["score"].to_numpy() != denoised["score"].to_numpy()).all()


def test_the_run_says_the_verdict(runs, denoiser):
    folder, result = runs
    assert "FAILED its gate" in result.output
    record = json.loads((folder / "denoised" / "run.json").read_text())["denoiser"]
    assert record["verdict"] == "failed" and record["ratio"] == 4.0
    assert record["digest"] == Denoiser(denoiser).digest
    assert json.loads((folder / "raw" / "run.json").read_text())["denoiser"] is None


def test_a_candidate_explained_is_denoised_again(runs):
    run = open_run_folder(runs[0] / "denoised")
    name = pq.read_table(run.folder / "candidates.parquet")["candidate_id"][0].as_py()
    explained = explain(run, name)
    assert explained.same, explained.differs


def test_finders_of_denoised_stamps_and_of_both_are_shown_what_they_were_trained_on(
    tiny_model, tiles, denoiser, tmp_path
):
    folder = tmp_path / "denoised-finder"
    shutil.copytree(tiny_model, folder)
    write_card(folder, read_card(folder).model_copy(update={"sees": "denoised"}))
    with pytest.raises(ConfigError, match="trained on denoised stamps; name its denoiser"):
        scan(tiles, tmp_path / "none", "--model", folder)
    assert scan(tiles, tmp_path / "run", "--model", folder, "--denoiser", denoiser).exit_code == 0
    scored = pq.read_table(tmp_path / "run" / "candidates.parquet")["score"]
    assert scored.null_count == 0


def test_both_raw_and_denoised_are_channels_of_one_stamp(tmp_path, tiles, denoiser, tiny_model):
    import torch

    from lenspipe.nn.checkpoint import save_model
    from lenspipe.nn.registry import build

    torch.manual_seed(2)
    card = read_card(tiny_model).model_copy(update={"sees": "both", "name": "both"})
    save_model(tmp_path / "both", build("small-cnn", 6, 33, width=4, dropout=0.0), card)
    assert scan(tiles, tmp_path / "run", "--model", tmp_path / "both", "--denoiser", denoiser).exit_code == 0
    scores = pq.read_table(tmp_path / "run" / "candidates.parquet")["score"].to_numpy()
    assert np.unique(scores).size == scores.size
    assert Scorer(tmp_path / "both").card.n_channel == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "none"], "no model scores"),
        (["--denoiser", "{finder}"], "is not a denoiser"),
        (["--denoiser", "{u}"], "bands that the finder does not take"),
        (["--config", "{config}"], "was not trained with this exposure ratio"),
    ],
)
def test_a_denoiser_that_does_not_fit_is_refused_before_any_work(
    tmp_path, tiles, denoiser, tiny_model, options, message
):
    (tmp_path / "c.toml").write_text("[score]\ndenoise_ratio = 100.0\n")
    u_only = write_denoiser(tmp_path / "u", bands=("u",))
    filled = [o.format(finder=tiny_model, u=u_only, config=tmp_path / "c.toml") for o in options]
    base = [] if "--model" in filled else ["--model", tiny_model]
    base += [] if "--denoiser" in filled else ["--denoiser", denoiser]
    with pytest.raises(ConfigError, match=message):
        scan(tiles, tmp_path / "run", *filled, *base)
    assert not (tmp_path / "run").exists()
