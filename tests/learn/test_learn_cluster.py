"""Clusters of two kinds of rings agree with labels that were never learnt from; with a broken loss they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from lenspipe.errors import ConfigError
from lenspipe.evaluate.report import ReportSettings, evaluate_models
from lenspipe.learn.losses import alike_in_clusters, sure_teach
from lenspipe.learn.objectives import cluster
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import read_card

COMMON = {
    "sampling": {"batch_size": 32, "steps_per_epoch": 8},
    "optim": {"epochs": 3, "learning_rate": 0.01, "ema_decay": 0.9, "threads": 1},
}
CLUSTER = COMMON | {"cluster": {"self_label_part": 0.3, "neighbours": 5, "threshold": 0.8}}


class KilledError(Exception):
    pass


def run(data: Path, base: Path, out: Path, *, tables=None, **more):
    settings = TrainSettings.model_validate(CLUSTER | (tables or {}))
    return train(data, model=None, task="cluster", out=out, settings=settings, seed=2, pretrained=str(base), **more)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory, stamp_maker) -> Path:
    return stamp_maker(tmp_path_factory.mktemp("kinds") / "stamps", 300, contrast=6.0, n_part=2)


@pytest.fixture(scope="module")
def base(kinds, tmp_path_factory) -> Path:
    """An embedding of the stamps, learnt without labels."""
    own = {"model": {"width": 4, "dropout": 0.0}, "embed": {"size": 16, "projection": 16}}
    optim = COMMON["optim"] | {"epochs": 2, "learning_rate": 0.015}
    more = {"optim": optim, "sampling": {"batch_size": 32, "steps_per_epoch": 12}}
    settings = TrainSettings.model_validate(COMMON | own | more)
    out = tmp_path_factory.mktemp("embedded") / "simclr"
    train(kinds, model="small-cnn", task="embed", out=out, settings=settings, seed=2)
    return out


@pytest.fixture(scope="module")
def trained(kinds, base, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("clustered") / "scan"
    run(kinds, base, out)
    return out


def test_clusters_are_the_kinds_that_nobody_labelled(trained, base):
    card = read_card(trained)
    measured = card.metrics["validation"]
    assert measured["accuracy"] > 0.9 and measured["ari_low"] > 0.4
    assert (card.outputs.size, card.outputs.method) == (2, "neighbours")
    assert (card.stretch, card.family) == (read_card(base).stretch, "small-cnn")
    assert card.training["settings"]["model"] == {"width": 4, "dropout": 0.0}


def test_with_a_broken_loss_there_are_no_such_clusters(kinds, base, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "alike_in_clusters", lambda entropy: lambda pairs, batch: 0 * pairs.sum())
    monkeypatch.setattr(cluster, "sure_teach", lambda pairs, threshold: (0 * pairs.sum(), torch.tensor(0.0)))
    once = {"optim": COMMON["optim"] | {"epochs": 1}, "sampling": {"batch_size": 32, "steps_per_epoch": 2}}
    assert run(kinds, base, tmp_path / "out", tables=once).metrics["validation"]["ari"] < 0.3


def test_killed_in_either_part_and_resumed_it_ends_with_the_same_bits(kinds, base, trained, tmp_path):
    def kill_at(where):
        def kill(epoch, step, history):
            if (epoch, step) == where:
                raise KilledError

        return kill

    for where in ((1, 3), (2, 2)):
        with pytest.raises(KilledError):
            run(kinds, base, tmp_path / "out", on_step=kill_at(where))
    run(kinds, base, tmp_path / "out")
    whole, resumed = (load_file(f / "state.safetensors") for f in (trained, tmp_path / "out"))
    assert set(whole) == set(resumed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    sure = pq.read_table(tmp_path / "out/history.parquet")["sure"].to_pylist()
    assert sure[:2] == [None, None] and 0.5 < sure[2] <= 1


def test_the_judge_says_the_agreement_that_scikit_learn_says(kinds, trained, tmp_path):
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, roc_auc_score

    report = evaluate_models([trained], kinds, tmp_path / "report", ReportSettings())
    rows = pq.read_table(tmp_path / "report" / "scores.parquet").to_pandas()
    found = report.record["models"][0]["metrics"]
    assert found["ari"] == pytest.approx(adjusted_rand_score(rows.label, rows.cluster))
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(rows.label, rows.cluster))
    named = np.array(found["named"])[rows.cluster]
    assert found["accuracy"] == pytest.approx((named == rows.label).mean()) and found["accuracy"] > 0.9
    lens = found["per_class"]["lens"]
    of_it = np.where(rows.cluster == lens["cluster"], rows.probability, 1 - rows.probability)
    assert lens["auc"] == pytest.approx(roc_auc_score(rows.label == "lens", of_it))
    assert {f"scan_cluster_{k}.png" for k in (0, 1)} < {f.name for f in (tmp_path / "report" / "plots").iterdir()}


def test_the_losses_are_the_equations_of_the_paper():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(6, 2, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    share = p[:, 0].mean(axis=0)
    want = -np.log((p[:, 0] * p[:, 1]).sum(axis=1)).mean() + 2.0 * (share * np.log(share)).sum()
    assert alike_in_clusters(2.0)(torch.from_numpy(logits), {}).item() == pytest.approx(want)
    sure = p[:, 1].max(axis=1) > 0.6
    said = p[sure, 1].argmax(axis=1)
    weight = 1 / np.bincount(said, minlength=3)[said]
    entropy = -np.log(p[sure, 0][np.arange(sure.sum()), said])
    value, part = sure_teach(torch.from_numpy(logits).requires_grad_(), 0.6)
    assert 0 < sure.sum() < 6
    assert value.item() == pytest.approx((weight * entropy).sum() / weight.sum()) and part == sure.mean()
    none, part = sure_teach(torch.from_numpy(logits).requires_grad_(), 1.0)
    assert (none.item(), part.item()) == (0, 0)


def test_it_builds_on_a_model_and_sees_stamps_as_that_does(kinds, base, tmp_path):
    with pytest.raises(ConfigError, match="builds on a trained model: name its folder by --pretrained"):
        train(kinds, model=None, task="cluster", out=tmp_path / "x", settings=TrainSettings())
    with pytest.raises(ConfigError, match="leave the table input out"):
        run(kinds, base, tmp_path / "x", tables={"input": {"stretch": "linear"}})
    with pytest.raises(ConfigError, match="leave --model out"):
        run(kinds, base, tmp_path / "x", tables={"model": {"width": 5}})
    assert not (tmp_path / "x").exists()
