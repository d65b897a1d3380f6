"""A handful of examples makes a finder: its network gives what was fitted, and wrong labels make none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from toy_stamps import SIZE, make_stamps

from lenspipe.cli.shots import RULES as CHOICES
from lenspipe.cli.shots import command
from lenspipe.errors import ConfigError
from lenspipe.finder.shots import RULES, finder_of_shots, fit, left_out
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import ModelCard, Stretch, read_card
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.outputs import Embed, Find
from lenspipe.nn.registry import build
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.generated import FIELD
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    return make_stamps(tmp_path_factory.mktemp("shots") / "stamps", 24, n_part=1)


def model_of(folder: Path, family: str, outputs: Find | Embed, **settings) -> Path:
    torch.manual_seed(3)
    card = ModelCard(
        name="base",
        family=family,
        settings=settings,
        outputs=outputs,
        bands=("g", "r"),
        pixel_scale_arcsec=0.2,
        scale_tolerance=0.1,
        min_scale_arcsec=0.15,
        max_scale_arcsec=0.3,
        stamp_px=SIZE,
        stretch=Stretch(band_scales=(0.04, 0.04), alpha=0.2, q=1.0),
    )
    save_model(folder, build(family, 2, SIZE, card.n_out, **settings), card)
    return folder


def area(model: Path, data: Path) -> float:
    stamps = StampSet.open(data)
    spec, predictor = stamps.images["image"], Predictor(model)
    pixels = stamps.read_images("image", np.arange(stamps.n))
    images = stamp_input(pixels, bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=predictor.card)
    return auroc(ScoreCounts.of(predictor.predict(images).score, stamps.column("label") == "lens"))


@pytest.mark.parametrize(
    ("family", "outputs", "settings", "rule"),
    [
        ("small-cnn", Find(), {"width": 8}, "prototypes"),
        ("small-cnn", Embed(size=4, method="simclr"), {"width": 8}, "linear"),
        ("graph", Find(), {"width": 16, "patch_px": 3}, "prototypes"),
    ],
)
def test_examples_make_a_finder_of_any_trunk(shots, tmp_path, family, outputs, settings, rule):
    base = model_of(tmp_path / "base", family, outputs, **settings)
    unseen = make_stamps(tmp_path / "unseen", 80, n_part=1, contrast=6.5)
    card = finder_of_shots(base, [shots], tmp_path / "finder", rule=rule)
    assert area(tmp_path / "finder", unseen) > 0.9
    assert card.task == "find" and card.metrics["left_out"]["auc"] > 0.8
    assert card.training["n_lens"] + card.training["n_other"] == 24
    with pytest.raises(ConfigError, match="holds a model already"):
        finder_of_shots(base, [shots], tmp_path / "finder")


def test_with_labels_at_random_there_is_none(rng):
    vectors, truth = rng.normal(size=(40, 8, 30)), np.arange(40) % 2 == 0
    weight, constant = fit(vectors, truth, "prototypes")
    fresh = rng.normal(size=(400, 30)) @ weight + constant
    assert abs(auroc(ScoreCounts.of(1 / (1 + np.exp(-fresh)), np.arange(400) % 2 == 0)) - 0.5) < 0.1


def test_one_candidate_twice_does_not_vouch_for_itself(rng):
    vectors, truth = rng.normal(size=(10, 1, 64)), np.arange(10) < 5
    names = [str(k) for k in range(10)]
    once = left_out(vectors, truth, "prototypes", names)["auc"]
    twice = left_out(np.tile(vectors, (2, 1, 1)), np.tile(truth, 2), "prototypes", names * 2)["auc"]
    assert twice == pytest.approx(once, abs=0.15)
    assert left_out(np.tile(vectors, (2, 1, 1)), np.tile(truth, 2), "prototypes", [*names, *"abcdefghij"])["auc"] > 0.95
    assert left_out(vectors[:6], truth[:6], "prototypes", [*"abcde", "f"])["auc"] is None


def test_a_prototype_is_the_nearer_of_two_means(rng):
    vectors, truth = rng.normal(size=(10, 1, 6)), np.arange(10) < 4
    weight, constant = fit(vectors, truth, "prototypes")
    scaled = (vectors[:, 0] - vectors[:, 0].mean(0)) / vectors[:, 0].std(0)
    apart = [((scaled - scaled[kind].mean(0)) ** 2).sum(1) for kind in (~truth, truth)]
    np.testing.assert_array_equal(vectors[:, 0] @ weight + constant > 0, apart[0] > apart[1])


def test_the_command_says_what_it_made_and_positions_need_a_run(shots, tmp_path):
    base = model_of(tmp_path / "base", "small-cnn", Find(), width=4)
    said = CliRunner().invoke(command, [str(base), "--shots", str(shots), "--out", str(tmp_path / "finder")])
    assert said.exit_code == 0 and "AUC of each example by the rest" in said.output
    assert read_card(tmp_path / "finder").name == "finder"
    assert tuple(RULES) == CHOICES
    with pytest.raises(ConfigError, match="named twice, and would count twice"):
        finder_of_shots(base, [shots, shots / "." / ""], tmp_path / "x")
    table = pq.read_table(shots / "part-0.parquet").drop_columns("split")
    n = table.num_rows
    made = table.append_column("split", pa.array(["train"] * n)).append_column(FIELD, pa.array(["g@1"] * n))
    (tmp_path / "made").mkdir()
    pq.write_table(made, tmp_path / "made" / "part.parquet")
    with pytest.raises(ConfigError, match="nobody grades stamps that a generator made"):
        finder_of_shots(base, [tmp_path / "made"], tmp_path / "x")
    grades = ["--lens-from", "0.4", "--nonlens-to", "3"]
    contrary = CliRunner().invoke(command, [str(base), "--shots", str(shots), "--out", str(tmp_path / "x"), *grades])
    assert "0 <= grade of no lens < grade of a lens" in str(contrary.exception)
    (tmp_path / "grades.csv").write_text("ra,dec,grade\n180,0,3\n")
    with pytest.raises(ConfigError, match="graded positions are cut from a run"):
        finder_of_shots(base, [tmp_path / "grades.csv"], tmp_path / "x")
