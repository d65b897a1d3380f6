import numpy as np
import pytest

from lenspipe.finder.areas import deal_areas
from lenspipe.finder.loci import star_locus
from lenspipe.finder.shape import asymmetry
from lenspipe.finder.sources import flat_top_px
from lenspipe.scan.hosts import red_threshold
from lenspipe.sky.sphere import separation_arcsec


def test_two_positions_of_different_splits_are_never_within_the_margin(rng):
    ra, dec = 150 + rng.uniform(0, 0.2, 1500), rng.uniform(0, 0.2, 1500)
    areas = deal_areas(ra, dec, np.ones(1500, bool), fractions=(0.6, 0.2, 0.2), margin_arcsec=20, seed=1)
    split = areas.of(ra, dec)
    used = np.flatnonzero([s is not None for s in split])
    for k in used[::10]:
        other = used[split[used] != split[k]]
        assert separation_arcsec(ra[other], dec[other], ra[k], dec[k]).min() > 20
    parts = [np.mean(split[used] == name) for name in ("train", "validation", "test")]
    np.testing.assert_allclose(parts, [0.6, 0.2, 0.2], atol=0.1)


def test_what_is_counted_is_dealt_by_its_fractions_on_a_single_tile(rng):
    ra, dec = 150 + rng.uniform(0, 0.25, 4000), rng.uniform(0, 0.25, 4000)
    hosts = np.arange(4000) < 60
    areas = deal_areas(ra, dec, hosts, fractions=(0.7, 0.15, 0.15), margin_arcsec=0, seed=0)
    counts = [np.sum(areas.of(ra[hosts], dec[hosts]) == name) for name in ("train", "validation", "test")]
    assert min(counts) >= 5 and counts[0] > 30


def test_the_stellar_locus_is_found_among_galaxies_and_not_where_there_are_galaxies_alone(rng):
    mag = rng.uniform(16, 22, 400)
    star = np.arange(400) % 3 == 0
    radius = np.where(star, rng.normal(0.65, 0.01, 400), rng.lognormal(0.3, 0.4, 400) + 0.3)
    shape = np.where(star, 0.72, 0.4)
    locus = star_locus(mag, radius, shape, psf_fwhm_arcsec=2.0)
    assert locus.radius_arcsec == pytest.approx(0.65, abs=0.01)
    assert locus.concentration == pytest.approx(0.72)
    lone = star_locus(mag[~star], radius[~star], shape[~star], psf_fwhm_arcsec=2.0)
    assert lone.n == 0 and lone.radius_arcsec == 1.0
    assert star_locus(mag[~star], radius[~star], shape[~star], psf_fwhm_arcsec=None) is None


def test_one_mode_of_colour_gives_no_separation_and_its_reddest_two_fifths(rng):
    threshold, separation = red_threshold(rng.normal(1.5, 0.3, 2000))
    assert np.isnan(separation)
    assert threshold == pytest.approx(1.5 + 0.253 * 0.3, abs=0.03)


def test_a_pair_is_lopsided_and_a_galaxy_in_noise_is_not(rng):
    y, x = np.mgrid[-20:21, -20:21]
    galaxy = 100 * np.exp(-0.5 * (x**2 + y**2) / 9) + rng.normal(0, 3, (41, 41))
    pair = galaxy + 90 * np.exp(-0.5 * ((x - 7) ** 2 + y**2) / 9)
    found = asymmetry(np.stack([galaxy, pair]), pixel_scale_arcsec=0.3)
    assert found[0] < 0.1
    assert found[1] > 0.25


def test_a_saturated_core_has_a_flat_top():
    y, x = np.mgrid[-20:21, -20:21]
    star = 1000 * np.exp(-0.5 * (x**2 + y**2) / 4)
    counts = [flat_top_px(plane, np.array([20.0]), np.array([20.0]))[0] for plane in (star, np.minimum(star, 400))]
    assert counts[0] <= 2
    assert counts[1] >= 9
