import numpy as np
import pytest

from lenspipe.simulate.artefacts import ARTEFACTS, add_artefact
from lenspipe.simulate.galaxies import Ring, SpiralArms, draw_field_galaxy, draw_star_njy
from lenspipe.simulate.light import Component
from lenspipe.simulate.negatives import NEGATIVES, companions
from lenspipe.simulate.photometry import magnitude_of_njy
from lenspipe.simulate.population import DeflectorPopulation, SourcePopulation, draw_deflector, draw_source
from lenspipe.simulate.render import Grid, render_galaxy

BANDS = ("g", "r", "i")


@pytest.mark.parametrize(
    "profile",
    [
        SpiralArms(scale_arcsec=1.0, n_arm=2, contrast=4.0, axis_ratio=0.7),
        SpiralArms(scale_arcsec=0.8, n_arm=3, contrast=2.0),
        Ring(radius_arcsec=2.0, width_arcsec=0.3, axis_ratio=0.6),
        Ring(radius_arcsec=2.5, width_arcsec=0.3, extent_rad=0.4, angle_rad=1.0),
    ],
)
def test_spirals_and_rings_have_unit_flux(profile):
    image = render_galaxy([Component(profile, np.array([1.0]))], Grid(301, 0.05, 1), 1)
    assert image.sum() == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize("kind", list(NEGATIVES))
def test_every_kind_of_negative_shines_at_its_centre_and_is_drawn_anew(kind):
    skies = [NEGATIVES[kind](np.random.default_rng([3, k]), BANDS, DeflectorPopulation()) for k in range(4)]
    totals = []
    for sky in skies:
        fluxes = [c.flux_njy for c in sky.galaxies] + [flux for _, _, flux in sky.stars]
        assert all(np.isfinite(f).all() and (f >= 0).all() for f in fluxes)
        totals.append(float(sum(f[1] for f in fluxes)))
        assert sky.artefact == (kind if kind in ARTEFACTS else "")
    assert len(set(totals)) == 4
    assert 14 < magnitude_of_njy(np.median(totals)) < 23


def test_companions_have_colours_of_their_own():
    colour = []
    for k in range(300):
        light = draw_field_galaxy(np.random.default_rng([5, k]), BANDS)
        flux = np.sum([c.flux_njy for c in light], axis=0)
        colour.append(-2.5 * np.log10(flux[0] / flux[1]))
    assert np.std(colour) > 0.25
    assert 0.3 < np.median(colour) < 1.3


def test_companions_follow_their_density_and_keep_clear_of_the_centre():
    ask = {"density_arcmin2": 40.0, "half_width_arcsec": 15.0, "clear_arcsec": 2.0}
    drawn = [companions(np.random.default_rng([6, k]), BANDS, **ask) for k in range(400)]
    places = [{(c.profile.x_arcsec, c.profile.y_arcsec) for c in found} for found in drawn]
    mean = 40 * 0.25 * (1 - np.pi * 4 / 900)
    assert np.mean([len(p) for p in places]) == pytest.approx(mean, abs=4 * np.sqrt(mean / 400))
    assert min(np.hypot(*p) for found in places for p in found) > 2.0


def test_sources_are_bluer_than_lenses_and_both_spread():
    sources, lenses = [], []
    for k in range(200):
        rng = np.random.default_rng([7, k])
        source = draw_source(rng, SourcePopulation(), BANDS, x_arcsec=0, y_arcsec=0)
        flux = np.sum([c.flux_njy for c in source.components], axis=0)
        sources.append(-2.5 * np.log10(flux[0] / flux[1]))
        early = NEGATIVES["early_type"](rng, BANDS, DeflectorPopulation()).galaxies[0].flux_njy
        lenses.append(-2.5 * np.log10(early[0] / early[1]))
    assert np.median(lenses) - np.median(sources) > 0.8
    assert np.std(sources) > 0.2
    assert np.quantile(sources, 0.97) > 0.8  # some sources are red


def test_deflectors_lie_in_the_asked_range_and_large_einstein_radii_are_rare():
    drawn = [draw_deflector(np.random.default_rng([8, k]), DeflectorPopulation(), (1.0, 3.5)) for k in range(300)]
    theta = np.array([d["theta_e_arcsec"] for d in drawn])
    assert theta.min() >= 0.7 - 1e-3
    assert theta.max() <= 3.0 + 1e-3
    assert np.mean(theta > 2) < 0.2
    assert all(d["z_source"] > d["z_lens"] for d in drawn)


@pytest.mark.parametrize("name", ARTEFACTS)
def test_artefacts_change_some_pixels_and_stay_finite(name):
    image = np.random.default_rng(1).normal(size=(3, 64, 64)).astype(np.float32)
    before = image.copy()
    add_artefact(name, image, np.random.default_rng(4), np.ones(3))
    changed = (image != before).mean()
    assert 0 < changed < 0.5
    assert np.isfinite(image).all()


def test_stars_follow_the_stellar_locus():
    flux = np.array([draw_star_njy(np.random.default_rng([9, k]), BANDS) for k in range(200)])
    g_r, r_i = -2.5 * np.log10(flux[:, 0] / flux[:, 1]), -2.5 * np.log10(flux[:, 1] / flux[:, 2])
    blue = g_r < 1.2
    np.testing.assert_allclose(r_i[blue], 0.4 * g_r[blue] - 0.03, atol=1e-6)
    assert r_i[~blue].std() > 0.2
