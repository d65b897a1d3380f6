"""Sums of pixel errors: they add up over any split, and give what plain formulas give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lenspipe.stats.denoising import PSNR_RANGE_SIGMA, PixelErrors, RatioSums, psnr


@given(st.integers(0, 500), st.integers(0, 2**31))
def test_errors_of_the_parts_add_up_to_those_of_the_whole(cut: int, seed: int) -> None:
    errors = np.random.default_rng(seed).normal(0, 2, 500)
    whole, parts = PixelErrors.of(errors), PixelErrors.of(errors[:cut]) + PixelErrors.of(errors[cut:])
    for key, value in whole.metrics().items():
        assert parts.metrics()[key] == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_the_means_are_torchs(rng: np.random.Generator) -> None:
    errors = rng.normal(0.1, 1.5, (4, 3, 8, 8))
    found, tensor = PixelErrors.of(errors).metrics(), torch.from_numpy(errors)
    nothing = torch.zeros_like(tensor)
    assert found["l1"] == pytest.approx(float(torch.nn.functional.l1_loss(tensor, nothing)), rel=1e-12)
    assert found["huber"] == pytest.approx(float(torch.nn.functional.huber_loss(tensor, nothing)), rel=1e-12)
    assert found["bias"] == pytest.approx(errors.mean(), rel=1e-9) and found["n_pixel"] == errors.size
    by_rmse = 20 * np.log10(PSNR_RANGE_SIGMA / found["rmse"])
    assert by_rmse == pytest.approx(psnr(errors, np.zeros_like(errors), data_range=PSNR_RANGE_SIGMA), rel=1e-12)


def test_no_pixel_has_no_mean() -> None:
    assert PixelErrors().metrics() == {"n_pixel": 0, "bias": None, "l1": None, "huber": None, "rmse": None}
    assert RatioSums.of(np.ones(1), np.ones(1)).metrics()["interval95"] is None


def test_the_interval_of_a_ratio_holds_the_truth_19_times_of_20_and_is_that_of_a_bootstrap() -> None:
    rng = np.random.default_rng(1)
    held, n_turn = 0, 400
    for _ in range(n_turn):
        b = rng.uniform(1, 3, 200)
        a = 0.6 * b + rng.normal(0, 0.4, 200)
        parts = RatioSums.of(a[:70], b[:70]) + RatioSums.of(a[70:], b[70:])
        low, high = parts.metrics()["interval95"]
        held += low <= 0.6 <= high
    assert held / n_turn == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / n_turn) ** 0.5)
    rows = rng.integers(0, 200, (4000, 200))
    boot = np.quantile(a[rows].mean(axis=1) / b[rows].mean(axis=1), [0.025, 0.975])
    np.testing.assert_allclose([low, high], boot, atol=0.1 * (high - low))
