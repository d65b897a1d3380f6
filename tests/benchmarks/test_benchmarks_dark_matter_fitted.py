"""Fitted sets of the comparison: priors are what recipes draw, and smooth lenses leave what the truth leaves."""

import numpy as np
import pytest

from benchmarks.studies.dark_matter.cells import read_queue, recipe_of
from benchmarks.studies.dark_matter.fitted import FITTED, at_chance, fitted_set, priors
from lenspipe.nn.sersic_image import N_ARC, NAMES
from lenspipe.simulate.observe import draw_conditions
from lenspipe.simulate.published import draw_published, flux_of_brightness
from lenspipe.simulate.published_image import draw_scene
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet

FREE = {
    "published.axis_ratio": [0.7, 0.7],
    "published.angle_rad": [0.0, np.pi],
    "published.redshift_lens": [0.4, 0.6],
    "published.shear": [0.0, 0.1],
    "published.shear_angle_rad": [0.0, 1.0],
    "published.source_axis_ratio": [0.5, 1.0],
    "published.source_radius_arcsec": [0.2, 0.4],
}


def values_of(lens, scale):
    """Parameters of a drawn lens, in the order of the fit's."""

    def shape(q, angle):
        e = (1 - q**2) / (1 + q**2)
        return [e * np.cos(2 * angle), e * np.sin(2 * angle)]

    def light(component):
        p = component.profile
        size = [component.flux_njy[0] / flux_of_brightness(1.0, p.radius_arcsec, p.n, scale), p.radius_arcsec, p.n]
        return [*np.log(size), *shape(p.axis_ratio, p.angle_rad)]

    macro, source = lens.smooth, lens.source.profile
    shear = [macro.shear * f(2 * macro.shear_angle_rad) for f in (np.cos, np.sin)]
    found = [macro.theta_e_arcsec, *shape(macro.axis_ratio, macro.angle_rad), *shear]
    found += [source.x_arcsec, source.y_arcsec, *light(lens.source), 0.0, 0.0]
    return found + (light(lens.light) if lens.light else [])


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in ("model-f", "model-j", "deeplense-1", "deeplense-2")), ("deeplense-1", FREE)],
)
def test_priors_are_means_and_spreads_of_what_a_recipe_draws(rng, name, changes):
    recipe = read_recipe(name, changes=changes)
    scale = recipe.image[0].pixel_scale_arcsec
    drawn = np.array(
        [
            values_of(
                draw_published(
                    rng, recipe.published, "no_substructure", pixel_scale_arcsec=scale, bands=recipe.bands, seed=1
                ),
                scale,
            )
            for _ in range(1500)
        ]
    )
    found = priors(recipe.published, scale)
    n = drawn.shape[1]
    assert found.light == (n == len(NAMES)) and n in (N_ARC, len(NAMES))
    spread = drawn.std(axis=0)
    width, off = found.width.numpy()[:n], np.abs(found.mean.numpy()[:n] - drawn.mean(axis=0))
    np.testing.assert_array_equal(width > 0, spread > 1e-6)
    np.testing.assert_allclose(width, spread, rtol=0.1, atol=1e-6)
    assert (off < 5 * spread / np.sqrt(1500) + 0.03 * spread + 1e-5).all()
    assert not found.width[n:].any()


def test_all_that_is_free_of_deeplense_1_is_the_place_of_the_source():
    found = priors(read_recipe("deeplense-1").published, 0.05)
    assert [name for name, width in zip(NAMES, found.width, strict=True) if width > 0] == ["x_arcsec", "y_arcsec"]
    told = dict(zip(NAMES, found.mean.tolist(), strict=True))
    assert told["theta_e_arcsec"] == pytest.approx(1.281, abs=1e-3)
    assert (told["lens_e1"], told["gamma1"]) == (pytest.approx(0.198, abs=1e-3), pytest.approx(0.05))


@pytest.mark.parametrize("name", [name for name in FITTED if name != "substructure-1"])
def test_smooth_lenses_leave_what_the_truth_leaves(tmp_path, name):
    data = next(one for one in read_queue()[0].data if one.recipe == name)
    recipe = recipe_of(data, {"classes": {"no_substructure": 1.0}, "part_rows": 8})
    simulate(recipe, count=16, seed=4, out=tmp_path / "s")
    folder = fitted_set(tmp_path / "s", recipe, tmp_path / "s-fitted")
    fitted = StampSet.open(folder)
    images, sky, gain = (
        fitted.read_images(),
        *(fitted.column(key).reshape(-1, 1, 1) for key in ("sky_rms_I_njy", "njy_per_electron_I")),
    )
    models = []
    for item in range(16):
        rng = np.random.default_rng([4, item])
        rng.choice(1, p=np.ones(1))
        scene = draw_scene(rng, recipe, "no_substructure", draw_conditions(rng, recipe), seed=4)
        models.append((scene.arcs_njy([scene.lens.smooth]) + scene.light_njy())[0])
    kept = images[:, 1] != 0
    truth = (images[:, 0] - np.array(models)) ** 2 / (sky**2 + gain * np.array(models))
    left = np.square(images[:, 1])
    share = [left[k][kept[k]].mean() / truth[k][kept[k]].mean() for k in range(16)]
    assert np.median(share) == pytest.approx(1.0, abs=0.03)
    # of deeplense-1 negative pixels are cut to 0 before photons are drawn a second time: it is dark nearly everywhere
    assert np.median(fitted.column("fitted_chi2")) == pytest.approx(0.65 if name == "deeplense-1" else 1.0, abs=0.04)
    # what is there already is taken as it is
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert fitted_set(tmp_path / "s", recipe, folder) == folder
    (folder / "request.json").unlink()
    assert fitted_set(tmp_path / "s", recipe, folder) == folder
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    next(folder.glob("*.parquet")).unlink()
    with pytest.raises(ValueError, match="not whole"):
        fitted_set(tmp_path / "s", recipe, folder)


def test_a_cell_at_chance_says_why():
    assert at_chance([0.51, 0.6], 3, 3) is None
    assert "patience" in at_chance([0.49, 0.6], 3, 9)
    assert "after all 9 epochs" in at_chance([0.49, 0.6], 9, 9)
