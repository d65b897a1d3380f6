import functools
from dataclasses import replace

import numpy as np
import pytest
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.SimulationAPI.data_api import DataAPI
from lenstronomy.Util import param_util
from scipy.stats import kstest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from lenspipe.errors import ConfigError
from lenspipe.simulate.observe import draw_conditions
from lenspipe.simulate.published import draw_published, published_noise
from lenspipe.simulate.published_image import draw_scene
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.rows import simulate_rows
from lenspipe.simulate.stamp import draw_stamp

SETS = ("model-f", "model-j", "deeplense-1", "deeplense-2", "deeplense-3")
KINDS = ("no_substructure", "subhalo", "vortex")


@functools.cache
def changed(name, *changes):
    return read_recipe(name, changes=dict(changes))


def scene(name, kind, item=3, **changes):
    recipe = changed(name, *changes.items())
    rng = np.random.default_rng([7, item])
    return draw_scene(rng, recipe, kind, draw_conditions(rng, recipe), seed=7)


def published_image(drawn, points):
    """The noise-free image of DeepLenseSim's model II, by lenstronomy, with its numbers as its code has them."""
    lens = drawn.lens.main
    e1, e2 = param_util.phi_q2_ellipticity(lens.angle_rad, lens.axis_ratio)
    np.testing.assert_allclose((e1, e2), (0.1, 0), atol=1e-9)
    models = ["SIE", "SHEAR"] + ["POINT_MASS"] * len(points)
    kwargs = [
        {"theta_E": lens.theta_e_arcsec, "e1": 0.1, "e2": 0, "center_x": 0, "center_y": 0},
        {"gamma1": 0.05, "gamma2": 0},
    ]
    kwargs += [{"theta_E": t, "center_x": x, "center_y": y} for x, y, t in points]
    source = drawn.lens.source.profile
    band = {
        "read_noise": 4.2,
        "pixel_scale": 0.101,
        "ccd_gain": 3.1,
        "exposure_time": 565.0,
        "sky_brightness": 22.35,
        "magnitude_zero_point": 24.0,
        "num_exposures": 4,
        "seeing": 0.16,
        "psf_type": "GAUSSIAN",
    }
    data = DataAPI(64, **band)
    light = {"R_sersic": 0.25, "n_sersic": 1, "e1": -0.1, "e2": 0.1}
    light |= {"center_x": source.x_arcsec, "center_y": source.y_arcsec}
    unit = LightModel(["SERSIC_ELLIPSE"]).total_flux([light | {"amp": 1.0}], norm=False)[0]
    image = ImageModel(
        data.data_class,
        PSF(psf_type="GAUSSIAN", fwhm=0.16, pixel_size=0.101, truncation=4.5),
        lens_model_class=LensModel(models),
        source_model_class=LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": 1},
    ).image(kwargs, [light | {"amp": data.magnitude2cps(20.0) / unit}])
    return image * 10 ** (0.4 * (31.4 - 24.0)), data.background_noise * 10 ** (0.4 * (31.4 - 24.0))


@pytest.mark.parametrize("kind", KINDS)
def test_model_2_is_what_lenstronomy_makes_of_the_published_numbers(kind):
    drawn = scene("deeplense-2", kind)
    other = drawn.lens.perturber
    points = []
    if kind == "subhalo":
        points = list(zip(other.x_arcsec, other.y_arcsec, other.einstein_radius_arcsec, strict=True))
        assert len(points) == 25
    elif kind == "vortex":
        along = np.linspace(-0.5, 0.5, 2001)[:-1] + 0.5 / 2000
        turn = np.cos(other.angle_rad), np.sin(other.angle_rad)
        one = other.einstein_radius_arcsec / np.sqrt(2000)
        points = [(a * turn[0], a * turn[1], one) for a in along * other.length_arcsec]
    want, noise = published_image(drawn, points)
    got = drawn.arcs_njy(drawn.lens.deflectors)[0]
    r = np.hypot(*np.meshgrid(*[(np.arange(64) - 31.5) * 0.101] * 2))
    arcs = r > 0.3  # the singular centre, and rays on points, are where pixels hang on rounding
    assert np.mean(np.abs(got - want)[arcs] > 0.02 * want.max()) < 0.002
    assert got.sum() == pytest.approx(want.sum(), rel=5e-3)
    assert drawn.conditions.sky_rms_njy[0] == pytest.approx(noise, rel=2e-3)


def test_einstein_radii_are_those_of_the_distances_that_are_asked_for():
    assert scene("deeplense-1", "vortex").lens.smooth.theta_e_arcsec == pytest.approx(1.2815, abs=2e-4)
    right = scene("deeplense-1", "vortex", **{"published.distances": "angular"}).lens
    assert right.smooth.theta_e_arcsec == pytest.approx(1.6645, abs=2e-4)
    # 3e10 of 1e12 Msun, whatever the distances
    assert right.perturber.einstein_radius_arcsec == pytest.approx(np.sqrt(0.03) * right.smooth.theta_e_arcsec)


def test_the_vortex_is_as_long_as_the_axions_mass_says():
    drawn = [scene("deeplense-1", "vortex", k).lens for k in range(200)]
    mass = np.array([d.facts["axion_mass_ev"] for d in drawn])
    np.testing.assert_allclose([d.perturber.length_arcsec for d in drawn], 0.06e-22 / mass)
    assert kstest(np.log10(mass), "uniform", (-24, 2)).pvalue > 1e-3


def test_subhalo_masses_follow_the_slope_that_the_code_has_and_not_the_one_it_names():
    halos = [scene("deeplense-1", "subhalo", k).lens.facts["subhalo_mass_msun"] for k in range(150)]
    meant = [
        scene("deeplense-1", "subhalo", k, **{"published.subhalo_slope": -1.9}).lens.facts["subhalo_mass_msun"]
        for k in range(60)
    ]
    assert np.mean(halos) == pytest.approx(3.8e10, rel=0.12)  # 25 times the mean of m^-0.9 between 1e6 and 1e10
    assert np.mean(meant) < 0.1 * np.mean(halos)


def test_the_number_of_subhalos_is_fixed_or_poisson():
    number = [scene("model-f", "subhalo", k).lens.facts["n_subhalo"] for k in range(20)]
    assert set(number) == {25}
    number = [
        scene("model-f", "subhalo", k, **{"published.subhalo_number": "poisson"}).lens.facts["n_subhalo"]
        for k in range(400)
    ]
    assert np.mean(number) == pytest.approx(25, abs=1)
    assert np.var(number) == pytest.approx(25, abs=6)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_mass_that_is_given_up_leaves_the_ring_and_added_mass_widens_it(kind):
    turn = np.linspace(0, 2 * np.pi, 4000, endpoint=False)

    def mass_within(lens, radius):
        pull = [d.deflection(radius * np.cos(turn), radius * np.sin(turn)) for d in lens.deflectors]
        return np.mean(sum(a * np.cos(turn) + b * np.sin(turn) for a, b in pull)) * radius

    central = {"published.vortex_start": "middle"}
    added = scene("model-f", kind, **central).lens
    kept = scene("model-f", kind, **central, **{"published.substructure_mass": "given up"}).lens
    no_shear = [replace(d, main=replace(d.main, shear=0.0)) for d in (added, kept)]
    assert mass_within(no_shear[0], 1.2) == pytest.approx(1.01 * 1.2**2, rel=2e-4)
    assert mass_within(no_shear[1], 1.2) == pytest.approx(1.2**2, rel=2e-4)


def test_the_radius_rule_leaves_a_25th_of_the_mass():
    for kind in KINDS[1:]:
        facts = [scene("model-f", kind, **{"published.fraction_of": rule}).lens.facts for rule in ("mass", "radius")]
        name = "vortex_mass_msun" if kind == "vortex" else "subhalo_mass_msun"
        assert facts[1][name] == pytest.approx(facts[0][name] / 25)


def test_the_published_vortex_begins_left_of_the_centre():
    vortex = scene("model-f", "vortex").lens.perturber
    end = [vortex.x_arcsec - 0.5 * np.cos(vortex.angle_rad), vortex.y_arcsec - 0.5 * np.sin(vortex.angle_rad)]
    np.testing.assert_allclose(end, (-0.5, 0), atol=1e-12)
    middle = scene("model-f", "vortex", **{"published.vortex_start": "middle"}).lens.perturber
    assert (middle.x_arcsec, middle.y_arcsec) == (0, 0)


def test_few_values_per_parameter_are_shared_by_a_run_and_by_all_its_classes():
    recipe = read_recipe("model-f", changes={"published.values_per_parameter": 5}).published
    drawn = [
        draw_published(
            np.random.default_rng(k), recipe, KINDS[k % 3], pixel_scale_arcsec=0.05, bands=("I",), seed=seed
        ).facts
        for seed in (1, 2)
        for k in range(60)
    ]
    first = {d["shear"] for d in drawn[:60]}
    assert len(first) == 5
    assert not first & {d["shear"] for d in drawn[60:]}
    assert {d["shear"] for d in drawn[:60:3]} <= first


def test_noise_is_counted_once_twice_or_not_at_all(rng):
    model = np.full((1, 400, 400), 0.05)
    how = {"sky_rms_njy": np.array([0.01]), "njy_per_electron": np.array([1e-3]), "rng": rng}
    once, twice = (published_noise(model, kind, **how).astype(float) for kind in ("right", "doubled"))
    assert once.mean() == pytest.approx(0.05, rel=1e-3)
    assert twice.mean() == pytest.approx(0.05, rel=1e-3)
    assert once.var() == pytest.approx(1e-4 + 5e-5, rel=0.03)
    assert twice.var() == pytest.approx(1e-4 + 1e-4, rel=0.03)
    np.testing.assert_array_equal(published_noise(model, "absent", **how), np.float32(0.1))


def test_exposures_of_model_j_spread_the_signal_to_noise_from_half_to_once_and_a_half():
    rms = [scene("model-j", "no_substructure", k).conditions for k in range(200)]
    gain = np.array([1 / np.sqrt(c.njy_per_electron[0]) for c in rms]) / np.sqrt(300)
    assert gain.min() == pytest.approx(0.5, abs=0.02)
    assert gain.max() == pytest.approx(1.5, abs=0.05)
    sky = np.array([c.sky_rms_njy[0] for c in rms])
    np.testing.assert_allclose(sky * gain, sky[0] * gain[0])


def test_model_f_has_the_numbers_of_its_generator():
    drawn = [scene("model-f", "no_substructure", k).lens for k in range(400)]
    facts = {name: np.array([d.facts[name] for d in drawn]) for name in ("shear", "source_x_arcsec", "source_y_arcsec")}
    assert kstest(facts["shear"], "uniform", (0, 0.3)).pvalue > 1e-3
    offset = np.hypot(facts["source_x_arcsec"], facts["source_y_arcsec"])
    assert kstest(offset, "uniform", (0, 1.2)).pvalue > 1e-3
    one = drawn[0]
    assert (one.smooth.theta_e_arcsec, one.smooth.axis_ratio) == (1.2, 1.0)
    light = one.light.profile
    along = np.array([0.5 * np.cos(light.angle_rad)]) * np.sqrt(1 / light.axis_ratio)
    across = np.array([0.5 * np.sin(light.angle_rad)]) * np.sqrt(1 / light.axis_ratio)
    bright = light.brightness(along, across) * one.light.flux_njy[0] * 0.05**2
    np.testing.assert_allclose(bright, 1.2)  # counts per second and pixel at the half-light radius


@pytest.mark.parametrize("name", SETS)
def test_a_published_set_has_its_classes_and_true_parameters(name):
    small = {"image.0.size_px": 40}
    table = simulate_rows(read_recipe(name, changes=small), seed=5, items=range(12))
    labels = np.array(table["label"].to_pylist())
    assert set(labels) == set(KINDS)
    strength = np.array(table["perturbation_snr"].to_pylist(), float)
    assert (strength[labels != KINDS[0]] > 0).all()
    assert np.isnan(strength[labels == KINDS[0]]).all()
    for number in ("theta_e_arcsec", "shear", "source_x_arcsec", "magnification", "arc_snr", "z_lens"):
        assert np.isfinite(np.array(table[number].to_pylist(), float)).all()


def test_a_stamp_without_noise_is_the_same_whatever_else_is_drawn():
    recipe = read_recipe("deeplense-2", changes={"image.0.size_px": 40})
    a = draw_stamp(recipe, seed=3, item=1)
    np.testing.assert_array_equal(a.images["image"], draw_stamp(recipe, seed=3, item=1).images["image"])
    noisy = draw_stamp(
        read_recipe("deeplense-2", changes={"image.0.size_px": 40, "published.noise": "right"}), seed=3, item=1
    )
    away = noisy.images["image"] - a.images["image"] / 2
    assert 4 < away.std() < 200


def test_a_published_table_that_says_too_much_or_too_little_is_refused():
    with pytest.raises(ConfigError, match="give either source_mag or source_brightness_njy"):
        read_recipe("model-f", changes={"published.source_mag": [20, 21]})
    with pytest.raises(ConfigError, match=r"\[substructure\] or \[published\]"):
        read_recipe("model-f", changes={"published": None})


def areas(**changes):
    """Areas of a kernel machine that learns 1,200 images and tells 600: of all pairs, and of no substructure."""
    recipe = read_recipe("deeplense-2", changes={"image.0.size_px": 40} | changes)
    table = simulate_rows(recipe, seed=5, items=range(1800))
    labels = np.array(table["label"].to_pylist())
    pixels = np.stack([np.asarray(one.as_py(), float) for one in table["image"]])
    seen, learnt = np.arcsinh(pixels / np.percentile(np.abs(pixels), 80)), np.arange(1800) < 1200
    machine = make_pipeline(StandardScaler(), PCA(60, whiten=True), SVC(C=30)).fit(seen[learnt], labels[learnt])
    said, truth = machine.decision_function(seen[~learnt]), labels[~learnt][:, None] == machine.classes_
    assert machine.classes_[0] == KINDS[0]
    return roc_auc_score(truth.ravel(), said.ravel()), roc_auc_score(truth[:, 0], said[:, 0])


@pytest.mark.long
def test_images_without_noise_are_told_nearly_without_error_and_the_ring_tells_none_from_the_others():
    every, none = areas()
    assert every > 0.985 and none > 0.999
    every_given, none_given = areas(**{"published.substructure_mass": "given up"})
    assert none_given < 0.99 and every_given < every - 0.005
