"""`lenspipe calibrate` of a classifier: the rule goes into the card, and its cost is that of stamps held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from evaluate_models_made import make_data, make_model

from lenspipe.cli.calibrate import command
from lenspipe.cli.evaluate import command as evaluate
from lenspipe.errors import ConfigError
from lenspipe.nn.card import read_card

CLASSES = ("no_substructure", "subhalo", "vortex")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    make_data(folder, 900, labels=CLASSES)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Logits that grow with the level as those of a Gaussian about 0, 1 and 2 do."""
    weight = [[0, 2.0 * k, 0, 0] for k in range(3)]
    return make_model(tmp_path / "three", weight, [-float(k * k) for k in range(3)], task="classify", classes=CLASSES)


def run(*args: object) -> str:
    result = CliRunner().invoke(command, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_rule_keeps_the_accuracy_that_was_asked_and_its_cost_is_measured_on_the_test_split(
    data: Path, model: Path, tmp_path: Path
) -> None:
    said = run(model, "--data", data, "--accuracy", "0.8", "--in-place")
    assert "split test: " in said and "PSF up to not known" in said
    card = read_card(model)
    assert card.outputs.abstention is not None and card.outputs.abstention.least_confidence is not None
    out = tmp_path / "report"
    done = CliRunner().invoke(evaluate, [str(model), "--data", str(data), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((out / "metrics.json").read_text())["abstention"]
    stored = card.metrics["abstention"]
    assert {key: stored[key] for key in found} == found
    rows = pq.read_table(out / "scores.parquet").to_pandas()
    p = rows[[f"probability_{name}" for name in CLASSES]].to_numpy()
    right = rows["said"].to_numpy() == rows["label"].to_numpy()
    kept = p.max(axis=1) >= card.outputs.abstention.least_confidence
    masked = sum(n for reason, n in found["reasons"].items() if reason != "confidence")
    assert masked < 0.1 * len(rows)  # the faintest and smallest by the limits of what was seen
    assert found["kept"]["n"] == len(rows)
    assert abs(found["kept"]["k"] - kept.sum()) <= masked
    assert found["accuracy_kept"]["value"] == pytest.approx(right[kept].mean(), abs=0.03)
    assert found["accuracy_kept"]["value"] > 0.75 > right.mean() + 0.05
    assert "By its rule it keeps" in (out / "report.html").read_text()


def test_a_classifier_that_knows_nothing_always_abstains(data: Path, tmp_path: Path) -> None:
    blind = make_model(tmp_path / "blind", [[0.001, 0, 0, 0], [0] * 4, [0] * 4], 0.0, task="classify", classes=CLASSES)
    assert "it always abstains" in run(blind, "--data", data, "--in-place")
    found = read_card(blind).metrics["abstention"]
    assert found["kept"]["k"] == 0 and found["accuracy_kept"]["value"] is None


def test_the_accuracy_of_a_finder_is_not_asked_for(data: Path, tmp_path: Path) -> None:
    finder = make_model(tmp_path / "finder", [[0, 1, 0, 0]])
    with pytest.raises(ConfigError, match="about classifiers"):
        run(finder, "--data", data, "--accuracy", "0.9")


def test_the_widest_psf_is_that_of_the_training_split(tmp_path: Path) -> None:
    from lenspipe.evaluate.abstention import widest_psf_of
    from lenspipe.simulate.recipe import read_recipe
    from lenspipe.simulate.rows import simulate_rows
    from lenspipe.stamps.format import StampSet, write_part

    rows = simulate_rows(read_recipe("substructure-2"), seed=1, items=range(4))
    write_part(rows.set_column(rows.schema.get_field_index("split"), "split", [["train"] * 4]), tmp_path, "part-0")
    widest = widest_psf_of(StampSet.open(tmp_path), ("VIS", "Y"))
    assert widest == {"VIS": pytest.approx(1.05 * np.max(rows["seeing_VIS_arcsec"].to_numpy()), rel=1e-4)}
