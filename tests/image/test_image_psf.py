# Stars of known PSF on noise, among galaxies: the locus, the PSF, and what is said where stars are too few.

import numpy as np
import pytest

from lenspipe.image.psf import MIN_STARS, SIDE_PX, measure_psf, moffat
from lenspipe.image.stars import find_locus, saturated_stars

NOISE = 5.0
SHAPE = (700, 700)


def shape_of(fwhm_px, beta, axis_ratio=1.0, angle_deg=0.0):
    size, turn = -0.5 * np.log(axis_ratio), np.radians(2 * angle_deg)
    return np.array([np.log(fwhm_px), np.log(beta - 1), size * np.cos(turn), size * np.sin(turn)])


def planted(rng, n=36, *, growth=0.0, **shape):
    """Image, labels and positions of stars; the FWHM grows by ``growth`` from left to right."""
    image, segments = rng.normal(0, NOISE, SHAPE), np.zeros(SHAPE, np.int32)
    grid = np.arange(60, SHAPE[0] - 59, (SHAPE[0] - 120) / 5.01)
    x, y = (v.ravel()[:n] + rng.uniform(-8, 8, n) for v in np.meshgrid(grid, grid))
    rows, columns = np.indices(SHAPE)
    for k in range(n):
        box = np.s_[int(y[k]) - 30 : int(y[k]) + 31, int(x[k]) - 30 : int(x[k]) + 31]
        here = dict(shape, fwhm_px=shape["fwhm_px"] * (1 + growth * (x[k] / SHAPE[1] - 0.5)))
        flux = 10 ** rng.uniform(4, 5.5)
        image[box] += flux * moffat(columns[box] - x[k], rows[box] - y[k], shape_of(**here))
        segments[int(y[k]) - 3 : int(y[k]) + 4, int(x[k]) - 3 : int(x[k]) + 4] = k + 1
    return image.astype(np.float32), segments, x, y


def measured(image, segments, x, y, fwhm_px, mask=None):
    mask = np.zeros(SHAPE, bool) if mask is None else mask
    label = np.arange(1, len(x) + 1, dtype=np.int32)
    return measure_psf(image, NOISE, mask, segments, label, x, y, half_light_radius_px=0.6 * fwhm_px)


@pytest.mark.parametrize(
    ("fwhm_px", "beta", "axis_ratio", "angle_deg"),
    [(2.2, 2.5, 0.8, -60.0), (3.4, 3.0, 0.9, 30.0), (5.5, 4.0, 0.93, 85.0)],
)
def test_a_planted_moffat_is_recovered_to_two_per_cent(rng, fwhm_px, beta, axis_ratio, angle_deg):
    shape = {"fwhm_px": fwhm_px, "beta": beta, "axis_ratio": axis_ratio, "angle_deg": angle_deg}
    image, segments, x, y = planted(rng, **shape)
    psf = measured(image, segments, x, y, fwhm_px)
    assert psf.fwhm_px == pytest.approx(fwhm_px, rel=0.02)
    assert psf.ellipticity == pytest.approx(1 - axis_ratio, abs=0.015)
    assert abs((psf.angle_deg - angle_deg + 90) % 180 - 90) < 4
    assert psf.n_star >= 30
    assert psf.scatter < 0.02
    steps = np.arange(SIDE_PX) - SIDE_PX // 2
    truth = moffat(steps[None], steps[:, None], shape_of(**shape))
    assert psf.stack.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(psf.stack, truth / truth.sum(), atol=0.02 * truth.max())


def test_a_psf_that_grows_over_the_window_is_said_to(rng):
    image, segments, x, y = planted(rng, fwhm_px=3.4, beta=3.0, growth=0.2)
    assert measured(image, segments, x, y, 3.4).variation == pytest.approx(0.2, abs=0.04)
    image, segments, x, y = planted(rng, fwhm_px=3.4, beta=3.0)
    assert measured(image, segments, x, y, 3.4).variation < 0.03


def test_saturated_masked_and_neighboured_stars_do_not_spoil_the_stack(rng):
    image, segments, x, y = planted(rng, fwhm_px=3.4, beta=3.0)
    peak = np.array([image[int(b) - 2 : int(b) + 3, int(a) - 2 : int(a) + 3].max() for a, b in zip(x, y, strict=True)])
    level = np.sort(peak)[-5]
    spoiled = np.minimum(image, np.float32(0.6 * level))
    mask = np.zeros(SHAPE, bool)
    mask[int(y[3]), int(x[3])] = True
    rows, columns = np.indices(SHAPE)
    spoiled += (4e4 * moffat(columns - x[7] - 9, rows - y[7], shape_of(3.4, 3.0))).astype(np.float32)
    segments[int(y[7]) - 4 : int(y[7]) + 5, int(x[7]) + 5 : int(x[7]) + 14] = 99
    psf = measured(spoiled, segments, x, y, 3.4, mask)
    assert psf.fwhm_px == pytest.approx(3.4, rel=0.02)
    assert psf.n_star < len(x)


def test_too_few_stars_give_no_psf(rng):
    image, segments, x, y = planted(rng, MIN_STARS - 1, fwhm_px=3.4, beta=3.0)
    assert measured(image, segments, x, y, 3.4) is None


def sizes(rng, n_star, n_galaxy=600, radius_px=2.0):
    """Half-light radii and signal-to-noise of a field: galaxies larger than the PSF, fainter ones smaller."""
    ln_s = np.concatenate([rng.uniform(np.log(50), np.log(5e4), n_star), np.log(30) + rng.exponential(1.1, n_galaxy)])
    width = np.hypot(0.02, 0.5 / np.exp(ln_s[:n_star]))
    star = radius_px * np.exp(rng.normal(0, width))
    galaxy = np.hypot(radius_px, radius_px * np.exp(rng.normal(0.3, 0.5, n_galaxy)))
    x, y = rng.uniform(0, 2000, (2, n_star + n_galaxy))
    return np.concatenate([star, galaxy]), np.exp(ln_s), x, y


def locus_of(radius, snr, x, y, **more):
    return find_locus(radius, snr, np.ones(len(x), bool), x, y, **{"width_sigma": 3.0, "purity_min": 0.5, **more})


def test_stars_are_found_among_galaxies_and_few_galaxies_are_called_stars(rng):
    radius, snr, x, y = sizes(rng, 120)
    locus = locus_of(radius, snr, x, y)
    assert locus.radius_px == pytest.approx(2.0, rel=0.02)
    stars = locus.are_stars(radius, snr, x, y)
    bright = snr > locus.faintest_snr
    assert stars[:120][bright[:120]].mean() > 0.97
    lost, expected = stars[120:].sum(), locus.galaxies_among(snr)[stars].sum()
    assert lost <= expected + 3 * np.sqrt(expected + 1)  # the estimate errs to the safe side
    assert expected < 0.25 * stars.sum()


def test_where_galaxies_crowd_the_locus_nothing_is_called_a_star(rng):
    radius, snr, x, y = sizes(rng, 120, 2500)
    faintest = [locus_of(radius, snr, x, y, purity_min=p).faintest_snr for p in (0.2, 0.5, 0.8)]
    assert faintest == sorted(faintest)
    assert faintest[0] < faintest[2]


def test_a_locus_that_bends_over_the_window_is_followed(rng):
    radius, snr, x, y = sizes(rng, 200)
    bent = radius * (1 + 0.15 * (x / 2000 - 0.5))
    stars = locus_of(bent, snr, x, y).are_stars(bent, snr, x, y)
    bright = snr[:200] > 200
    assert stars[:200][bright].mean() > 0.97


def test_fewer_stars_than_make_a_locus_are_none(rng):
    assert locus_of(*sizes(rng, 8)) is None
    assert locus_of(*sizes(rng, 0)) is None


def test_sources_of_one_size_are_not_stars_where_nothing_is_larger(rng):
    radius, snr, x, y = sizes(rng, 120, 4)
    assert locus_of(radius, snr, x, y) is None
    more = [np.append(v, w) for v, w in ((radius, [4.0] * 5), (snr, [900.0] * 5), (x, [9.0] * 5), (y, [9.0] * 5))]
    assert locus_of(*more).are_stars(*more)[:120].mean() > 0.9


def test_hot_pixels_are_no_locus(rng):
    radius, snr, x, y = sizes(rng, 0)
    radius[:60], snr[:60] = 0.5, 500.0
    assert locus_of(radius, snr, x, y) is None


def test_a_bright_star_with_a_flat_core_is_a_star_and_a_bright_galaxy_is_not(rng):
    radius, snr, x, y = sizes(rng, 120)
    radius, snr = np.append(radius, [3.4, 3.4, 3.4]), np.append(snr, [1e5, 1e5, 3e4])
    x, y = np.append(x, [5, 6, 7]), np.append(y, [5, 6, 7])
    flat = np.zeros(len(x))
    flat[-3:] = 0.97, 0.75, 0.97
    cut = saturated_stars(locus_of(radius, snr, x, y), radius, snr, x, y, flat)
    assert cut[-3:].tolist() == [True, False, False]
