"""Scores: the same to the last bit whatever a stamp is scored with; bad pixels are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import DataError, ModelError
from lenspipe.infer.prepare import cutout_size_px, prepare_stamps
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.registry import build

CARD = ModelCard(
    name="small",
    family="small-cnn",
    bands=("g", "r", "i"),
    pixel_scale_arcsec=0.27,
    scale_tolerance=0.1,
    min_scale_arcsec=0.15,
    max_scale_arcsec=0.36,
    stamp_px=65,
    stretch=Stretch(band_scales=(0.016, 0.0057, 0.0038), alpha=0.09, q=1.0),
)
N = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    module = build(CARD.family, 3, CARD.stamp_px).train()
    module(torch.rand(16, 3, 65, 65))
    where = tmp_path_factory.mktemp("model") / "small"
    save_model(where, module, CARD)
    return where


@pytest.fixture(scope="module")
def cutouts() -> dict[float, np.ndarray]:
    rng = np.random.default_rng(1)
    sizes = {scale: cutout_size_px(CARD, scale) for scale in (0.186, 0.262)}
    return {s: rng.normal(0, 60, (N, 3, n, n)).astype(np.float32) for s, n in sizes.items()}


@pytest.fixture(scope="module")
def scorers(folder: Path) -> dict[int, Scorer]:
    return {size: Scorer(folder, device="cpu", batch_size=size) for size in (5, 32)}


@settings(max_examples=12, deadline=None)
@given(data=st.data(), size=st.sampled_from([5, 32]), scale=st.sampled_from([0.186, 0.262]))
def test_a_score_does_not_depend_on_the_stamps_scored_with_it(
    scorers: dict[int, Scorer], cutouts: dict[float, np.ndarray], data: st.DataObject, size: int, scale: float
) -> None:
    rows = data.draw(st.lists(st.integers(0, N - 1), min_size=1, max_size=N))
    together = scorers[size].score(cutouts[scale], pixel_scale_arcsec=scale)
    chosen = scorers[size].score(cutouts[scale][rows], pixel_scale_arcsec=scale)
    np.testing.assert_array_equal(chosen, together[rows])


def test_scores_differ_between_stamps_and_lie_between_0_and_1(
    scorers: dict[int, Scorer], cutouts: dict[float, np.ndarray]
) -> None:
    score = scorers[32].score(cutouts[0.262], pixel_scale_arcsec=0.262)
    assert score.dtype == np.float64
    assert len(np.unique(score)) == N
    assert ((score > 0) & (score < 1)).all()


def test_batches_agree_with_the_unfolded_network_one_stamp_at_a_time(
    folder: Path, scorers: dict[int, Scorer], cutouts: dict[float, np.ndarray]
) -> None:
    module, card = load_model(folder)
    stamps = torch.from_numpy(prepare_stamps(cutouts[0.186][:6], cutout_scale_arcsec=0.186, card=card))
    with torch.inference_mode():
        naive = torch.sigmoid(torch.cat([module(stamp[None]) for stamp in stamps]).double()).numpy()
    np.testing.assert_allclose(scorers[32].score(cutouts[0.186][:6], pixel_scale_arcsec=0.186), naive, rtol=1e-4)


def test_confident_stamps_do_not_tie_at_1(
    scorers: dict[int, Scorer], cutouts: dict[float, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers[32], "outputs", lambda stamps: np.linspace(20, 30, len(stamps))[:, None])
    score = scorers[32].score(cutouts[0.262][:9], pixel_scale_arcsec=0.262)
    assert (np.diff(score) > 0).all()
    assert score[-1] < 1


def test_rows_that_are_not_finite_are_named_and_masked_ones_are_not(
    scorers: dict[int, Scorer], cutouts: dict[float, np.ndarray]
) -> None:
    spoiled = cutouts[0.262][:6].copy()
    spoiled[2, 1, 30, 30] = np.nan
    spoiled[4, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match=r"must be finite.*n=2, rows='2,4'"):
        scorers[32].score(spoiled, pixel_scale_arcsec=0.262)
    mask = ~np.isfinite(spoiled)
    empty = np.where(mask, 0, spoiled).astype(np.float32)
    np.testing.assert_array_equal(
        scorers[32].score(spoiled, pixel_scale_arcsec=0.262, mask=mask),
        scorers[32].score(empty, pixel_scale_arcsec=0.262),
    )


def test_bands_are_taken_by_name(scorers: dict[int, Scorer], cutouts: dict[float, np.ndarray]) -> None:
    gri = cutouts[0.262][:4]
    iugr = np.stack([gri[:, 2], gri[:, 0] * 7, gri[:, 0], gri[:, 1]], axis=1)
    np.testing.assert_array_equal(
        scorers[32].score(iugr, pixel_scale_arcsec=0.262, bands=("i", "u", "g", "r")),
        scorers[32].score(gri, pixel_scale_arcsec=0.262),
    )


def test_data_that_do_not_fit_the_card_are_refused(
    scorers: dict[int, Scorer], cutouts: dict[float, np.ndarray]
) -> None:
    with pytest.raises(ModelError, match=r'takes pixels of 0\.15" to 0\.36", the data have 0\.5"'):
        scorers[32].score(cutouts[0.262], pixel_scale_arcsec=0.5)
    with pytest.raises(ModelError, match="i not among g r z"):
        scorers[32].score(cutouts[0.262], pixel_scale_arcsec=0.262, bands=("g", "r", "z"))
    with pytest.raises(DataError, match=r"large enough for the model.*\(n, 3, 101, 101\)"):
        scorers[32].score(cutouts[0.262], pixel_scale_arcsec=0.186)


def test_no_stamps_give_no_scores(scorers: dict[int, Scorer]) -> None:
    assert scorers[32].score(np.empty((0, 3, 65, 65), np.float32), pixel_scale_arcsec=0.27).shape == (0,)
