"""The gates of a generator: what is as good as taken passes, a copier fails, and so does what breaks the physics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from toy_stamps import make_stamps

from lenspipe.cli import group
from lenspipe.errors import ConfigError
from lenspipe.evaluate.generator_gates import Sets, likeness, memorised, physics, verdict_of
from lenspipe.evaluate.report import ReportSettings, evaluate_models
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import read_card, verdict

N, SIDE = 120, 16


def drawn(rng: np.random.Generator, n: int) -> np.ndarray:
    """Two opposite arcs at a random angle, radius and brightness, on noise."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    angle, radius = rng.uniform(0, np.pi, (n, 1, 1)), rng.uniform(3, 6, (n, 1, 1))
    a, b = radius * np.cos(angle), radius * np.sin(angle)
    arcs = sum(np.exp(-((x - s * a) ** 2 + (y - s * b) ** 2) / 3) for s in (1, -1))
    flux = rng.uniform(5, 15, (n, 1, 1))
    return (flux * arcs + rng.normal(0, 1, (n, SIDE, SIDE)))[:, None].astype(np.float32)


@pytest.fixture(scope="module")
def sets() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    return {"made": drawn(rng, N), "held": drawn(rng, N), "train": drawn(rng, 5 * N)}


def flat(stamps: np.ndarray) -> np.ndarray:
    return stamps.reshape(len(stamps), -1)


def small(stamps: np.ndarray) -> np.ndarray:
    return flat(stamps.reshape(len(stamps), SIDE // 2, 2, SIDE // 2, 2).mean((2, 4)))


def test_new_stamps_are_no_copies_and_planted_copies_are_found(sets, rng):
    held, train_ = small(sets["held"]), small(sets["train"])
    assert memorised(small(sets["made"]), held, train_)["passed"]
    copies = sets["train"][:N]
    assert memorised(small(copies), held, train_)["share"] == 1
    tenth = np.concatenate([copies[: N // 10], sets["made"][N // 10 :]])
    assert not memorised(small(tenth), held, train_)["passed"]
    noisier = copies + rng.normal(0, 0.5, copies.shape)
    assert not memorised(small(noisier), held, train_)["passed"]
    blurred = sets["made"] * 0.9 + 0.1 * sets["made"].mean(0)  # less noisy than any stamp, and no copy
    assert memorised(small(blurred), held, train_)["passed"]


def test_physics_holds_for_stamps_of_the_same_sky_and_each_law_can_fail(sets):
    def broken(made: np.ndarray) -> set[str]:
        found = physics({"lens": Sets(made.astype(np.float32), sets["held"], sets["train"])}, ("g",))
        assert found["passed"] == all(row["passed"] for row in found["rows"])
        return {row["quantity"] for row in found["rows"] if not row["passed"]}

    made, half = sets["made"], sets["made"].copy()
    half[..., : SIDE // 2] = np.random.default_rng(1).normal(0, 1, half[..., : SIDE // 2].shape)
    assert broken(made) == set()
    assert {"flux_g", "opposition"} <= broken(half)
    assert "noise_sigma_g" in broken(made + np.random.default_rng(1).normal(0, 1, made.shape))
    assert "noise_lag_0_1" in broken((made + np.roll(made, 1, axis=3)) / np.sqrt(2))
    assert "profile_g" in broken(np.roll(made, SIDE // 2, axis=(2, 3)))
    assert not physics({"lens": Sets(made[:5], sets["held"], sets["train"])}, ("g",))["passed"]


def test_a_generator_of_one_stamp_has_no_support_and_the_reasons_say_what_fails(sets):
    held, train_ = flat(sets["held"])[:, ::7], flat(sets["train"])[:, ::7]
    fine = likeness(flat(sets["made"])[:, ::7], held, train_)
    assert fine["passed"] and fine["frechet"] < 2 * fine["frechet_train"]
    one = likeness(np.repeat(held[:1], N, axis=0) + 1e-3, held, train_)
    assert not one["passed"] and one["recall"] < 0.1 and one["frechet"] > 5 * fine["frechet"]
    copied = {"pixels": {"share": 0.4, "passed": False}}
    (first, second, third) = verdict_of(one, copied, {"rows": [], "unjudged": ["lens"]})
    assert "memorises: 40 %" in first.replace("%", " %") and "recall" in second and "physics" in third


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    data = make_stamps(folder / "data", 200, n_part=1, bands=("g",))
    few = {"sampling": {"batch_size": 8, "steps_per_epoch": 1}, "optim": {"epochs": 1, "threads": 1}}
    for family, task in (("small-cnn", "find"), ("dcgan", "generate")):
        more = {"model": {"width": 4}, "labels": {"classes": ("lens",)}} if task == "generate" else {}
        train(data, model=family, task=task, out=folder / task, settings=TrainSettings.model_validate(few | more))
    return {"data": data, "find": folder / "find", "generate": folder / "generate"}


def test_a_generator_that_fails_is_kept_as_failed_and_generate_says_so(models, tmp_path):
    settings = ReportSettings(features=str(models["find"]))
    report = evaluate_models([models["generate"]], models["data"], tmp_path / "report", settings)
    assert report.record["passed"] is False and report.record["features"].startswith("find@")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "FAILED: " in page and "nearest training stamp" in page and "generate made" in page
    where = ["--data", str(models["data"]), "--split", "test", "--features", str(models["find"]), "--in-place"]
    done = CliRunner().invoke(group, ["calibrate", str(models["generate"]), *where], catch_exceptions=False)
    assert "generate: FAILED its gates" in done.output and verdict(read_card(models["generate"])) == "failed"
    where = ["--count", "3", "--out", str(tmp_path / "made")]
    done = CliRunner().invoke(group, ["generate", str(models["generate"]), *where], catch_exceptions=False)
    assert "This generator FAILED its gates: " in done.output and "3 stamps in the split train" in done.output
    assert (tmp_path / "made" / "contact_sheet.png").exists()
    record = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert record["reasons"] == read_card(models["generate"]).metrics["gate"]["reasons"]


def test_a_generator_is_judged_on_other_splits_of_the_data_that_it_knows(models, tmp_path):
    other = make_stamps(tmp_path / "other", 60, n_part=1, bands=("g",))
    named = {"features": str(models["find"])}
    with pytest.raises(ConfigError, match="on the data set that it was trained on"):
        evaluate_models([models["generate"]], other, tmp_path / "a", ReportSettings(**named))
    with pytest.raises(ConfigError, match="has seen the split train"):
        evaluate_models([models["generate"]], models["data"], tmp_path / "b", ReportSettings(split="train", **named))
    with pytest.raises(ConfigError, match="no shipped model takes these stamps"):
        evaluate_models([models["generate"]], models["data"], tmp_path / "c", ReportSettings())
