"""Checkpoints of every task give what their card means, each stamp by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lenspipe.errors import DataError, ModelError
from lenspipe.infer.predict import Predictor
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import ModelCard
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.outputs import Denoise
from lenspipe.nn.registry import build

SIZE_PX = 32


def predictor(
    folder: Path, family: str = "small-cnn", settings: dict[str, Any] | None = None, **facts: Any
) -> Predictor:
    card = ModelCard.model_validate(
        {
            "name": "tiny",
            "family": family,
            "settings": settings or {"width": 4},
            "bands": ("g", "r"),
            "pixel_scale_arcsec": 0.2,
            "scale_tolerance": 0.1,
            "min_scale_arcsec": 0.1,
            "max_scale_arcsec": 0.4,
            "stamp_px": SIZE_PX,
            "stretch": {"band_scales": (0.01, 0.01), "alpha": 0.1, "q": 1.0},
            **facts,
        }
    )
    torch.manual_seed(5)
    save_model(folder, build(family, 2, SIZE_PX, card.n_out, **card.settings), card)
    return Predictor(folder, device="cpu", batch_size=8)


@pytest.fixture
def stamps() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(19, 2, SIZE_PX, SIZE_PX)).astype(np.float32)


def test_class_probabilities_are_the_softmax_of_the_networks_logits(tmp_path: Path, stamps: np.ndarray) -> None:
    found = predictor(tmp_path / "m", task="classify", classes=("none", "subhalo", "vortex")).predict(stamps)
    module, _ = load_model(tmp_path / "m")
    with torch.inference_mode():
        want = torch.softmax(module(torch.from_numpy(stamps)).double(), dim=1).numpy()
    assert found.probability is not None and found.score is None and found.value is None
    np.testing.assert_allclose(found.probability, want, rtol=1e-4)


@pytest.mark.parametrize("uncertainty", ["none", "gaussian"])
def test_values_and_sigmas_come_in_the_units_of_their_targets(
    uncertainty: str, tmp_path: Path, stamps: np.ndarray
) -> None:
    model = predictor(
        tmp_path / "m",
        task="regress",
        targets=("mass", "radius"),
        target_means=(100.0, -1.0),
        target_spreads=(10.0, 0.5),
        uncertainty=uncertainty,
    )
    raw, found = model.outputs(stamps), model.predict(stamps)
    assert found.value is not None and raw.shape[1] == (4 if uncertainty == "gaussian" else 2)
    np.testing.assert_allclose(found.value, raw[:, :2] * [10, 0.5] + [100, -1])
    if uncertainty == "none":
        assert found.sigma is None
    else:
        assert found.sigma is not None
        np.testing.assert_allclose(found.sigma, np.sqrt(np.exp(raw[:, 2:])) * [10, 0.5])


def test_a_finder_scores_as_the_scan_does_and_each_stamp_by_itself(tmp_path: Path, stamps: np.ndarray) -> None:
    model = predictor(tmp_path / "m")
    score = model.predict(stamps).score
    assert score is not None
    scan = Scorer(tmp_path / "m", device="cpu", batch_size=8)
    np.testing.assert_allclose(score, scan.score_prepared(stamps), rtol=1e-12)
    assert model.n_parameter == sum(p.numel() for p in load_model(tmp_path / "m")[0].parameters())
    np.testing.assert_array_equal(model.predict(stamps[11:12]).score, score[11:12])
    assert model.outputs(stamps[:0]).shape == (0, 1)


def test_numbers_beside_the_image_are_scaled_by_the_card(tmp_path: Path, stamps: np.ndarray) -> None:
    features = {"features": ("mag_i", "radius"), "feature_means": (20.0, 1.0), "feature_spreads": (2.0, 0.5)}
    model = predictor(tmp_path / "m", "hybrid", {"n_feature": 2, "trunk": "resnet10t"}, **features)
    values = np.random.default_rng(1).normal(size=(19, 2)) * [2, 0.5] + [20, 1]
    got = model.outputs(stamps, values)[:, 0]
    module, _ = load_model(tmp_path / "m")
    scaled = torch.from_numpy((values - [20, 1]) / [2, 0.5]).float()
    with torch.inference_mode():
        want = module(torch.from_numpy(stamps), scaled).double().numpy()
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-6)
    assert (got != model.outputs(stamps, values + 1)[:, 0]).all()
    for wrong in (None, values[:, :1], np.where(values > 21, np.nan, values)):
        with pytest.raises(DataError, match="numbers beside each image"):
            model.outputs(stamps, wrong)


def test_broken_weights_and_denoisers_are_refused(tmp_path: Path, stamps: np.ndarray) -> None:
    model = predictor(tmp_path / "m")
    with pytest.raises(ModelError, match="not finite"):
        model.outputs(np.full_like(stamps, np.nan))
    with pytest.raises(ModelError, match="no numbers per stamp"):
        Denoise(exposure_ratios=(1.25, 8.0)).read(np.zeros((1, 1)))
