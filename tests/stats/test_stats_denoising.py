# The measures of a denoiser agree with what they are defined as.

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sky import gaussian_sources

from lenspipe.stats.denoising import (
    aperture_fluxes,
    blank_positions,
    detection_rates,
    flux_errors,
    match_nearest,
    psnr,
    residual_structure,
    ssim,
)
from lenspipe.stats.denoising_finder import finder_gain, invented_arcs, tpr_at_fpr


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 30), m=st.integers(0, 30), seed=st.integers(0, 1000))
def test_matches_are_each_others_nearest(n, m, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 20, (n, 2)), rng.uniform(0, 20, (m, 2))
    one, two = match_nearest(a[:, 0], a[:, 1], b[:, 0], b[:, 1], radius_px=2.0)
    apart = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) if n and m else np.empty((n, m))
    want = {
        (i, j)
        for i in range(n)
        for j in range(m)
        if apart[i, j] <= 2 and apart[i].argmin() == j and apart[:, j].argmin() == i
    }
    assert set(zip(one.tolist(), two.tolist(), strict=True)) == want


def test_rates_of_nothing_are_not_a_number():
    assert detection_rates(0, 0, 0)["completeness"] is None
    rates = detection_rates(10, 8, 6)
    assert (rates["completeness"], rates["purity"]) == (0.6, 0.75)
    assert rates["f"] == pytest.approx(2 * 0.6 * 0.75 / 1.35)


def test_a_bias_is_found_in_the_bin_where_it_is(rng):
    flux = rng.uniform(1, 2, 400)
    magnitude = np.repeat([20.5, 21.5], 200)
    measured = flux * np.where(magnitude < 21, 1.0, 0.97) * rng.normal(1, 0.01, 400)
    fair, low, empty = flux_errors(measured, flux, magnitude, edges=(20, 21, 22, 23))
    assert abs(fair["bias"]) < 0.003
    assert low["bias"] == pytest.approx(-0.03, abs=0.003)
    assert low["bias_interval95"][0] < low["bias"] < low["bias_interval95"][1] < 0
    assert low["scatter"] == pytest.approx(0.0097, rel=0.25)
    assert empty["n"] == 0 and empty["bias"] is None


def test_apertures_hold_what_a_gaussian_has_within_their_radius():
    image = gaussian_sources((60, 60), np.array([30.2]), np.array([29.6]), np.array([100.0]), fwhm_px=4.0)
    flux = aperture_fluxes(image.astype(np.float32), np.array([30.2]), np.array([29.6]), radius_px=4.0)
    assert flux[0] == pytest.approx(100 * (1 - 2 ** -((4 / 2.0) ** 2)), rel=0.01)


def test_blank_circles_touch_no_source(rng):
    segments = np.zeros((80, 80), np.int32)
    segments[30:40, 20:50] = 1
    x, y = blank_positions(segments, radius_px=4.0, n=300, rng=rng)
    assert len(x) == 300
    rows, columns = np.nonzero(segments)
    assert min(np.hypot(columns - a, rows - b).min() for a, b in zip(x, y, strict=True)) > 4
    assert min(x.min(), y.min()) > 4 and max(x.max(), y.max()) < 75


def test_psnr_is_that_of_the_formula_and_grows_with_the_range_that_is_stated(rng):
    truth = rng.normal(size=(30, 30))
    image = truth + 0.1
    assert psnr(image, truth, data_range=1.0) == pytest.approx(20.0)
    assert psnr(image, truth, data_range=10.0) == pytest.approx(40.0)
    assert psnr(truth, truth, data_range=1.0) == np.inf


def test_ssim_agrees_with_a_sum_over_windows_written_out(rng):
    a, b = rng.normal(size=(2, 14, 14))
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2, values = 0.01**2 * 9, 0.03**2 * 9, []
    for y in range(5, 9):
        for x in range(5, 9):
            p, q = (image[y - 5 : y + 6, x - 5 : x + 6] for image in (a, b))
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert ssim(a, b, data_range=3.0) == pytest.approx(np.mean(values), rel=1e-10)
    assert ssim(a, a, data_range=3.0) == pytest.approx(1.0)


def test_white_noise_has_no_structure_and_smooth_noise_has(rng):
    blank = np.ones((200, 200), bool)
    blank[50:80, 50:80] = False
    white = rng.normal(0.2, 2.0, (200, 200))
    white[60, 60] = 1e6
    found = residual_structure(white, blank)
    assert found["std"] == pytest.approx(2.0, rel=0.02)
    assert found["mean"] == pytest.approx(0.2, abs=0.04)
    assert max(abs(found["correlation_1"]), abs(found["correlation_4"]), abs(found["kurtosis"])) < 0.1
    smooth = (white + np.roll(white, 1, axis=1)) / 2
    blank[:, 49:82] = False
    assert residual_structure(smooth, blank)["correlation_1"] == pytest.approx(0.5, abs=0.03)


def test_rates_at_a_threshold_are_counted_one_by_one(rng):
    lens, other = rng.integers(0, 12, 50).astype(float), rng.integers(0, 10, 200).astype(float)
    for rate in (0.0, 0.01, 0.1):
        best = max((int((lens > t).sum()) for t in np.unique(other) if (other > t).sum() <= rate * 200), default=0)
        assert tpr_at_fpr(lens, other, rate)[0] == best


def test_a_finder_that_sees_better_gains_and_one_that_sees_the_same_does_not(rng):
    is_lens = np.arange(3000) < 600
    raw = rng.normal(size=(3, 3000)) + 2.0 * is_lens
    same = raw + 1e-9 * rng.normal(size=raw.shape)
    clear = rng.normal(size=(3, 3000)) + 3.0 * is_lens
    nothing = finder_gain(raw, same, is_lens, rates=(1e-2,), n_boot=200)["tpr_gain"]["0.01"]
    more = finder_gain(raw, clear, is_lens, rates=(1e-2,), n_boot=200)["tpr_gain"]["0.01"]
    assert nothing["interval95"][0] <= 0 <= nothing["interval95"][1]
    assert abs(nothing["value"]) < 0.01
    assert more["interval95"][0] > 0.2
    # a normal of mean 3 above the 99th percentile of one of mean 0
    assert more["value"] == pytest.approx(0.749 - 0.372, abs=0.06)


def test_invented_arcs_are_those_that_pass_only_after(rng):
    is_lens = np.arange(1100) < 100
    raw = rng.normal(size=(2, 1100)) + 5 * is_lens
    after = raw.copy()
    after[0, 200:230] = 50
    found = invented_arcs(raw, after, is_lens, n_boot=200)
    was = (raw[0, 200:230] > tpr_at_fpr(raw[0][:100], raw[0][100:], 1e-2)[1]).sum()
    assert found["new"] == [30 - was, 0] and found["gone"] == [0, 0]
    assert found["per_10000"] == pytest.approx((30 - was) / 2 / 1000 * 1e4)
