"""Rings of another radius are anomalies to an autoencoder that saw one radius; a broken loss sees nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import drawn
from safetensors.torch import load_file

from lenspipe.errors import ConfigError, ModelError
from lenspipe.evaluate.report import ReportSettings, evaluate_models
from lenspipe.learn.objectives import anomaly
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import read_card
from lenspipe.nn.outputs import Anomaly
from lenspipe.nn.registry import build
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

SETTINGS = {
    "model": {"width": 8, "latent": 4},
    "input": {"stretch": "linear"},
    "labels": {"normal": ["narrow"]},
    "sampling": {"batch_size": 32, "steps_per_epoch": 30},
    "optim": {"epochs": 2, "learning_rate": 0.01, "ema_decay": 0.9, "threads": 1},
}
FAMILIES = ("ae", "vae")
OTHERS = {
    "scae": {"width": 8, "latent": 4},
    "aae": {"width": 32, "latent": 4},
    "acae": {"width": 8, "latent": 4},
    "rnn-ae": {"width": 32, "latent": 4},
    "vrae": {"width": 32, "latent": 4},
    "transformer-ae": {"width": 16, "latent": 4, "patch": 5, "depth": 1},
    "equivariant-ae": {"width": 4, "latent": 2},
}
SIZE, N = 13, 600


class KilledError(Exception):
    pass


def run(data: Path, out: Path, model: str, *, tables=None, **more):
    settings = TrainSettings.model_validate(SETTINGS | (tables or {}))
    return train(data, model=model, task="anomaly", out=out, settings=settings, seed=2, **more)


@pytest.fixture(scope="module")
def rings(tmp_path_factory) -> Path:
    """Rings of two radii and one sum of squares, so that how bright a stamp is tells nothing."""
    rng, spec = np.random.default_rng(6), ImageSpec(("r",), SIZE, 0.2)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    shapes = [np.exp(-((np.hypot(x, y) - radius) ** 2)) for radius in (2.0, 4.0)]
    kinds = rng.integers(0, 2, N)
    stamps = rng.normal(0, 1, (N, 1, SIZE, SIZE))
    stamps += np.stack([30 * shapes[k] / np.linalg.norm(shapes[k]) for k in kinds])[:, None]
    values = {
        "stamp_id": [f"s{k}" for k in range(N)],
        "image": image_column(stamps.astype(np.float32), spec),
        "label": [("narrow", "wide")[k] for k in kinds],
        "recipe": ["rings"] * N,
        "seed": [6] * N,
        "host": [f"h{k}" for k in range(N)],
        "split": [("train", "validation", "test")[k % 3] for k in range(N)],
    }
    schema = stamp_schema({"image": spec}, [])
    arrays = [values[f.name] if f.name == "image" else pa.array(values[f.name], f.type) for f in schema]
    folder = tmp_path_factory.mktemp("rings") / "stamps"
    write_part(pa.table(arrays, schema=schema), folder, "part-0")
    return folder


@pytest.fixture(scope="module")
def trained(rings, tmp_path_factory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folders = {family: tmp_path_factory.mktemp("rebuilt") / family for family in FAMILIES}
    for family, out in folders.items():
        run(rings, out, family)
    return folders


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_not_seen_does_not_come_back(trained, family):
    card = read_card(trained[family])
    assert card.metrics["validation"]["auc"] > 0.9 and card.metrics["validation"]["auc_low"] > 0.8
    assert card.outputs.normal == ("narrow",)
    assert len(card.outputs.errors) == card.outputs.n_normal > 80


@pytest.mark.parametrize("family", OTHERS)
def test_every_family_sees_them_and_none_with_a_broken_loss(rings, tmp_path, monkeypatch, family):
    torch.set_num_threads(1)
    own = {"model": OTHERS[family]}
    assert run(rings, tmp_path / "out", family, tables=own).metrics["validation"]["auc"] > 0.9
    monkeypatch.setattr(anomaly, "mean_of", lambda outputs, batch: 0 * outputs.mean())
    once = own | {"optim": SETTINGS["optim"] | {"epochs": 1}, "sampling": SETTINGS["sampling"] | {"steps_per_epoch": 2}}
    assert run(rings, tmp_path / "broken", family, tables=once).metrics["validation"]["auc"] < 0.75


def test_a_turned_stamp_comes_back_turned_from_the_equivariant_one():
    torch.manual_seed(2)
    for side in (12, 13):
        network = build("equivariant-ae", 2, side, width=3, latent=2).eval()
        torch.nn.init.normal_(network.four.weight)
        stamps = torch.randn(3, 2, side, side)
        back, turned = network.rebuild(stamps), network.rebuild(stamps.rot90(1, (-2, -1)))
        assert back.std() > 1e-3
        torch.testing.assert_close(turned, back.rot90(1, (-2, -1)), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network(stamps), network(stamps.rot90(1, (-2, -1))), atol=1e-5, rtol=1e-5)


def test_a_critic_learns_to_tell_drawn_from_encoded_and_the_encoder_to_be_taken_for_drawn(rings, tmp_path):
    good, bad = torch.tensor([3.0, 3.0, -3.0, -3.0]), torch.tensor([-3.0, -3.0, 3.0, 3.0])
    assert anomaly.told({"taken_for": good}) < 0.1 < 3 < anomaly.told({"taken_for": bad})
    assert anomaly.taken_for(good[:2], 1.0) < 0.1 < anomaly.taken_for(good[2:], 1.0)
    once = {"optim": SETTINGS["optim"] | {"epochs": 1}, "sampling": {"batch_size": 32, "steps_per_epoch": 8}}
    run(rings, tmp_path / "out", "acae", tables=once)
    assert 0.3 < pq.read_table(tmp_path / "out/history.parquet")["loss_critic"][0].as_py() < 0.72


@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_broken_loss_anomalies_are_like_the_rest(rings, tmp_path, monkeypatch, family):
    monkeypatch.setattr(anomaly, "mean_of", lambda outputs, batch: 0 * outputs.mean())
    once = {"optim": SETTINGS["optim"] | {"epochs": 1}}
    assert run(rings, tmp_path / "out", family, tables=once).metrics["validation"]["auc"] < 0.75


@pytest.mark.parametrize("family", FAMILIES)
def test_killed_and_resumed_it_ends_with_the_same_bits(rings, trained, tmp_path, family):
    def kill(epoch, step, history):
        if (epoch, step) == (1, 3):
            raise KilledError

    with pytest.raises(KilledError):
        run(rings, tmp_path / "out", family, on_step=kill)
    run(rings, tmp_path / "out", family)
    whole, resumed = (load_file(f / "state.safetensors") for f in (trained[family], tmp_path / "out"))
    assert set(whole) == set(resumed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert read_card(tmp_path / "out").outputs == read_card(trained[family]).outputs


def test_the_judge_ranks_the_anomalies_and_holds_the_stated_rate_against_the_one_found(trained, rings, tmp_path):
    with drawn():
        report = evaluate_models([trained["ae"], trained["vae"]], rings, tmp_path / "report", ReportSettings())
    for model in report.record["models"]:
        found = model["metrics"]
        assert found["auc"] > 0.9 and found["per_class"]["wide"]["auc"] == pytest.approx(found["auc"])
        assert found["first"]["10"]["precision"] == 1
        three_sigma = (
            3 * (0.1 * 0.9 * 2 / (N / 6)) ** 0.5
        )  # of the stamps that calibrate, and of those that are counted
        assert abs(found["at_stated_rate"]["0.1"]["fpr"] - 0.1) < three_sigma
    assert (tmp_path / "report" / "plots" / "ae_worst.png").stat().st_size > 5000
    rows = pq.read_table(tmp_path / "report" / "scores.parquet").to_pandas()
    order = rows[rows.model == "ae"].sort_values("error")["false_positive_rate"]
    assert order.is_monotonic_decreasing and order.between(0, 1).all() and order.min() > 0


def test_the_false_positive_rate_is_the_part_of_normal_stamps_with_as_large_an_error():
    said = Anomaly(normal=("a",), errors=(1.0, 2.0, 3.0), n_normal=3).read(np.array([[0.5], [2.0], [2.5], [9.0]]))
    np.testing.assert_allclose(said.false_positive_rate, [1, 3 / 4, 2 / 4, 1 / 4])
    np.testing.assert_array_equal(said.error, [0.5, 2, 2.5, 9])


def test_a_label_that_is_not_there_and_a_family_that_gives_nothing_back_are_refused(rings, tmp_path):
    with pytest.raises(ConfigError, match=r"labels\.normal: no training stamp has it.*missing='broad'"):
        run(rings, tmp_path / "x", "ae", tables={"labels": {"normal": ["broad"]}})
    with pytest.raises(ModelError, match="gives no stamp back: choose ae, vae or another"):
        run(rings, tmp_path / "x", "small-cnn", tables={"model": {}})
    assert not (tmp_path / "x").exists()
