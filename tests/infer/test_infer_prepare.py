"""The input of a network: the sky stays where it was and as bright as it was, whatever the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.ndimage import map_coordinates

from lenspipe.image.stretch import humvi_composite, humvi_inverse
from lenspipe.infer.prepare import cutout_size_px, prepare_stamps
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.preprocess import surface_brightness

CARD = ModelCard(
    name="small",
    family="small-cnn",
    bands=("g", "r"),
    pixel_scale_arcsec=0.27,
    scale_tolerance=0.1,
    min_scale_arcsec=0.15,
    max_scale_arcsec=0.36,
    stamp_px=65,
    stretch=Stretch(band_scales=(0.016, 0.006), alpha=0.09, q=1.0),
)


def _blob(size_px: int, scale: float, x_arcsec: float, y_arcsec: float, sigma_arcsec: float) -> np.ndarray:
    """Gaussian of unit central surface brightness, as flux a pixel."""
    axis = (np.arange(size_px) - (size_px - 1) / 2) * scale
    r2 = (axis[None, :] - x_arcsec) ** 2 + (axis[:, None] - y_arcsec) ** 2
    return (np.exp(-0.5 * r2 / sigma_arcsec**2) * scale**2).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.15, 0.36), x=st.floats(-3, 3), y=st.floats(-3, 3))
def test_a_smooth_source_is_as_bright_and_where_it_was_on_any_pixels(scale: float, x: float, y: float) -> None:
    n = cutout_size_px(CARD, scale)
    sky = surface_brightness(np.stack([_blob(n, scale, x, y, 0.9)]), scale, size_px=65, card=CARD)[0]
    zoom = CARD.pixel_scale_arcsec if abs(scale / 0.27 - 1) > CARD.scale_tolerance else scale
    truth = _blob(65, zoom, x, y, 0.9) / zoom**2
    assert np.abs(sky - truth).max() < 0.015


def test_resampling_agrees_with_a_spline_where_pixels_get_finer() -> None:
    rng = np.random.default_rng(3)
    n = cutout_size_px(CARD, 0.34)
    stamp = sum(_blob(n, 0.34, *rng.uniform(-5, 5, 2), 0.6) for _ in range(6))[None]
    ours = surface_brightness(stamp, 0.34, size_px=65, card=CARD)[0]
    at = (np.arange(65) - 32) * 0.27 / 0.34 + (n - 1) / 2
    spline = map_coordinates(stamp[0], np.meshgrid(at, at, indexing="ij"), order=3) / 0.34**2
    np.testing.assert_allclose(ours, spline, atol=0.02 * spline.max())


def test_coarser_pixels_average_the_noise_by_the_integral_of_the_squared_kernel() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (40, 101, 101)).astype(np.float32)
    sky = surface_brightness(noise, 0.186, size_px=65, card=CARD) * 0.186**2

    def keys(t: float) -> float:
        """Cubic convolution of Keys (1981), eq. 15, a = -1/2."""
        return 1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2

    power = 2 * sum(quad(lambda t: keys(t) ** 2, low, low + 1)[0] for low in (0, 1))
    assert sky.std() == pytest.approx(power * 0.186 / 0.27, rel=0.02)


def test_a_pixel_scale_within_the_tolerance_is_taken_as_it_is() -> None:
    stamp = np.random.default_rng(0).normal(0, 1, (2, 67, 67)).astype(np.float32)
    np.testing.assert_array_equal(
        surface_brightness(stamp, 0.262, size_px=65, card=CARD), stamp[:, 1:66, 1:66] / np.float32(0.262**2)
    )
    assert cutout_size_px(CARD, 0.262) == 65


@pytest.mark.parametrize("scale", np.round(np.arange(0.15, 0.361, 0.01), 3))
def test_the_cutout_a_scan_takes_is_enough_and_no_more_changes_nothing(scale: float) -> None:
    n = cutout_size_px(CARD, scale)
    assert n % 2 == 1
    large = np.random.default_rng(2).normal(0, 40, (1, 2, n + 8, n + 8)).astype(np.float32)
    exact = prepare_stamps(large[:, :, 4:-4, 4:-4].copy(), cutout_scale_arcsec=scale, card=CARD)
    np.testing.assert_allclose(prepare_stamps(large, cutout_scale_arcsec=scale, card=CARD), exact, atol=2e-6)


def test_sky_outside_the_stamp_is_empty_not_invented() -> None:
    flat = np.ones((1, 41, 41), np.float32)
    sky = surface_brightness(flat, 0.2, size_px=65, card=CARD)[0] * 0.2**2
    inside = np.abs(np.arange(65) - 32) * 0.27 <= 3.9
    assert np.allclose(sky[np.ix_(inside, inside)], 1, atol=1e-5)
    assert np.abs(sky[:10]).max() == 0
    assert sky.min() >= -0.01
    assert sky.max() <= 1.2


def test_the_composite_agrees_with_the_formula_pixel_by_pixel() -> None:
    sky = np.random.default_rng(0).normal(20, 40, (3, 4, 4))
    scales, alpha, q = (0.016, 0.0057, 0.0038), 3.0, 1.2
    ours = humvi_composite(sky, band_scales=scales, alpha=alpha, q=q)
    for y in range(4):
        for x in range(4):
            x_b = [s * sky[b, y, x] for b, s in enumerate(scales)]
            mean = sum(x_b) / 3
            for b in range(3):
                want = x_b[b] * np.arcsinh(alpha * q * mean) / (q * mean)
                assert ours[b, y, x] == pytest.approx(min(max(want, 0), 1), abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(flux=st.lists(st.floats(0.1, 300), min_size=3, max_size=3))
def test_the_inverse_gives_back_what_was_not_clipped(flux: list[float]) -> None:
    how = {"band_scales": (0.016, 0.0057, 0.0038), "alpha": 0.09, "q": 1.0}
    sky = np.array(flux, np.float32).reshape(3, 1, 1)
    composite = humvi_composite(sky, **how)
    assert composite.max() < 1
    np.testing.assert_allclose(humvi_inverse(composite, **how), sky, rtol=1e-4)
