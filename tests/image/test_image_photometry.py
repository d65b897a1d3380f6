import astropy.units as u
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sky import FWHM_PX, NOISE_NJY, gaussian_sources

from lenspipe.image.detect import detect_sep
from lenspipe.image.photometry import ab_magnitude, ab_magnitude_error, kron_apertures, kron_fluxes
from lenspipe.image.sources import FLAG_MASKED

SETTINGS = {"threshold_sigma": 2.0, "min_area_px": 5, "deblend_levels": 32, "deblend_contrast": 0.005}
SHAPE = (200, 200)


def measure(image, mask=None, rms=NOISE_NJY):
    mask = np.zeros(image.shape, bool) if mask is None else mask
    noise = np.full(image.shape, rms, "f4")
    sources, segments = detect_sep(image, noise, mask, **SETTINGS)
    apertures = kron_apertures(image, mask, sources, segments)
    return sources, apertures, *kron_fluxes(image, noise, mask, sources, segments, apertures)


def image_of(rng, x_px, y_px, flux_njy):
    clean = gaussian_sources(SHAPE, np.array(x_px), np.array(y_px), np.array(flux_njy))
    return (clean + rng.normal(0, NOISE_NJY, SHAPE)).astype("f4")


def test_kron_flux_and_half_light_radius_of_a_gaussian_are_those_put_in(rng):
    _, apertures, flux, _ = measure(image_of(rng, [60.3, 140.8], [70.1, 130.4], [2e4, 5e4]))
    assert_allclose(flux, [2e4, 5e4], rtol=0.06)
    assert_allclose(apertures.half_light_radius_px, FWHM_PX / 2, rtol=0.06)


def test_the_flux_error_is_the_scatter_of_repeated_measurements():
    fluxes, errors = [], []
    for seed in range(60):
        sources, _, flux, error = measure(image_of(np.random.default_rng(seed), [100.0], [100.0], [3000.0]))
        i = np.argmin(np.hypot(sources.x_px - 100, sources.y_px - 100))
        fluxes.append(flux[i])
        errors.append(error[i])
    assert np.std(fluxes) == pytest.approx(np.median(errors), rel=0.45)  # 60 draws: 9 %; the aperture varies too


def test_a_bright_neighbour_does_not_add_its_light(rng):
    alone = measure(image_of(rng, [100.0], [100.0], [8e3]))[2][0]
    sources, _, flux, _ = measure(image_of(rng, [100.0, 116.0], [100.0, 100.0], [8e3, 3e5]))
    near = flux[np.argmin(np.hypot(sources.x_px - 100, sources.y_px - 100))]
    assert near == pytest.approx(alone, rel=0.5)


def test_fluxes_agree_with_photutils_in_the_same_ellipses(rng):
    from photutils.aperture import EllipticalAperture

    image = image_of(rng, [60.0, 140.0], [70.0, 130.0], [2e4, 5e4])
    sources, apertures, flux, _ = measure(image)
    for i in range(len(sources)):
        ellipse = EllipticalAperture(
            (sources.x_px[i], sources.y_px[i]),
            apertures.a_px[i] * apertures.radius[i],
            apertures.b_px[i] * apertures.radius[i],
            theta=sources.theta_rad[i],
        )
        assert flux[i] == pytest.approx(ellipse.do_photometry(image, method="center")[0][0], rel=1e-4, abs=1)


def test_mask_fraction_counts_masked_pixels_and_those_beyond_the_edge(rng):
    image = image_of(rng, [60.0, 3.0], [70.0, 130.0], [5e4, 5e4])
    mask = np.zeros(SHAPE, bool)
    sources, apertures, *_ = measure(image, mask)
    edge = np.argmin(sources.x_px)
    assert 0.05 < apertures.mask_fraction[edge] < 0.5
    assert apertures.flags[edge] & FLAG_MASKED
    assert apertures.mask_fraction[1 - edge] == 0
    mask[65:76, 62:75] = True
    image[mask] = 0
    sources, apertures, *_ = measure(image, mask)
    inner = np.argmin(np.hypot(sources.x_px - 60, sources.y_px - 70))
    assert 0.05 < apertures.mask_fraction[inner] < 0.6


def test_a_band_that_is_masked_throughout_the_aperture_has_no_flux(rng):
    image = image_of(rng, [60.0], [70.0], [5e4])
    clear = np.zeros(SHAPE, bool)
    noise = np.full(SHAPE, NOISE_NJY, "f4")
    sources, segments = detect_sep(image, noise, clear, **SETTINGS | {"threshold_sigma": 5})
    apertures = kron_apertures(image, clear, sources, segments)
    flux, error = kron_fluxes(image, noise, ~clear, sources, segments, apertures)
    assert np.isnan(flux).all()
    assert np.isnan(error).all()


def test_magnitudes_are_those_of_astropy():
    flux = np.array([1.0, 250.0, 3.631e12])
    assert_allclose(ab_magnitude(flux), (flux * u.nJy).to(u.ABmag).value, atol=1e-3)
    assert np.isnan(ab_magnitude(np.array([0.0, -3.0, np.nan]))).all()
    assert ab_magnitude_error(np.array([100.0]), np.array([1.0]))[0] == pytest.approx(0.01086, rel=1e-3)
