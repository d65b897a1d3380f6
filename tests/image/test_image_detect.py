import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial import cKDTree
from sky import NOISE_NJY, gaussian_sources

import lenspipe.image.detect as detect_module
from lenspipe.image.background import estimate_background
from lenspipe.image.detect import DETECTORS, detect_photutils, detect_sep, detection_sum
from lenspipe.image.sources import FLAG_BLENDED, FLAG_EDGE

SETTINGS = {"threshold_sigma": 1.5, "min_area_px": 5, "deblend_levels": 32, "deblend_contrast": 0.005}
SHAPE = (256, 300)


@pytest.fixture
def field(rng):
    grid = [(x, y) for x in range(30, 280, 40) for y in range(30, 230, 40)]
    x_px, y_px = (np.array(grid, float) + rng.uniform(-5, 5, (len(grid), 2))).T
    flux_njy = rng.uniform(3000, 30000, len(grid))
    image = (gaussian_sources(SHAPE, x_px, y_px, flux_njy) + rng.normal(0, NOISE_NJY, SHAPE)).astype("f4")
    return image, np.full(SHAPE, NOISE_NJY, "f4"), np.zeros(SHAPE, bool), x_px, y_px


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_injected_source_is_found_where_it_is_and_nothing_else(field, detector):
    image, rms, mask, x_px, y_px = field
    sources, segments = DETECTORS[detector](image, rms, mask, **SETTINGS | {"threshold_sigma": 4.0})
    apart, which = cKDTree(np.c_[sources.x_px, sources.y_px]).query(np.c_[x_px, y_px])
    assert len(sources) == len(x_px)
    assert apart.max() < 0.35
    assert sorted(which) == list(range(len(x_px)))
    assert set(np.unique(segments)) == {0, *sources.label}


def test_sep_and_photutils_agree_on_real_pixels(real_data):
    from astropy.io import fits

    image = fits.getdata(real_data / "tiles/vircam_video/image_1.fits", 1)[300:900, 300:900].astype("f4")
    mask = np.zeros(image.shape, bool)
    sky = estimate_background(image, mask, mesh_px=64, filter_mesh=3)
    image = image - sky.level()
    strict = SETTINGS | {"threshold_sigma": 3.0}
    one, _ = detect_sep(image, sky.rms, mask, **strict)
    two, _ = detect_photutils(image, sky.rms, mask, **strict)
    apart, _ = cKDTree(np.c_[two.x_px, two.y_px]).query(np.c_[one.x_px, one.y_px])
    assert len(one) > 40
    assert (apart < 1.0).mean() > 0.9


def test_sources_come_in_order_of_rows_whatever_the_detector(field):
    image, rms, mask, *_ = field
    for detector in DETECTORS.values():
        sources, _ = detector(image, rms, mask, **SETTINGS)
        assert (np.lexsort((sources.x_px, sources.y_px)) == np.arange(len(sources))).all()


def test_masked_pixels_are_no_sources(field):
    image, rms, mask, x_px, _ = field
    mask[:, :100] = True
    image[mask] = 1e6
    for detector in DETECTORS.values():
        sources, _ = detector(image, rms, mask, **SETTINGS | {"threshold_sigma": 4.0})
        assert len(sources) == (x_px > 100).sum()


def test_noise_alone_gives_an_empty_table(rng):
    flat = np.zeros((64, 64), "f4")
    for detector in DETECTORS.values():
        sources, segments = detector(flat, np.ones_like(flat), flat > 1, **SETTINGS)
        assert len(sources) == 0
        assert (segments == 0).all()


@pytest.mark.parametrize("detector", DETECTORS)
def test_blends_and_edges_are_flagged(detector):
    x_px, y_px = np.array([60.0, 68.0, 2.0, 150.0]), np.array([60.0, 60.0, 100.0, 60.0])
    image = gaussian_sources((128, 200), x_px, y_px, np.full(4, 3e4)).astype("f4")
    noise = np.random.default_rng(1).normal(0, NOISE_NJY, image.shape)
    sources, _ = DETECTORS[detector](
        (image + noise).astype("f4"),
        np.full(image.shape, NOISE_NJY, "f4"),
        image < -1,
        **SETTINGS | {"threshold_sigma": 5},
    )
    flag = {round(x): int(f) for x, f in zip(sources.x_px, sources.flags, strict=True)}
    assert flag[60] & FLAG_BLENDED
    assert flag[68] & FLAG_BLENDED
    assert flag[150] == 0
    assert next(f for x, f in flag.items() if x < 6) & FLAG_EDGE


def test_a_window_too_crowded_for_seps_buffers_is_tried_again_with_larger_ones(field, monkeypatch):
    image, rms, mask, x_px, _ = field
    monkeypatch.setattr(detect_module, "PIXSTACK", 100)
    monkeypatch.setattr(detect_module, "DEBLEND_LIMIT", 2)
    sources, _ = detect_sep(image, rms, mask, **SETTINGS | {"threshold_sigma": 4.0})
    assert len(sources) == len(x_px)


def test_the_weighted_sum_has_the_noise_it_claims(rng):
    rms = [np.full((200, 200), s, "f4") for s in (2.0, 5.0, 9.0)]
    images = np.stack([rng.normal(0, r) for r in rms]).astype("f4")
    masks = np.zeros(images.shape, bool)
    masks[:, :10], masks[0, 10:20] = True, True
    image, noise, mask = detection_sum(images, rms, masks)
    assert mask[:10].all()
    assert not mask[10:].any()
    assert_allclose(noise[100, 100], (2.0**-2 + 5.0**-2 + 9.0**-2) ** -0.5, rtol=1e-6)
    assert_allclose(noise[15, 100], (5.0**-2 + 9.0**-2) ** -0.5, rtol=1e-6)
    assert image[20:].std() == pytest.approx(noise[100, 100], rel=0.02)


def test_the_background_follows_a_slope_and_measures_the_noise(rng):
    slope = np.linspace(0, 10, 512, dtype="f4")[None, :] * np.ones((512, 1), "f4")
    image = (slope + rng.normal(100, 3, (512, 512))).astype("f4")
    sky = estimate_background(image, np.zeros(image.shape, bool), mesh_px=64, filter_mesh=3)
    assert np.abs(sky.level() - 100 - slope)[64:-64, 64:-64].max() < 1.5
    assert sky.median_rms == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_a_constant_image_has_no_background(value):
    image = np.full((128, 128), value, "f4")
    assert estimate_background(image, image < -1, mesh_px=64, filter_mesh=3) is None
    assert estimate_background(image, image > -1, mesh_px=64, filter_mesh=3) is None


def test_a_sliver_of_data_has_no_background_that_could_be_measured(rng):
    image = rng.normal(200, 30, (512, 512)).astype("f4")
    mask = np.ones(image.shape, bool)
    mask[:, :20] = False
    assert estimate_background(image, mask, mesh_px=64, filter_mesh=3) is None
    mask[:, :40] = False
    sky = estimate_background(image, mask, mesh_px=64, filter_mesh=3)
    assert sky.median_rms == pytest.approx(30, rel=0.1)
