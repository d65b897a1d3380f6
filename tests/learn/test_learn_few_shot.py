"""A few examples tell classes after prototypes, or tasks of their own, were learnt; with a broken loss they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_stamps import make_stamps

from lenspipe.errors import DataError
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.learn.job import make_job
from lenspipe.learn.losses import own_tasks, prototypes
from lenspipe.learn.objectives import few_shot
from lenspipe.learn.settings import EmbedSettings, TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import read_card
from lenspipe.stamps.format import StampSet
from lenspipe.stats.episodes import episode_accuracy, nearest_prototype

SETTINGS = {
    "model": {"width": 4, "dropout": 0.0},
    "sampling": {"batch_size": 32, "steps_per_epoch": 25},
    "optim": {"epochs": 1, "learning_rate": 0.015, "ema_decay": 0.95, "threads": 1},
    "embed": {"size": 16, "projection": 16},
}
METHODS = ("prototypical", "umtra")
LOSSES = {"prototypical": "prototypes", "umtra": "own_tasks"}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Path:
    """Rings of all radii and blobs."""
    return make_stamps(tmp_path_factory.mktemp("kinds") / "stamps", 400, contrast=2.5, n_part=1)


def run(data: Path, out: Path, method: str, epochs: int = 1):
    torch.set_num_threads(1)
    optim = {"optim": SETTINGS["optim"] | {"epochs": epochs}}
    settings = TrainSettings.model_validate(SETTINGS | {"method": method} | optim)
    return train(data, model="small-cnn", task="embed", out=out, settings=settings, seed=2)


@pytest.fixture(scope="module")
def trained(kinds, tmp_path_factory) -> dict[str, Path]:
    folders = {method: tmp_path_factory.mktemp("few") / method for method in METHODS}
    for method, out in folders.items():
        run(kinds, out, method, epochs=METHODS.index(method) + 1)
    return folders


def one_shot(model: Path, data: Path) -> float:
    stamps = StampSet.open(data)
    members = open_members([model], stamps)
    (found,) = judged(members, stamps, JudgeSettings(split="test")).metrics().values()
    row = found["few_shot"][0]
    assert (row["n_way"], row["k_shot"]) == (2, 1) and row["interval95"][0] < row["accuracy"] < row["interval95"][1]
    return row["accuracy"]


def test_one_example_of_each_class_tells_the_others(trained, kinds):
    assert one_shot(trained["prototypical"], kinds) > 0.9
    assert read_card(trained["prototypical"]).outputs.method == "prototypical"


def test_without_a_label_neighbours_are_of_one_kind(trained):
    """Rings have all radii, so one of them says less of the others than its neighbours do."""
    card = read_card(trained["umtra"])
    assert card.metrics["validation"]["knn_auc"] > 0.9 and card.outputs.method == "umtra"


@pytest.mark.parametrize("method", METHODS)
def test_with_a_broken_loss_nothing_is_learnt(kinds, tmp_path, monkeypatch, method):
    monkeypatch.setattr(few_shot, LOSSES[method], lambda *given: lambda vectors, batch: 0 * vectors.sum())
    card = run(kinds, tmp_path / "out", method)
    assert card.metrics["validation"]["knn_auc"] < 0.8 and one_shot(tmp_path / "out", kinds) < 0.8


def test_prototypes_are_of_the_classes_that_are_named_and_of_two_at_least(kinds, tmp_path):
    named = TrainSettings.model_validate({"method": "prototypical", "labels": {"classes": ["nonlens", "lens"]}})
    job = make_job(kinds, "small-cnn", "embed", tmp_path, named, seed=1)
    assert job.truth.classes == ("nonlens", "lens") and set(job.truth.labels[job.truth.train]) == {0, 1}
    alone = TrainSettings.model_validate({"method": "prototypical", "labels": {"classes": ["lens"]}})
    with pytest.raises(DataError, match="prototypes are of two classes at least"):
        make_job(kinds, "small-cnn", "embed", tmp_path, alone, seed=1)


def test_requests_of_before_there_were_made_up_tasks_stay_the_same():
    assert "ways" not in EmbedSettings().model_dump(mode="json")
    assert EmbedSettings(ways=4).model_dump(mode="json")["ways"] == 4


def test_losses_are_those_of_their_papers(rng):
    vectors, labels = rng.normal(size=(6, 3)), np.array([0, 1, 0, 1, 1, 0])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centres = np.stack([unit[[0, 2]].mean(0), unit[[1, 3]].mean(0)])  # the first half, the longer one, is the support
    terms = []
    for query, truth in ((5, 0), (4, 1)):
        square = ((unit[query] - centres) ** 2).sum(1) / 0.3
        terms.append(square[truth] + np.log(np.exp(-square).sum()))
    got = prototypes(0.3)(torch.from_numpy(vectors), {"label": torch.from_numpy(labels)})
    assert got.item() == pytest.approx(np.mean(terms))

    pairs = rng.normal(size=(5, 2, 4))
    unit = pairs / np.linalg.norm(pairs, axis=2, keepdims=True)
    terms = []
    for task in ([0, 1, 2], [3, 4]):
        for i in task:
            square = np.array([((unit[i, 1] - unit[j, 0]) ** 2).sum() for j in task]) / 0.3
            terms.append(square[task.index(i)] + np.log(np.exp(-square).sum()))
    assert own_tasks(0.3, 3)(torch.from_numpy(pairs), {}).item() == pytest.approx(np.mean(terms))


def test_episodes_are_at_chance_without_a_signal_and_right_with_one(rng):
    labels = np.repeat(np.arange(4), 50)
    noise = rng.normal(size=(200, 8))
    found = episode_accuracy(noise, labels, rng.normal(size=(200, 8)), labels, n_way=4, k_shot=5)
    assert abs(found["accuracy"] - 0.25) < 0.04
    told = noise + 20 * np.eye(8)[labels]
    assert episode_accuracy(told, labels, told, labels, n_way=3, k_shot=1)["accuracy"] > 0.99
    few = episode_accuracy(told, labels, told[:4], labels[:4], n_way=3, k_shot=1)
    assert few["accuracy"] is None and "too few" in few["why"]
    assert nearest_prototype(np.array([[0.0, 2.0]]), np.eye(2), np.array([0, 1]), 2).tolist() == [1]
