from dataclasses import replace

import numpy as np
import pytest

from lenspipe.errors import ConfigError, DataError
from lenspipe.simulate.artefacts import ARTEFACTS, add_artefact
from lenspipe.simulate.galaxies import Ring, SpiralArms, draw_field_galaxy, draw_star_njy
from lenspipe.simulate.light import Component
from lenspipe.simulate.negatives import NON_LENSES, Place, Sky, non_lens
from lenspipe.simulate.negatives.galaxies import field_galaxies
from lenspipe.simulate.paint import Host, paint_non_lens
from lenspipe.simulate.photometry import band_fluxes_njy, early_type_colours, magnitude_of_njy
from lenspipe.simulate.population import DeflectorPopulation, SourcePopulation, draw_deflector, draw_source
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.render import Grid, render_galaxy
from lenspipe.simulate.stamp import draw_stamp
from lenspipe.simulate.unlensed import draw_unlensed, shine

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


DRAWN = [name for name, kind in NON_LENSES.items() if not kind.of_images]


@pytest.mark.parametrize("kind", DRAWN)
def test_every_kind_of_negative_shines_at_its_centre_and_is_drawn_anew(kind):
    skies = [NON_LENSES[kind].draw(np.random.default_rng([3, k]), Place(BANDS)) for k in range(4)]
    totals = []
    for sky in skies:
        fluxes = [c.flux_njy for c in sky.galaxies] + [flux for _, _, flux in sky.stars]
        assert all(np.isfinite(f).all() and (f >= 0).all() for f in fluxes)
        totals.append(float(sum(f[1] for f in fluxes)))
        assert sky.artefact == (kind if NON_LENSES[kind].stands == "anywhere" else "")
    assert len(set(totals)) == 4
    assert 14 < magnitude_of_njy(np.median(totals)) < 23


def blank(n: int = 81, light: float = 0.0) -> Host:
    """Pixels without noise, empty or with a red galaxy of i = 18.9 for a ``light`` of 1."""
    y, x = np.indices((n, n)) - n // 2
    shape = np.exp(-np.hypot(x, y) * 0.25 / 0.4)
    colour = np.array([0.15, 0.6, 1.0]) * 1e5 * light / shape.sum()
    return Host(
        name="blank",
        kind="early" if light else "sky",
        pixels_njy=(colour[:, None, None] * shape).astype(np.float32),
        pixel_scale_arcsec=0.25,
        psf_fwhm_arcsec=np.array([0.9, 0.8, 0.75]),
        sky_rms_njy=np.array([12.0, 15.0, 33.0]),
        mag=18.9 if light else np.nan,
        axis_ratio=0.9,
        angle_rad=0.0,
    )


@pytest.mark.parametrize("kind", DRAWN)
def test_every_kind_of_negative_is_painted_on_hosts_and_leaves_the_rest_of_them(kind):
    host = blank(light=0.0 if NON_LENSES[kind].stands == "alone" else 1.0)
    before = host.pixels_njy.copy()
    pixels, _ = paint_non_lens(host, kind, np.random.default_rng(5), bands=BANDS)
    np.testing.assert_array_equal(host.pixels_njy, before)
    assert pixels.dtype == np.float32 and np.isfinite(pixels).all()
    if kind == "early_type":  # the host is one
        np.testing.assert_array_equal(pixels, before)
    elif NON_LENSES[kind].stands == "anywhere":
        assert (pixels != before).any()
    else:
        assert (pixels - before).min() > -1e-2 and (pixels - before).sum() > 100


def test_a_new_non_lens_is_a_class_of_recipes_and_painted_on_hosts():
    @non_lens("around")
    def a_knot(rng: np.random.Generator, place: Place) -> Sky:
        sky = NON_LENSES["early_type"].draw(rng, place)
        flux = np.full(len(place.bands), 2e4)
        sky.galaxies.append(Component(Ring(radius_arcsec=2.0, width_arcsec=0.3, extent_rad=0.2), flux))
        return sky

    try:
        recipe = read_recipe("ground-gri")
        recipe = type(recipe).model_validate(recipe.model_dump() | {"classes": {"a_knot": 1.0}})
        stamp = draw_stamp(recipe, seed=1, item=0)
        assert (stamp.label, stamp.facts["kind"]) == ("nonlens", "a_knot")
        host = blank(light=1.0)
        added = paint_non_lens(host, "a_knot", np.random.default_rng(1), bands=BANDS)[0] - host.pixels_njy
        row, column = np.unravel_index(added[1].argmax(), added[1].shape)
        assert abs(row - 40) <= 2 and abs(column - 48) <= 2  # 2 arcsec along +x, in pixels of 0.25
        with pytest.raises(ValueError, match="registered already"):
            non_lens("around")(a_knot)
    finally:
        del NON_LENSES["a_knot"]


@pytest.mark.parametrize("kind", ["companions", "young_ring", "spiral_disc"])
def test_a_scaled_look_alike_has_the_signal_to_noise_that_it_was_drawn_with(kind):
    from lenspipe.simulate.paint.lookalikes import view_of

    host = blank(121, light=1.0)
    view = view_of(host)
    sky = NON_LENSES[kind].draw(np.random.default_rng(8), Place(BANDS))
    assert sky.scaled
    for part in sky.scaled:
        image = draw_unlensed(Sky(shine(part, view)), view)
        snr = np.sqrt(np.sum((image / host.sky_rms_njy[:, None, None]) ** 2))
        assert snr == pytest.approx(part.snr, rel=0.01)


def test_stamps_and_hosts_get_the_same_drawing():
    """The same draws on the pixels of a recipe, noise-free, are what the painter adds to an empty host."""
    from lenspipe.simulate.paint.lookalikes import view_of

    host = blank()
    pixels, _ = paint_non_lens(host, "spiral", np.random.default_rng(3), bands=BANDS)
    sky = NON_LENSES["spiral"].draw(np.random.default_rng(3), Place(BANDS))
    np.testing.assert_array_equal(pixels, draw_unlensed(sky, view_of(host)).astype(np.float32))


def test_painting_says_what_it_cannot_paint():
    ask = {"rng": np.random.default_rng(0), "bands": BANDS}
    with pytest.raises(ConfigError, match=r"no such kind of non-lens.*ring"):
        paint_non_lens(blank(), "rnig", **ask)
    with pytest.raises(ConfigError, match="give images"):
        paint_non_lens(blank(), "galaxy_image", **ask)
    with pytest.raises(ConfigError, match="one name per band"):
        paint_non_lens(blank(), "star", np.random.default_rng(0), bands=("g",))
    with pytest.raises(DataError, match=r"no light to draw a non-lens around.*blank"):
        paint_non_lens(blank(), "ring", **ask)


def test_a_painted_group_has_the_redshift_and_magnitude_of_its_host():
    flux = band_fluxes_njy(18.0, early_type_colours(0.31), BANDS)
    host = blank(light=1.0)
    pixels = host.pixels_njy / host.pixels_njy.sum(axis=(1, 2), keepdims=True) * flux[:, None, None]
    _, facts = paint_non_lens(
        replace(host, pixels_njy=pixels.astype(np.float32)), "group", np.random.default_rng(1), bands=BANDS
    )
    assert facts["z_lens"] == pytest.approx(0.31, abs=0.011)
    assert facts["lens_mag_r"] == pytest.approx(18.0, abs=0.1)  # what lies beyond 2 arcsec is not counted


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
    drawn = [field_galaxies(np.random.default_rng([6, k]), BANDS, **ask) for k in range(400)]
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
        early = NON_LENSES["early_type"].draw(rng, Place(BANDS)).galaxies[0].flux_njy
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
    add_artefact(name, image, np.random.default_rng(4), np.ones(3), pixel_scale_arcsec=0.2)
    changed = (image != before).mean()
    assert 0 < changed < 0.5
    assert np.isfinite(image).all()


def test_stars_follow_the_stellar_locus():
    flux = np.array([draw_star_njy(np.random.default_rng([9, k]), BANDS) for k in range(200)])
    g_r, r_i = -2.5 * np.log10(flux[:, 0] / flux[:, 1]), -2.5 * np.log10(flux[:, 1] / flux[:, 2])
    blue = g_r < 1.2
    np.testing.assert_allclose(r_i[blue], 0.4 * g_r[blue] - 0.03, atol=1e-6)
    assert r_i[~blue].std() > 0.2
