"""Rings are anomalies to what knows blobs of two sizes, by five scores; each score is that of its reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from scipy.special import logsumexp, softmax

from lenspipe.errors import ConfigError, ModelError
from lenspipe.evaluate.report import ReportSettings, evaluate_models
from lenspipe.infer.predict import Predictor
from lenspipe.learn import outliers
from lenspipe.learn.objectives import SCORES
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import PICKLES, WEIGHTS_FILE, read_card
from lenspipe.nn.families.outlier import Energy, MaxSoftmax
from lenspipe.nn.registry import build

NORMAL = ["small", "large"]
DISTANCES = SCORES[2:]


def fit(data: Path, base: Path, out: Path, method: str, **tables):
    settings = TrainSettings.model_validate({"method": method, "labels": {"normal": NORMAL}} | tables)
    return train(data, model=None, task="anomaly", out=out, settings=settings, seed=2, pretrained=str(base))


@pytest.fixture(scope="module")
def blobs(tmp_path_factory, stamp_maker) -> Path:
    out = tmp_path_factory.mktemp("blobs") / "stamps"
    return stamp_maker(out, 300, labels=("ring", *NORMAL), bands=("r",), contrast=4.0, n_part=1)


@pytest.fixture(scope="module")
def base(blobs, tmp_path_factory) -> Path:
    """A classifier of the two sizes that has seen no ring."""
    out = tmp_path_factory.mktemp("classes") / "model"
    tables = {
        "model": {"width": 4, "dropout": 0.0},
        "labels": {"classes": NORMAL},
        "sampling": {"batch_size": 32, "steps_per_epoch": 15},
        "optim": {"epochs": 2, "learning_rate": 0.01, "ema_decay": 0.9, "threads": 1},
    }
    train(blobs, model="small-cnn", task="classify", out=out, settings=TrainSettings.model_validate(tables), seed=2)
    return out


@pytest.fixture(scope="module")
def fitted(blobs, base, tmp_path_factory) -> dict[str, Path]:
    folders = {method: tmp_path_factory.mktemp("fitted") / method for method in SCORES}
    for method, out in folders.items():
        fit(blobs, base, out, method)
    return folders


def test_what_is_of_no_class_is_an_anomaly(fitted, base):
    areas = {method: read_card(out).metrics["validation"]["auc"] for method, out in fitted.items()}
    assert min(areas[method] for method in DISTANCES) > 0.9, areas
    assert areas["max-softmax"] > 0.6, "a network of two classes is often sure of what is of neither"
    for out in fitted.values():
        card = read_card(out)
        assert (card.family, card.outputs.normal) == ("outlier", tuple(NORMAL))
        assert card.outputs.n_normal == len(card.outputs.errors) > 20
        assert card.stretch == read_card(base).stretch
        assert not [path for path in out.iterdir() if path.suffix in PICKLES]


@pytest.mark.parametrize("method", ["mahalanobis", "knn"])
def test_fitted_on_what_is_not_there_a_distance_tells_nothing(blobs, base, tmp_path, monkeypatch, method):
    good = outliers.fitted

    def broken(module, features, **more):
        return good(module, np.random.default_rng(1).normal(-50, 1, features.shape), **more)

    monkeypatch.setattr(outliers, "fitted", broken)
    area = fit(blobs, base, tmp_path / "out", method).metrics["validation"]["auc"]
    assert area < 0.9


def test_scores_of_logits_are_the_equations_of_their_papers():
    logits = np.random.default_rng(1).normal(0, 4, (20, 3))
    got = MaxSoftmax()(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(got, 1 - softmax(logits, axis=1).max(axis=1), rtol=1e-9)
    energy = -logsumexp(logits, axis=1)
    np.testing.assert_allclose(Energy()(torch.from_numpy(logits)).numpy(), np.log1p(np.exp(energy)), rtol=1e-9)
    one = torch.from_numpy(logits[:, 0])
    np.testing.assert_allclose(MaxSoftmax()(one).numpy(), 1 / (1 + np.exp(np.abs(logits[:, 0]))), rtol=1e-9)


@pytest.mark.parametrize("method", DISTANCES)
def test_distances_are_those_of_scikit_learn_and_scipy(method):
    from sklearn.covariance import LedoitWolf
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(3)
    known = (rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))).astype(np.float32).astype(np.float64)
    query = rng.normal(0, 2, (40, 4)).astype(np.float32)
    settings = {"of": "small-cnn", "vectors": True, "of_out": 4, "of_settings": json.dumps({"width": 2})}
    arrays, sizes = outliers.fitted(
        build("outlier", 1, 13, score=method, **settings), known, seed=1, k=7, by_class=False
    )
    module = build("outlier", 1, 13, score=method, **(settings | sizes))
    module.score.load_state_dict(arrays)
    got = module.forward_head(torch.from_numpy(query)).numpy()
    if method == "mahalanobis":
        inverse = np.linalg.inv(LedoitWolf().fit(known).covariance_)
        want = [mahalanobis(row, known.mean(axis=0), inverse) for row in query]
    elif method == "knn":
        want = NearestNeighbors(n_neighbors=7).fit(known).kneighbors(query)[0][:, -1]
    else:
        want = -IsolationForest(random_state=1).fit(known).score_samples(query)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_score_does_not_depend_on_the_stamps_beside_it(fitted):
    stamps = np.random.default_rng(4).normal(size=(40, 1, 13, 13)).astype(np.float32)
    for out in fitted.values():
        predictor = Predictor(out, device="cpu", batch_size=32)
        whole = predictor.outputs(stamps)
        np.testing.assert_array_equal(whole[33:36], predictor.outputs(stamps[33:36]))


def test_one_judge_ranks_all_of_them(fitted, blobs, tmp_path):
    report = evaluate_models([fitted["knn"], fitted["energy"]], blobs, tmp_path / "report", ReportSettings())
    for model in report.record["models"]:
        found = model["metrics"]
        at = found["at_stated_rate"]["0.1"]
        assert at["tp"] + at["fn"] == found["per_class"]["ring"]["n"]
        assert sum(at[name] for name in ("tp", "fp", "tn", "fn")) == found["n"]
    assert (tmp_path / "report" / "plots" / "knn_worst.png").exists()


def test_what_gives_no_logits_and_another_input_are_refused(blobs, fitted, base, tmp_path):
    with pytest.raises(ModelError, match="of the logits of a classifier or a finder"):
        fit(blobs, fitted["knn"], tmp_path / "x", "energy")
    with pytest.raises(ConfigError, match="leave the table input out"):
        fit(blobs, base / WEIGHTS_FILE, tmp_path / "x", "knn", input={"stretch": "linear"})
    assert not (tmp_path / "x").exists()
