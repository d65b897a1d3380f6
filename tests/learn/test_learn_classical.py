"""Kernel machines kept as arrays say what scikit-learn says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lenspipe.errors import ConfigError
from lenspipe.infer.score import Scorer
from lenspipe.learn.classical import KERNELS, fill, fit_kernel
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.checkpoint import load_model
from lenspipe.nn.registry import build
from lenspipe.stamps.format import StampSet


@pytest.mark.parametrize("kind", ["logistic", "svm", "pca"])
@pytest.mark.parametrize("n_class", [2, 3])
def test_the_module_reproduces_the_decision_function(rng, kind, n_class):
    labels = rng.integers(0, n_class, 120)
    stamps = rng.normal(0, 1, (120, 2, 6, 6)).astype(np.float32) + labels[:, None, None, None].astype(np.float32)
    module = build(f"kernel-{kind}", 2, 6, 1 if n_class == 2 else 3, n_landmark=40, pool=2)
    flat = module.pooled(torch.from_numpy(stamps)).numpy()
    fitted = fit_kernel(
        kind,
        flat[:40],
        lambda: iter([(flat[:50], labels[:50]), (flat[50:], labels[50:])]),
        gamma=0.05,
        c=1.0,
        n_component=8,
        seed=1,
    )
    fill(module, fitted, gamma=0.05)
    want = fitted.decide(flat)
    np.testing.assert_allclose(module(torch.from_numpy(stamps)).numpy(), want, rtol=1e-5, atol=1e-5)
    right = (want > 0) == labels if n_class == 2 else want.argmax(1) == labels
    assert right.mean() > 0.9


def test_two_classes_with_two_outputs_differ_by_the_decision(rng):
    labels = rng.integers(0, 2, 80)
    flat = (rng.normal(0, 1, (80, 9)) + labels[:, None]).astype(np.float32)
    fitted = fit_kernel("svm", flat[:30], lambda: iter([(flat, labels)]), gamma=0.1, c=1.0, n_component=8, seed=1)
    module = build("kernel-svm", 1, 3, 2, n_landmark=30, pool=1)
    fill(module, fitted, gamma=0.1)
    two = module(torch.from_numpy(flat.reshape(-1, 1, 3, 3))).detach().numpy()
    np.testing.assert_allclose(two[:, 1] - two[:, 0], fitted.decide(flat), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", sorted(KERNELS))
def test_the_same_command_trains_them_and_they_score_like_any_model(toy_stamps, tmp_path, model):
    settings = TrainSettings.model_validate({"model": {"n_landmark": 40, "pool": 1}})
    out = tmp_path / model
    card = train(toy_stamps, model=model, task="find", out=out, settings=settings)
    assert card.metrics["validation"]["auc"] > 0.8
    assert not [path for path in out.iterdir() if path.suffix in (".pkl", ".joblib", ".pt")]
    data = StampSet.open(toy_stamps)
    rows = np.flatnonzero(data.column("split") == "validation")
    scores = Scorer(out).score(data.read_images("image", rows), pixel_scale_arcsec=0.2)
    lens = data.column("label")[rows] == "lens"
    assert (scores[lens][:, None] > scores[~lens]).mean() == pytest.approx(card.metrics["validation"]["auc"], abs=1e-6)
    assert load_model(out)[1].family == model


def test_a_kernel_machine_does_not_regress(toy_stamps, tmp_path):
    settings = TrainSettings.model_validate({"labels": {"targets": ["theta_e_arcsec"]}})
    with pytest.raises(ConfigError, match="regression needs a network"):
        train(toy_stamps, model="kernel-svm", task="regress", out=tmp_path / "x", settings=settings)
