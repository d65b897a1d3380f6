"""The batch on its device: stretch as the card asks, augmentation that keeps what it must."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from lenspipe.errors import ConfigError
from lenspipe.infer.committee import dihedral_view
from lenspipe.learn.augment_batch import NONE, VIEWS_ONLY, augment_batch, turn
from lenspipe.learn.device_input import device_input
from lenspipe.learn.settings import AugmentSettings
from lenspipe.nn.card import Stretch
from lenspipe.nn.preprocess import network_input, stretch_inverse

BESIDE = {"high_pass_px": 1.5, "high_pass_beside": True}
MIX = ((0.5, 0.5, 0.0), (0.0, 0.3, 0.7))


@pytest.mark.parametrize("name", ["humvi", "asinh", "log", "sqrt", "linear"])
@pytest.mark.parametrize("mix", [None, MIX])
@pytest.mark.parametrize(
    "more", [{}, {"standardise": True}, {"high_pass_px": 1.5}, {"standardise": True, "high_pass_px": 1.5}, BESIDE]
)
def test_the_input_equals_the_one_of_scoring(rng, name, mix, more):
    if more is BESIDE:
        more = BESIDE | {"channel_scales": tuple(range(1, 1 + 2 * len(mix or "gri")))}
    rule = Stretch(name=name, band_scales=(0.3, 0.2, 0.1), mix=mix, alpha=0.1, q=0.8, **more)
    sky = (rng.normal(0, 30, (4, 3, 11, 11)) * rng.lognormal(0, 2, (4, 1, 1, 1))).astype(np.float32)
    np.testing.assert_allclose(
        device_input(torch.from_numpy(sky), rule).numpy(), network_input(sky, rule), rtol=1e-5, atol=1e-5
    )


def test_less_its_blur_what_is_flat_is_nothing_and_a_point_stays(rng):
    rule = Stretch(name="linear", band_scales=(1.0,), alpha=1.0, q=1.0, high_pass_px=1.5)
    assert np.abs(network_input(np.full((1, 15, 15), 40.0, np.float32), rule)).max() < 1e-4
    point = np.zeros((1, 15, 15), np.float32)
    point[0, 7, 7] = 1
    np.testing.assert_allclose(
        network_input(point, rule), point - gaussian_filter(point, (0, 1.5, 1.5), truncate=5), atol=1e-4
    )


def test_what_is_less_its_blur_comes_after_the_channels_as_they_are(rng):
    rule = Stretch(name="asinh", band_scales=(0.3, 0.2), alpha=0.1, q=0.8)
    sky = rng.normal(0, 30, (2, 9, 9)).astype(np.float32)
    both = network_input(sky, rule.model_copy(update=BESIDE | {"channel_scales": (1.0, 2.0, 3.0, 4.0)}))
    alone = network_input(sky, rule), network_input(sky, rule.model_copy(update={"high_pass_px": 1.5}))
    np.testing.assert_allclose(both, np.concatenate(alone) * np.array([1, 2, 3, 4])[:, None, None], rtol=1e-5)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"high_pass_beside": True}, "high_pass_px"),
        (BESIDE | {"channel_scales": (1.0, 2.0)}, "2 channel_scales for 4 channels"),
        ({"standardise": True, "channel_scales": (1.0, 2.0)}, "standardise"),
        ({"channel_scales": (1.0, 0.0)}, "must be positive"),
    ],
)
def test_channels_that_contradict_themselves_are_refused(more, said):
    with pytest.raises(ValidationError, match=said):
        Stretch(name="asinh", band_scales=(0.3, 0.2), alpha=0.1, q=0.8, **more)


def test_the_blur_is_taken_off_before_the_stamp_is_standardised(rng):
    rule = Stretch(name="asinh", band_scales=(0.3, 0.2), alpha=0.4, q=0.8, high_pass_px=1.5, standardise=True)
    sky = rng.normal(20, 30, (2, 15, 15)).astype(np.float32)
    stretched = np.arcsinh(0.4 * 0.8 * sky * np.array([0.3, 0.2])[:, None, None]) / 0.8
    inside = gaussian_filter(np.ones((15, 15)), 1.5, mode="constant", truncate=12)
    left = stretched - gaussian_filter(stretched, (0, 1.5, 1.5), mode="constant", truncate=12) / inside
    np.testing.assert_allclose(network_input(sky, rule), (left - left.mean()) / left.std(), atol=1e-4)


@pytest.mark.parametrize("forgets", [{"high_pass_px": 1.5}, {"standardise": True}, {"smooth_residual": True}])
def test_what_forgets_the_sky_is_not_undone(forgets):
    rule = Stretch(name="asinh", band_scales=(0.3,), alpha=0.4, q=0.8, **forgets)
    with pytest.raises(ConfigError, match="stretch cannot be undone"):
        stretch_inverse(np.zeros((1, 5, 5)), rule)


@pytest.mark.parametrize("name", ["asinh", "log", "sqrt", "linear"])
def test_a_stretch_is_undone(rng, name):
    rule, sky = Stretch(name=name, band_scales=(0.3,), alpha=0.4, q=0.8), rng.normal(0, 30, (1, 5, 5))
    np.testing.assert_allclose(stretch_inverse(network_input(sky, rule), rule), sky, rtol=1e-4)


def stamps(rng, n=64, side=15):
    return torch.from_numpy(rng.normal(0, 1, (n, 2, side, side)).astype(np.float32))


def augmented(batch, settings, seed=3, levels=(1.0, 1.0)):
    return augment_batch(batch, settings, np.random.default_rng(seed), noise_levels=levels)


def test_without_augmentation_the_batch_is_the_same_and_a_copy(rng):
    batch = stamps(rng)
    out = augmented(batch, NONE)
    assert torch.equal(out, batch)
    assert out.data_ptr() != batch.data_ptr()


def test_the_same_draws_give_the_same_batch_and_others_another(rng):
    batch = stamps(rng)
    assert torch.equal(augmented(batch, AugmentSettings()), augmented(batch, AugmentSettings()))
    assert not torch.equal(augmented(batch, AugmentSettings()), augmented(batch, AugmentSettings(), seed=4))


def test_the_eight_views_are_exact_and_all_occur(rng):
    batch = stamps(rng, n=200)
    assert torch.equal(turn(batch[:8], np.arange(8))[5], torch.from_numpy(dihedral_view(batch[5].numpy(), 5).copy()))
    out = augmented(batch, VIEWS_ONLY)
    seen = set()
    for before, after in zip(batch, out, strict=True):
        (view,) = [v for v in range(8) if np.array_equal(dihedral_view(before.numpy(), v), after.numpy())]
        seen.add(view)
    assert seen == set(range(8))


def test_a_shift_moves_the_source_by_at_most_a_tenth_of_the_side():
    batch = torch.zeros(200, 1, 41, 41)
    batch[:, :, 20, 20] = 1.0
    settings = NONE.model_copy(update={"affine_fraction": 1.0, "zoom_min": 1.0, "shear": 0.0})
    out = augmented(batch, settings, levels=(1.0,))[:, 0]
    y, x = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
    centres = torch.stack([(out * x).sum((1, 2)), (out * y).sum((1, 2))], 1) - 20
    assert torch.allclose(out.sum((1, 2)), torch.ones(200), atol=1e-4)
    assert 3.6 < centres.abs().max() <= 4.1 + 1e-3


def test_zoom_enlarges_and_keeps_surface_brightness():
    y, x = np.mgrid[:61, :61] - 30.0
    disc = torch.from_numpy(np.exp(-(x**2 + y**2) / (2 * 5.0**2)).astype(np.float32))[None, None].repeat(100, 1, 1, 1)
    settings = NONE.model_copy(update={"affine_fraction": 1.0, "shift": 0.0, "shear": 0.0})
    out = augmented(disc, settings, levels=(1.0,))[:, 0]
    growth = out.sum((1, 2)) / disc[0].sum()
    assert torch.allclose(out[:, 30, 30], torch.ones(100), atol=2e-2)
    assert 1.0 <= growth.min() < 1.05
    assert 1.65 < growth.max() <= 1 / 0.75**2 + 0.01


def test_brightness_scales_whole_bands_by_the_scatter_asked_for():
    batch = torch.ones(4000, 2, 3, 3)
    out = augmented(batch, NONE.model_copy(update={"brightness": 0.1, "band_brightness": 0.05}))
    assert torch.equal(out.amax((2, 3)), out.amin((2, 3)))
    gains = np.log10(out[:, :, 0, 0].numpy())
    both, alone = gains.mean(axis=1), gains[:, 1] - gains[:, 0]
    np.testing.assert_allclose(both.std(), np.hypot(0.1, 0.05 / 2**0.5), rtol=0.06)
    np.testing.assert_allclose(alone.std(), 0.05 * 2**0.5, rtol=0.06)


def test_blur_is_a_gaussian_of_unit_sum(rng):
    batch = torch.zeros(1, 1, 31, 31)
    batch[:, :, 14, 17] = 5.0
    out = augmented(batch, NONE.model_copy(update={"blur_fraction": 1.0, "blur_px": 1.5}), levels=(1.0,))[0, 0]
    draws = [gaussian_filter(batch[0, 0].numpy(), sigma, truncate=8) for sigma in np.linspace(0.05, 1.5, 1451)]
    assert min(np.abs(out.numpy() - draw).max() for draw in draws) < 2e-3
    assert out.sum() == pytest.approx(5.0, rel=1e-4)


def test_noise_and_background_have_the_size_of_the_band(rng):
    batch = torch.zeros(400, 2, 21, 21)
    noisy = NONE.model_copy(update={"noise_fraction": 1.0, "noise": (2.0, 2.0)})
    spread = augmented(batch, noisy, levels=(1.0, 10.0)).std(dim=(0, 2, 3))
    torch.testing.assert_close(spread, torch.tensor([2.0, 20.0]), rtol=0.01, atol=0)
    flat = augmented(batch, NONE.model_copy(update={"background": 0.5}), levels=(1.0, 10.0))
    assert flat.std(dim=(2, 3)).max() < 1e-5
    torch.testing.assert_close(flat.mean(dim=(2, 3)).std(dim=0), torch.tensor([0.5, 5.0]), rtol=0.12, atol=0)


def test_gaps_are_empty_strips_in_all_bands(rng):
    batch = torch.ones(100, 2, 25, 25)
    out = augmented(batch, NONE.model_copy(update={"gap_fraction": 1.0, "gap": 0.2}))
    empty = (out == 0).all(dim=1)
    rows, columns = empty.all(dim=2).sum(dim=1), empty.all(dim=1).sum(dim=1)
    assert ((rows > 0) ^ (columns > 0)).all()
    assert (rows + columns).max() == 5
    assert torch.equal((out == 0).sum(dim=(1, 2, 3)), 2 * 25 * (rows + columns))
