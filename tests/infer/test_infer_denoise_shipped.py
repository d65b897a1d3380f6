# The denoiser that ships: small, with a verdict, true to the flux of stars, and quiet where there is no noise.

import numpy as np
import pytest
from sky import gaussian_sources

from lenspipe.infer.denoise import Denoiser
from lenspipe.nn.card import SHIPPED, WEIGHTS_FILE, find_model, verdict
from lenspipe.stats.denoising import aperture_fluxes

RMS = np.array([13.0, 15.0, 34.0])[:, None, None]


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(find_model("denoise-ground"), device="cpu")


@pytest.fixture(scope="module")
def stars():
    rng = np.random.default_rng(8)
    x, y = (axis.ravel() + rng.uniform(-3, 3, 36) for axis in np.meshgrid(*2 * [np.arange(20, 260, 40.0)]))
    flux = np.tile([3000.0, 10000.0, 100000.0], 12)
    clean = np.stack([gaussian_sources((260, 260), x, y, flux * f, fwhm_px=4.0) for f in (0.5, 1.0, 1.6)])
    return x, y, flux, clean.astype(np.float32)


def test_it_is_small_and_its_card_carries_the_verdict_and_why(denoiser):
    assert (SHIPPED / "denoise-ground" / WEIGHTS_FILE).stat().st_size < 10_000_000
    assert verdict(denoiser.card) in ("passed", "failed")
    gate = denoiser.card.metrics["gate"]
    assert gate["passed"] == (not gate["reasons"])
    assert gate["finder"]["n_other"] >= 3000 and gate["finder"]["n_seed"] >= 3
    assert gate["control"]["blur passed"] is False


def test_the_flux_of_stars_is_kept(denoiser, stars):
    x, y, flux, clean = stars
    rng = np.random.default_rng(9)
    noisy = clean[None] + rng.normal(0, RMS, (4, *clean.shape))
    after = denoiser.denoise(noisy, RMS, ratio=4.0)
    got = np.mean([aperture_fluxes(image[1], x, y, radius_px=6.0) for image in after], axis=0)
    want = aperture_fluxes(clean[1], x, y, radius_px=6.0)
    for level, limit in ((100000.0, 0.005), (10000.0, 0.02), (3000.0, 0.08)):
        rows = flux == level
        assert abs(np.median(got[rows] / want[rows]) - 1) < limit


def test_it_takes_noise_off_and_leaves_a_sky_without_noise_nearly_as_it_is(denoiser, stars):
    clean = stars[-1]
    rng = np.random.default_rng(10)
    noisy = (clean + rng.normal(0, RMS, clean.shape)).astype(np.float32)
    left = (denoiser.denoise(noisy[None], RMS, ratio=8.0)[0] - clean) / RMS
    assert left.std() < 0.75
    quiet = (denoiser.denoise(clean[None], RMS, ratio=8.0)[0] - clean) / RMS
    assert np.sqrt(np.mean(quiet**2)) < 0.25
