# A denoiser leaves alone what it must: masked pixels, ratio 1, neighbours in a batch, and where windows meet.

import itertools

import numpy as np
import pytest
import torch
from denoisers import write_denoiser
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import DataError, ModelError
from lenspipe.infer.denoise import FLAG_BRIGHT, FLAG_MASKED, Denoiser, denoise_tile, fill_masked
from lenspipe.nn.families.unet import BOUND_SIGMA, compress, single_pixel_noise
from lenspipe.nn.registry import build

RMS = np.array([5.0, 7.0, 9.0])[:, None, None]


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    return Denoiser(write_denoiser(tmp_path_factory.mktemp("models") / "denoise"))


@pytest.fixture
def tile(rng):
    image = rng.normal(0, RMS, (3, 150, 203)).astype(np.float32)
    image[:, 60:70, 80:90] += 300
    return image, np.broadcast_to(RMS, image.shape).astype(np.float32)


@settings(max_examples=12, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50), n_band=st.integers(1, 3))
def test_any_size_and_any_number_of_bands_comes_back_in_its_shape(height, width, n_band):
    network = build("unet-small", n_band + 1, 32, n_band, width=2)
    images = torch.full((1, n_band + 1, height, width), 2.0)
    assert network(images).shape == (1, n_band, height, width)


def test_the_unet_has_the_levels_of_the_paper():
    """Pairs of 3 x 3 convolutions to 32..512 maps and back, 2 x 2 transpose convolutions, a 1 x 1 at the end."""
    maps, n = [4, 32, 64, 128, 256, 512], 0
    for a, b in itertools.pairwise(maps):
        n += 9 * a * b + b + 9 * b * b + b
    for a, b in itertools.pairwise(maps[1:]):
        n += 4 * b * a + a + 9 * 2 * a * a + a + 9 * a * a + a
    n += 32 * 3 + 3
    assert sum(p.numel() for p in build("unet", 4, 64, 3).parameters()) == n


def test_an_untrained_network_takes_faint_pixels_for_noise_and_leaves_bright_ones():
    x = torch.tensor([-1.0, 0.5, 2.0, 100.0, 3000.0])
    noise = single_pixel_noise(x)
    np.testing.assert_allclose(noise[:3], x[:3], rtol=0.07)
    assert float(noise[3:].abs().max()) < 0.01
    image = torch.cat([x.reshape(1, 1, 1, 5), torch.full((1, 1, 1, 5), 4.0)], dim=1)
    out = build("unet-small", 2, 32, 1, width=2)(image)
    np.testing.assert_allclose(out.detach()[0, 0, 0], x - 0.75 * noise, atol=0.02)


def test_what_the_network_sees_is_odd_and_grows_like_a_logarithm():
    x = np.linspace(-4000, 4000, 801).astype(np.float32)
    seen = compress(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(seen, -compress(torch.from_numpy(-x)).numpy())
    np.testing.assert_allclose(seen, np.sign(x) * np.log1p(np.abs(x)), rtol=1e-5)
    assert (np.diff(seen) > 0).all()


def test_a_ratio_of_one_is_the_image_itself(denoiser, tile):
    image = tile[0][None]
    np.testing.assert_array_equal(denoiser.denoise(image, RMS, ratio=1.0), image)


def test_what_is_taken_off_grows_with_the_ratio_as_the_noise_does(denoiser, tile):
    image = tile[0][None]
    change = denoiser.denoise(image, RMS, ratio=4.0) - image
    assert 0.1 < np.abs(change / RMS).max() <= 0.75 * BOUND_SIGMA + 1e-3


def test_a_stamp_does_not_depend_on_its_neighbours(denoiser, rng):
    stamps = rng.normal(0, 10, (40, 3, 33, 33)).astype(np.float32)
    together = denoiser.denoise(stamps, RMS, ratio=2.0)
    alone = np.concatenate([denoiser.denoise(stamps[k : k + 1], RMS, ratio=2.0) for k in (0, 31, 39)])
    np.testing.assert_array_equal(together[[0, 31, 39]], alone)


def test_windows_leave_no_seam(denoiser, tile):
    image, rms = tile
    none = np.zeros(image.shape, bool)
    whole, _ = denoise_tile(denoiser, image, rms, none, ratio=4.0, window_px=512)
    parts, _ = denoise_tile(denoiser, image, rms, none, ratio=4.0, window_px=40)
    np.testing.assert_allclose(parts, whole, atol=1e-4)
    assert np.abs(whole - image).max() > 1


def test_masked_pixels_come_back_as_they_were_and_touch_nothing_else(denoiser, tile):
    image, rms = tile
    mask = np.zeros(image.shape, bool)
    mask[:, 64:67, 84:87] = True
    mask[1, 5, :] = True
    results = []
    for held in (np.nan, 1e9, 0.0):
        spoilt = np.where(mask, np.float32(held), image)
        out, flags = denoise_tile(denoiser, spoilt, rms, mask, ratio=4.0, window_px=64)
        np.testing.assert_array_equal(out[mask], spoilt[mask])
        assert (flags[mask] == FLAG_MASKED).all()
        assert np.isfinite(out[~mask]).all()
        results.append(out[~mask])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_a_hole_is_filled_with_what_is_around_it(rng):
    image = np.full((1, 1, 30, 30), 7.0, np.float32)
    mask = np.zeros(image.shape, bool)
    mask[..., 10:13, 10:13] = True
    image[mask] = np.nan
    np.testing.assert_allclose(fill_masked(image, mask), 7.0, rtol=1e-5)
    mask[..., 0:20, 0:20] = True
    assert fill_masked(image, mask)[0, 0, 5, 5] == 0


def test_pixels_brighter_than_the_training_are_flagged(denoiser, tile):
    image, rms = tile
    image[:, 20, 30] = 1e6
    _, flags = denoise_tile(denoiser, image, rms, np.zeros(image.shape, bool), ratio=2.0)
    assert (flags[:, 20, 30] & FLAG_BRIGHT).all()
    assert (flags & FLAG_BRIGHT).sum() == 3 * FLAG_BRIGHT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(images_njy=a["images_njy"][:, :2]), "in the bands of the denoiser"),
        (lambda a: a["images_njy"].__setitem__((0, 0, 0, 0), np.nan), "finite where they are not masked"),
        (lambda a: a.update(sky_rms_njy=0 * RMS), "noise of the sky must be positive"),
        (lambda a: a.update(ratio=0.5), "ratio must be at least 1"),
    ],
)
def test_what_cannot_be_denoised_is_refused(denoiser, change, message):
    arguments = {"images_njy": np.ones((1, 3, 16, 16), np.float32), "sky_rms_njy": RMS, "ratio": 2.0}
    change(arguments)
    with pytest.raises(DataError, match=message):
        denoiser.denoise(arguments["images_njy"], arguments["sky_rms_njy"], ratio=arguments["ratio"])


def test_bands_and_pixel_scales_that_do_not_fit_are_refused(denoiser):
    assert denoiser.order(("i", "r", "g", "u"), 0.25) == [2, 1, 0]
    with pytest.raises(ModelError, match="i not among g r"):
        denoiser.order(("g", "r"), 0.25)
    with pytest.raises(ModelError, match=r'takes pixels of 0\.1" to 0\.4"'):
        denoiser.order(("g", "r", "i"), 0.5)


def test_a_finder_is_no_denoiser(tiny_model):
    with pytest.raises(ModelError, match="is not a denoiser"):
        Denoiser(tiny_model)


def test_a_denoiser_takes_one_plane_more_than_its_bands():
    with pytest.raises(ModelError, match="one plane of the exposure ratio"):
        build("unet-small", 3, 32, 3)
