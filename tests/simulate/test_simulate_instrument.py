import numpy as np
import pytest
from astropy.io import fits

from lenspipe.errors import ConfigError
from lenspipe.simulate.instrument import add_noise, gaussian_kernel, image_kernel, moffat_kernel, sky_rms_of_depth_njy
from lenspipe.simulate.negatives import Sky
from lenspipe.simulate.observe import draw_conditions, observe
from lenspipe.simulate.photometry import magnitude_of_njy, njy_of_magnitude
from lenspipe.simulate.recipe import read_recipe


def width_at_half_maximum(kernel, scale):
    line = kernel[len(kernel) // 2] / kernel.max()
    x = np.arange(len(line)) * scale
    left = np.interp(0.5, line[: len(line) // 2 + 1], x[: len(line) // 2 + 1])
    return 2 * (x[len(line) // 2] - left)


@pytest.mark.parametrize("make", [gaussian_kernel, moffat_kernel])
def test_kernels_have_their_width_and_unit_sum(make):
    kernel = make(0.8, 0.02)
    assert kernel.sum() == pytest.approx(1)
    assert width_at_half_maximum(kernel, 0.02) == pytest.approx(0.8, rel=0.005)


def test_noise_of_blank_pixels_is_the_instruments(rng):
    noisy = add_noise(np.zeros((2, 300, 300)), sky_rms_njy=[5.0, 40.0], njy_per_electron=[1.0, 2.0], rng=rng)
    assert noisy.dtype == np.float32
    np.testing.assert_allclose(noisy.std(axis=(1, 2)), [5.0, 40.0], rtol=0.02)
    assert np.abs(noisy.mean(axis=(1, 2)) / [5.0, 40.0]).max() < 4 / 300


def test_photon_noise_is_counted_once(rng):
    flux, gain, sky = 2000.0, 3.0, 50.0
    noisy = add_noise(np.full((1, 400, 400), flux), sky_rms_njy=[sky], njy_per_electron=[gain], rng=rng)
    assert noisy.mean() == pytest.approx(flux, rel=1e-3)
    assert noisy.std() == pytest.approx(np.sqrt(sky**2 + flux * gain), rel=0.02)


def test_depth_is_five_sigma_in_a_two_arcsec_aperture(rng):
    rms = float(sky_rms_of_depth_njy(25.0, 0.25))
    noise = rng.normal(0, rms, (2000, 8, 8))
    y, x = np.indices((8, 8)) - 3.5
    aperture = np.hypot(x, y) <= 4.0
    spread = noise[:, aperture].sum(axis=1).std() * np.sqrt(np.pi / 0.25**2 / aperture.sum())
    assert magnitude_of_njy(5 * spread) == pytest.approx(25.0, abs=0.05)


def test_psf_images_must_have_flux_and_odd_sides():
    with pytest.raises(ConfigError, match="odd sides"):
        image_kernel(np.ones((4, 5)))
    with pytest.raises(ConfigError, match="hold flux"):
        image_kernel(np.zeros((5, 5)))
    assert image_kernel(np.array([[0, 0, 0], [0, 4, -1], [0, 0, 0]])).sum() == pytest.approx(1)


@pytest.fixture(scope="module")
def kids_sky_rms_njy(real_data):
    """Robust spread of the blank sky of the KiDS tile, whose pixels are maggies of 0.339 arcsec."""
    import sep
    from scipy.ndimage import binary_dilation

    measured = {}
    for band in "ugri":
        with fits.open(real_data / "tiles" / "kids_viking" / f"{band}.fits") as file:
            tile = np.ascontiguousarray(file[1].section[800:1800, 800:1800], dtype=np.float64) * njy_of_magnitude(0.0)
        tile -= sep.Background(tile, bw=128, bh=128).back()
        spread = 1.4826 * np.median(np.abs(tile - np.median(tile)))
        found = sep.extract(tile, 1.5, err=spread, segmentation_map=True)[1] > 0
        blank = tile[~binary_dilation(found, iterations=4)]
        measured[band] = 1.4826 * np.median(np.abs(blank - np.median(blank)))
    return measured


@pytest.mark.parametrize("name", ["ground-gri", "ground-ugri"])
def test_a_blank_kids_like_stamp_has_the_noise_of_the_real_tile(kids_sky_rms_njy, name):
    """Stamps of nothing, as the recipe's KiDS takes them in the tile's pixels: the median of 60 nights."""
    recipe = read_recipe(name, pixel_scale_arcsec=0.339, survey="kids")
    spread = []
    for night in range(60):
        rng = np.random.default_rng([4, night])
        images, _ = observe(Sky(), recipe, draw_conditions(rng, recipe), rng)
        spread.append(images["image"].std(axis=(1, 2)))
    want = [kids_sky_rms_njy[band] for band in recipe.bands]
    np.testing.assert_allclose(np.median(spread, axis=0), want, rtol=0.2)
