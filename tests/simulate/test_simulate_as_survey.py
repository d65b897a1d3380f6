"""Hosts that another telescope saw, brought to the survey of a recipe; half of the hosts; even Einstein radii."""

import json

import numpy as np
import pytest

from lenspipe.errors import ConfigError
from lenspipe.simulate.hosts import HostStamps, read_hosts
from lenspipe.simulate.observe import Conditions
from lenspipe.simulate.on_hosts import blurred, draw_on_host, noisier
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.population import DeflectorPopulation, draw_deflector
from lenspipe.simulate.recipe import HostTable, Recipe, read_recipe
from lenspipe.stamps.splits import half_of
from tests.simulate.test_simulate_hosts import host_set, real_like_hosts  # noqa: F401

SCALE, OWN_RMS, OWN_FWHM = 0.05, 0.5, 0.08


@pytest.fixture
def recipe():
    space = (
        read_recipe("space-vis", survey="euclid")
        if len(read_recipe("space-vis").survey) > 1
        else read_recipe("space-vis")
    )
    table = space.model_dump() | {"classes": {"lens": 1.0, "early_type": 1.0}, "hosts": {"as_survey": True}}
    table["image"] = [table["image"][0] | {"size_px": 41}]
    return Recipe.model_validate(table)


@pytest.fixture
def conditions(recipe):
    return Conditions(recipe.survey[0], np.array([0.18]), np.array([4.0]), np.array([0.1]))


def host(pixels):
    return Host(
        "h", "early", pixels.astype(np.float32), SCALE, np.array([OWN_FWHM]), np.array([OWN_RMS]), 20.0, 0.9, 0.0
    )


def test_sharp_and_deep_sky_gets_the_noise_of_the_survey(rng, recipe, conditions):
    view = host(rng.normal(0, OWN_RMS, (1, 201, 201)))
    seen, left = blurred(view, conditions, recipe.image[0])
    assert seen.pixels_njy.std() == pytest.approx(left[0], rel=0.04)  # of 40,000 pixels, correlated
    assert seen.sky_rms_njy[0] == pytest.approx(4.0 * SCALE / 0.1)  # noise of a pixel goes with its side
    noisy = noisier(seen.pixels_njy, left, seen.sky_rms_njy, np.array([0.0]), rng)
    assert noisy.std() == pytest.approx(2.0, rel=0.02)


def test_a_star_gets_the_width_of_the_survey(recipe, conditions):
    y, x = (np.indices((101, 101)) - 50) * SCALE
    sigma = OWN_FWHM / 2.3548
    seen, _ = blurred(host(np.exp(-(x**2 + y**2) / (2 * sigma**2))[None]), conditions, recipe.image[0])
    light = seen.pixels_njy[0].astype(float)
    second = np.sqrt((light * x**2).sum() / light.sum()) * 2.3548
    assert second == pytest.approx(0.18, rel=0.01)
    assert seen.psf_fwhm_arcsec[0] == 0.18


def test_softer_and_noisier_hosts_stay_as_they_are(rng, recipe, conditions):
    view = host(rng.normal(0, 9.0, (1, 51, 51)))
    view = Host(**{**vars(view), "psf_fwhm_arcsec": np.array([0.3]), "sky_rms_njy": np.array([9.0])})
    seen, left = blurred(view, conditions, recipe.image[0])
    np.testing.assert_allclose(seen.pixels_njy, view.pixels_njy, atol=1e-5)
    np.testing.assert_array_equal(
        noisier(seen.pixels_njy, left, seen.sky_rms_njy, np.array([0.0]), rng), seen.pixels_njy
    )


def test_light_has_photon_noise(rng):
    flat = np.full((1, 200, 200), 400.0, np.float32)
    noisy = noisier(flat, np.zeros(1), np.zeros(1), np.array([0.25]), rng)
    assert noisy.std() == pytest.approx(np.sqrt(400 * 0.25), rel=0.02)


def test_bare_and_painted_stamps_of_a_host_have_the_same_noise(rng, recipe, conditions):
    y, x = np.indices((111, 111)) - 55
    galaxy = 300 * np.exp(-np.hypot(x, y) / 6) + rng.normal(0, OWN_RMS, (111, 111))
    hosts = HostStamps((host(galaxy[None]),), (None,))
    rms = {}
    for kind in ("lens", "early_type"):
        drawn = [draw_on_host(recipe, np.random.default_rng(k), kind, hosts, (), conditions) for k in range(12)]
        assert {one.facts["seeing_VIS_arcsec"] for one in drawn} == {0.18}
        rms[kind] = np.median([np.diff(one.pixels_njy[0, :5]).std() for one in drawn])
    assert rms["lens"] == pytest.approx(rms["early_type"], rel=0.1)
    assert rms["early_type"] > 3 * OWN_RMS


def test_hosts_that_do_not_say_their_psf_cannot_be_brought_to_a_surveys(tmp_path, real_like_hosts):  # noqa: F811
    recipe = read_recipe("ground-gri")
    table = recipe.model_dump() | {"hosts": {"as_survey": True}}
    host_set(tmp_path / "hosts", real_like_hosts)
    with pytest.raises(ConfigError, match="psf_fwhm_g_arcsec"):
        read_hosts(tmp_path / "hosts", Recipe.model_validate(table))


def test_half_of_the_hosts_is_the_half_of_their_names(tmp_path, real_like_hosts):  # noqa: F811
    host_set(tmp_path / "hosts", real_like_hosts)
    recipe = read_recipe("ground-gri", survey="kids")
    halves = {half: set(read_hosts(tmp_path / "hosts", recipe, half=half).names) for half in ("even", "odd")}
    assert not halves["even"] & halves["odd"]
    assert halves["even"] | halves["odd"] == {f"galaxy-{k}" for k in range(4)}
    assert all(half_of(name) == half for half, names in halves.items() for name in names)


def test_einstein_radii_are_even_where_that_is_asked_for():
    even, population = (
        [
            draw_deflector(np.random.default_rng(k), DeflectorPopulation(theta_e_arcsec=(0.5, 3.0), **more), (1.0, 3.5))
            for k in range(400)
        ]
        for more in ({"theta_e_even": True}, {})
    )
    wide = [np.mean([one["theta_e_arcsec"] > 1.75 for one in drawn]) for drawn in (even, population)]
    assert abs(wide[0] - 0.5) < 0.1  # 4 sigma of 400 draws
    assert wide[1] < 0.25


def test_older_requests_read_the_same_where_the_new_keys_are_off():
    plain = read_recipe("space-vis").model_copy(update={"hosts": HostTable(), "published": None})
    written = json.loads(plain.model_dump_json())
    assert "published" not in written and "theta_e_even" not in written["deflectors"]
    assert not {"crowd_fraction", "luminous", "as_survey"} & set(written["hosts"])
    assert "hosts" not in json.loads(plain.model_copy(update={"hosts": None}).model_dump_json())


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        (DeflectorPopulation, "theta_e_even", True),
        (HostTable, "crowd_fraction", 0.5),
        (HostTable, "luminous", True),
        (HostTable, "as_survey", True),
    ],
)
def test_newer_keys_are_written_where_they_are_on_and_left_out_where_they_are_off(table, key, value):
    assert table(**{key: value}).model_dump(mode="json")[key] == value
    assert key not in table().model_dump(mode="json")
    assert key in table().model_dump()


def test_newer_tables_of_a_recipe_are_written_where_they_are_there():
    recipe = read_recipe("space-vis").model_copy(update={"hosts": HostTable(luminous=True)})
    assert json.loads(recipe.model_dump_json())["hosts"]["luminous"] is True
    shipped = read_recipe("deeplense-1")
    assert shipped.published is not None and "published" in json.loads(shipped.model_dump_json())
    assert {"hosts", "published"} <= set(recipe.model_dump())
