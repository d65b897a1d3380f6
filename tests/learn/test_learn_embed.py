"""Embeddings tell two kinds of rings apart without having seen a label, and a broken loss learns nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pictures import drawn
from safetensors.torch import load_file
from toy_stamps import make_stamps

from lenspipe.errors import ConfigError, ModelError
from lenspipe.evaluate.report import ReportSettings, evaluate_models
from lenspipe.learn.job import make_job
from lenspipe.learn.losses import alike, nt_xent
from lenspipe.learn.network import fresh_network
from lenspipe.learn.objectives import embed, mae
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import read_card
from lenspipe.nn.registry import build

SETTINGS = {
    "model": {"width": 4, "dropout": 0.0},
    "sampling": {"batch_size": 32, "steps_per_epoch": 25},
    "optim": {"epochs": 2, "learning_rate": 0.015, "ema_decay": 0.95, "threads": 1},
    "embed": {"size": 16, "projection": 16},
}
METHODS = ("simclr", "byol")


class KilledError(Exception):
    pass


def run(data: Path, out: Path, method: str | None, *, tables=None, **more):
    settings = TrainSettings.model_validate(SETTINGS | {"method": method} | (tables or {}))
    return train(data, model="small-cnn", task="embed", out=out, settings=settings, seed=2, **more)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Path:
    """Rings of all radii and blobs, of which a fresh network knows nothing."""
    return make_stamps(tmp_path_factory.mktemp("kinds") / "stamps", 400, contrast=2.5, n_part=1)


@pytest.fixture(scope="module")
def bright(tmp_path_factory) -> Path:
    return make_stamps(tmp_path_factory.mktemp("bright") / "stamps", 240, contrast=8.0, n_part=1)


@pytest.fixture(scope="module")
def trained(kinds, tmp_path_factory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folders = {method: tmp_path_factory.mktemp("embedded") / method for method in METHODS}
    with drawn():
        for method, out in folders.items():
            run(kinds, out, method)
    return folders


@pytest.mark.parametrize("method", METHODS)
def test_neighbours_are_of_one_kind_though_no_label_was_learnt_from(trained, method):
    card = read_card(trained[method])
    measured = card.metrics["validation"]
    assert measured["knn_auc"] > 0.9 and measured["knn_auc_low"] > 0.75
    assert (card.outputs.size, card.outputs.method) == (16, method)
    assert card.training["settings"]["method"] == method
    assert (trained[method] / "embedding.png").stat().st_size > 5000


@pytest.mark.parametrize(("method", "loss"), [("simclr", "nt_xent"), ("byol", "alike")])
def test_with_a_broken_loss_nothing_is_learnt(kinds, tmp_path, monkeypatch, method, loss):
    def nothing(pairs, batch):
        return 0 * pairs.sum()

    monkeypatch.setattr(embed, loss, (lambda temperature: nothing) if method == "simclr" else nothing)
    once = {"optim": SETTINGS["optim"] | {"epochs": 1}}
    assert run(kinds, tmp_path / "out", method, tables=once).metrics["validation"]["knn_auc"] < 0.8


@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_it_ends_with_the_same_bits(kinds, trained, tmp_path, method):
    def kill(epoch, step, history):
        if (epoch, step) == (1, 3):
            raise KilledError

    with pytest.raises(KilledError):
        run(kinds, tmp_path / "out", method, on_step=kill)
    run(kinds, tmp_path / "out", method)
    whole, resumed = (load_file(f / "state.safetensors") for f in (trained[method], tmp_path / "out"))
    assert set(whole) == set(resumed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("file", ["weights.safetensors", "state.safetensors"])
def test_another_training_begins_with_the_trunk_of_either_file(trained, toy_stamps, tmp_path, file):
    settings = TrainSettings.model_validate({"model": {"width": 4}})
    pretrained = str(trained["simclr"] / file)
    job = make_job(toy_stamps, "small-cnn", "find", tmp_path, settings, seed=1, pretrained=pretrained)
    module, loaded = fresh_network(job)
    weights = load_file(trained["simclr"] / "weights.safetensors")
    assert torch.equal(module.state_dict()["trunk.0.weight"], weights["trunk.0.weight"])
    assert all(name.startswith("trunk.") for name in loaded)


def test_the_judge_tells_the_kinds_with_parts_of_the_labels(trained, kinds, tmp_path):
    report = evaluate_models([trained["simclr"]], kinds, tmp_path / "report", ReportSettings())
    parts = report.record["parts"]
    assert [row["part"] for row in parts] == [0.01, 0.1, 1.0]
    assert parts[0]["n_label"] == 2 and parts[-1]["n_label"] == 240
    assert parts[-1]["knn"]["auc"] > 0.9 and parts[-1]["linear"]["auc"] > 0.9
    vectors = pq.read_table(tmp_path / "report" / "scores.parquet")["embedding"]
    lengths = np.linalg.norm(np.array(vectors.to_pylist(), float), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=2e-3)
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["task"] == "embed"


def test_the_first_method_is_the_default_and_an_unknown_one_is_refused(kinds, tmp_path):
    job = make_job(kinds, "small-cnn", "embed", tmp_path, TrainSettings.model_validate(SETTINGS), seed=1)
    assert (job.card.outputs.method, job.objective.method) == ("simclr", "simclr")
    assert "method" not in job.settings.model_dump(mode="json"), "requests of before stay the same"
    with pytest.raises(ConfigError, match=r"no such method for the task embed; known: simclr, byol, mae.*'ae'"):
        run(kinds, tmp_path / "x", "ae")
    alone = SETTINGS | {"method": "byol", "optim": {"ema_decay": 0.0}}
    with pytest.raises(ConfigError, match=r"set optim\.ema_decay above 0"):
        make_job(kinds, "small-cnn", "embed", tmp_path, TrainSettings.model_validate(alone), seed=1)


MAE = {
    "method": "mae",
    "model": {"width": 16, "patch": 3, "depth": 1},
    "input": {"stretch": "linear"},
    "augment": {"affine_fraction": 0.0, "blur_fraction": 0.0, "gap_fraction": 0.0},
    "embed": {"size": 16, "hidden": 0.6},
    "sampling": {"batch_size": 32, "steps_per_epoch": 10},
}


def hidden(data: Path, out: Path, on_step=None, **more):
    settings = TrainSettings.model_validate(SETTINGS | MAE | more)
    more = {"on_step": on_step} if on_step else {}
    return train(data, model="patch-transformer", task="embed", out=out, settings=settings, seed=2, **more)


def test_what_is_hidden_is_told_from_the_rest_and_not_with_a_broken_loss(bright, tmp_path, monkeypatch):
    card = hidden(bright, tmp_path / "mae")
    learnt = pq.read_table(tmp_path / "mae/history.parquet")["val_loss"].to_pylist()
    assert card.metrics["validation"]["knn_auc"] > 0.9
    monkeypatch.setattr(mae, "mean_of", lambda outputs, batch: 0 * outputs.mean())
    once = {"optim": SETTINGS["optim"] | {"epochs": 1}, "sampling": {"batch_size": 32, "steps_per_epoch": 2}}
    hidden(bright, tmp_path / "broken", **once)
    (nothing,) = pq.read_table(tmp_path / "broken/history.parquet")["val_loss"].to_pylist()
    assert learnt[-1] < 0.7 * nothing


def test_mae_killed_and_resumed_hides_the_same_patches_and_ends_with_the_same_bits(bright, tmp_path):
    def kill(epoch, step, history):
        if (epoch, step) == (1, 2):
            raise KilledError

    few = {"sampling": {"batch_size": 16, "steps_per_epoch": 4}}
    hidden(bright, tmp_path / "whole", **few)
    with pytest.raises(KilledError):
        hidden(bright, tmp_path / "out", on_step=kill, **few)
    hidden(bright, tmp_path / "out", **few)
    whole, resumed = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "out"))
    assert whole and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_no_token_of_what_is_seen_knows_what_is_hidden():
    torch.manual_seed(1)
    network = build("patch-transformer", 2, 13, 4, width=8, patch=3, depth=2)
    whole = mae.Hidden(network, 2, 4, 0.6)
    assert (network.n_patch, whole.n_seen) == (25, 10)
    stamps, keep = torch.randn(3, 2, 13, 13), torch.arange(5).expand(3, 5)
    other = stamps.clone()
    other[:, :, 3:] = 7.0
    torch.testing.assert_close(network.tokens(stamps, keep), network.tokens(other, keep))
    draw = torch.arange(25.0).expand(3, 25)
    shown = stamps.clone()
    shown[:, :, :6] += 1.0  # lines of which all patches are seen
    assert not torch.equal(whole(stamps, draw), whole(shown, draw))
    patches = mae.patches_of(stamps, 3)
    torch.testing.assert_close(patches[:, 6].reshape(3, 2, 3, 3), stamps[:, :, 3:6, 3:6])


def test_mae_wants_a_network_of_patches(kinds, tmp_path):
    with pytest.raises(ModelError, match="--model patch-transformer; others take simclr or byol"):
        run(kinds, tmp_path / "x", "mae")


def test_nt_xent_is_equation_1_of_its_paper():
    rng, temperature = np.random.default_rng(3), 0.3
    pairs = rng.normal(size=(5, 2, 4))
    flat = np.concatenate([pairs[:, 0], pairs[:, 1]])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    terms = []
    for i in range(10):
        others = [np.exp(flat[i] @ flat[k] / temperature) for k in range(10) if k != i]
        terms.append(-np.log(np.exp(flat[i] @ flat[(i + 5) % 10] / temperature) / np.sum(others)))
    got = nt_xent(temperature)(torch.from_numpy(pairs), {})
    assert got.item() == pytest.approx(np.mean(terms))


def test_what_has_one_direction_is_alike():
    one = torch.randn(6, 1, 4)
    assert alike(torch.cat([one, 3 * one], 1), {}).item() == pytest.approx(0, abs=1e-6)
    assert alike(torch.cat([one, -one], 1), {}).item() == pytest.approx(4)
