from pathlib import Path

import numpy as np
import pytest

from lenspipe.errors import ConfigError
from lenspipe.simulate.hosts import read_source_images
from lenspipe.simulate.negatives import NON_LENSES, Place
from lenspipe.simulate.negatives.images import MAG_R_ALONE
from lenspipe.simulate.photometry import magnitude_of_njy
from lenspipe.simulate.population import SourceImage, half_light_radius_px
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.render import Grid, render_galaxy
from lenspipe.simulate.rows import simulate_rows, truth_fields
from lenspipe.simulate.run import simulate
from lenspipe.simulate.stamp import draw_stamp
from lenspipe.stamps.splits import half_of

BANDS = ("g", "r", "i")


@pytest.fixture(scope="module")
def images():
    """Two lopsided galaxies, with a knot on different sides."""
    y, x = np.indices((61, 61)) - 30
    found = []
    for name, side in (("left", -12), ("right", 12)):
        pixels = np.exp(-np.hypot(x, 2 * y) / 5) + 0.5 * np.exp(-np.hypot(x - side, y) / 2)
        found.append(SourceImage(name, (pixels / pixels.sum()).astype(np.float32), 0.03))
    return found


def test_a_galaxy_that_stands_alone_is_its_image_at_the_drawn_magnitude(images):
    for k in range(6):
        sky = NON_LENSES["galaxy_image"].draw(np.random.default_rng([1, k]), Place(BANDS, images=images))
        (light,) = sky.galaxies
        chosen = next(image for image in images if image.name == sky.facts["galaxy_image"])
        np.testing.assert_array_equal(light.profile.pixels, chosen.pixels)
        assert MAG_R_ALONE[0] <= magnitude_of_njy(light.flux_njy[1]) <= MAG_R_ALONE[1]
        fine = render_galaxy([light], Grid(401, 0.03, 1), 3)[0]
        assert fine.sum() == pytest.approx(light.flux_njy[0], rel=0.02)
        radius = half_light_radius_px(fine) * 0.03
        assert radius == pytest.approx(light.profile.pixel_scale_arcsec * half_light_radius_px(chosen.pixels), rel=0.15)


def test_satellite_images_lie_around_an_early_type_and_not_on_it(images):
    for k in range(6):
        sky = NON_LENSES["satellite_images"].draw(np.random.default_rng([2, k]), Place(BANDS, images=images))
        early, *others = sky.galaxies
        assert "lens_mag_r" in sky.facts and early.profile.x_arcsec == 0
        assert 1 <= len(others) <= 3
        assert all(0.9 <= np.hypot(o.profile.x_arcsec, o.profile.y_arcsec) <= 3.2 for o in others)


def test_a_stamp_of_a_real_galaxy_has_it_as_host_and_is_refused_without_images(images):
    recipe = read_recipe("ground-gri").model_copy(update={"classes": {"galaxy_image": 1.0}})
    stamp = draw_stamp(recipe, seed=3, item=0, source_images=images)
    assert stamp.label == "nonlens"
    assert stamp.host == f"galaxy-{stamp.facts['galaxy_image']}"
    with pytest.raises(ConfigError, match="give --source-images"):
        draw_stamp(recipe, seed=3, item=0)


def test_images_that_are_needed_or_halved_and_not_given_are_refused_before_any_work(tmp_path):
    recipe = read_recipe("ground-gri")
    with pytest.raises(ConfigError, match="give --source-images"):
        simulate(recipe, count=2, seed=1, out=tmp_path / "half", source_half="even")
    mixed = recipe.model_copy(update={"classes": {"lens": 1.0, "satellite_images": 0.01}})
    with pytest.raises(ConfigError, match="satellite_images"):
        simulate(mixed, count=2, seed=1, out=tmp_path / "mixed")
    assert not list(tmp_path.iterdir())


def test_only_recipes_with_real_galaxies_have_a_column_for_their_names(images):
    recipe = read_recipe("ground-gri")
    assert "galaxy_image" not in {field.name for field in truth_fields(recipe)}
    recipe = recipe.model_copy(update={"classes": {"satellite_images": 1.0}})
    names = simulate_rows(recipe, seed=3, items=[0, 1], source_images=images)["galaxy_image"].to_pylist()
    assert all(set(name.split(",")) <= {"left", "right"} for name in names)


def test_the_halves_of_a_real_folder_share_no_galaxy_and_miss_none(real_data):
    folder = real_data / "galaxies/cosmos_hst"
    names = {half: {image.name for image in read_source_images(folder, half=half)} for half in ("even", "odd", None)}
    assert not names["even"] & names["odd"]
    assert names["even"] | names["odd"] == names[None]
    assert 0.3 < len(names["even"]) / len(names[None]) < 0.7
    assert {half_of(name) for name in names["even"]} == {"even"}


def test_the_space_finder_is_judged_on_its_own_recipe_with_fewer_lenses():
    study = Path(__file__).resolve().parents[2] / "benchmarks/studies/finder_space"
    learnt, judged = (
        read_recipe(str(study / name)).model_dump(exclude={"name"}) for name in ("recipe.toml", "test_recipe.toml")
    )
    assert judged["classes"].pop("lens") < learnt["classes"].pop("lens")
    assert judged == learnt
