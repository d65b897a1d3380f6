"""`lenspipe calibrate`: the card gets the map, the weights stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from evaluate_models_made import make_model
from scipy.stats import ks_2samp
from sklearn.linear_model import LogisticRegression

from lenspipe.cli.calibrate import command
from lenspipe.cli.evaluate import command as evaluate
from lenspipe.errors import ConfigError, ModelError
from lenspipe.infer.score import Scorer
from lenspipe.infer.stamps import stamp_input
from lenspipe.infer.training_set import read_training_set
from lenspipe.nn.card import digest, read_card
from lenspipe.nn.checkpoint import load_model
from lenspipe.stats.calibrate import probability

Data = tuple[Path, dict[str, Any]]


def run(*args: str) -> str:
    result = CliRunner().invoke(command, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "overconfident", [[0, 20, 0, 0]], -10.0)


@pytest.mark.parametrize("method", ["platt", "temperature", "isotonic"])
def test_the_calibrated_copy_loads_and_its_probabilities_hold_on_other_stamps(
    method: str, data: Data, model: Path, tmp_path: Path
) -> None:
    said = run(str(model), "--data", str(data[0]), "--method", method, "--out", str(tmp_path / "copy"))
    assert "calibrated on the other half: ECE" in said
    _, card = load_model(tmp_path / "copy")
    assert card.outputs.calibration is not None and card.outputs.calibration.method == method
    assert digest(tmp_path / "copy") != digest(model) and digest(model) in card.outputs.calibration.data
    assert read_card(model).outputs.calibration is None
    result = CliRunner().invoke(
        evaluate, [str(tmp_path / "copy"), "--data", str(data[0]), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    table = pq.read_table(tmp_path / "out" / "scores.parquet")
    score, stated = table["score"].to_numpy(), table["probability"].to_numpy()
    np.testing.assert_allclose(stated, probability(score, card.outputs.calibration))
    truth = table["is_lens"].to_numpy(zero_copy_only=False)
    assert np.mean((stated - truth) ** 2) < 0.8 * np.mean((score - truth) ** 2)


def test_platt_finds_what_a_logistic_regression_on_the_truth_finds(data: Data, model: Path, tmp_path: Path) -> None:
    run(str(model), "--data", str(data[0]), "--split", "all", "--out", str(tmp_path / "copy"))
    fitted = read_card(tmp_path / "copy").outputs.calibration
    assert fitted is not None
    made = data[1]
    odds = 20 * made["stamps"][:, 1].astype(float).mean(axis=(1, 2)) - 10
    want = LogisticRegression(C=np.inf).fit(odds[:, None], made["truth"])
    assert fitted.slope == pytest.approx(want.coef_[0, 0], rel=0.02)
    assert (fitted.n_lens, fitted.n_other) == (made["truth"].sum(), (1 - made["truth"]).sum())


def test_nothing_is_written_unless_asked(data: Data, model: Path) -> None:
    before = digest(model)
    assert "Nothing was written" in run(str(model), "--data", str(data[0]))
    assert digest(model) == before


def test_in_place_writes_the_card_alone(data: Data, tmp_path: Path) -> None:
    mine = make_model(tmp_path / "mine", [[0, 3, 0, 0]], -1.0)
    weights = (mine / "weights.safetensors").read_bytes()
    run(str(mine), "--data", str(data[0]), "--in-place")
    assert load_model(mine)[1].outputs.calibration is not None
    assert (mine / "weights.safetensors").read_bytes() == weights


def test_a_score_that_falls_with_the_truth_is_refused(data: Data, tmp_path: Path) -> None:
    wrong = make_model(tmp_path / "wrong", [[0, -3, 0, 0]], 1.0)
    with pytest.raises(ConfigError, match="does not rise with the truth"):
        run(str(wrong), "--data", str(data[0]))


def test_a_finder_keeps_its_training_set_and_tells_stamps_that_are_unlike_it(
    data: Data, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    assert "Nothing was written" in run(str(model), "--data", str(data[0]), "--training-set")
    said = run(str(model), "--data", str(data[0]), "--training-set", "--out", str(copy))
    assert "not the stamps that the model was trained on" in said
    card = read_card(copy)
    assert card.training_set is not None and (card.training_set.n, card.training_set.n_held_out) == (300, 300)
    assert "training_set" not in (model / "card.json").read_text(), "older cards stay as they are"
    familiar, scorer = read_training_set(copy, card), Scorer(copy)
    stamps = data[1]["stamps"][data[1]["split"] == "test"]

    def told(pixels: Any) -> Any:
        seen = stamp_input(pixels, bands=("g", "r"), pixel_scale_arcsec=0.25, card=card)
        scores, features = scorer.score_with_features(seen)
        np.testing.assert_array_equal(scores, Scorer(model).score_prepared(seen))
        np.testing.assert_array_equal(features, scorer.features(seen))
        return familiar.distance(features)

    # of two samples: 300 held-out stamps are themselves drawn
    assert ks_2samp(told(stamps), familiar.held_out).pvalue > 0.01
    assert familiar.quantile(told(stamps[:, ::-1])).mean() > 0.9, "bands the wrong way round"
    run(str(copy), "--data", str(data[0]), "--out", str(tmp_path / "calibrated"))
    again = read_training_set(tmp_path / "calibrated", read_card(tmp_path / "calibrated"))
    np.testing.assert_array_equal(again.whitening, familiar.whitening)
    (copy / "training_set.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="not what its card was written for"):
        read_training_set(copy, card)
