"""Columns of a stamp tell the variance of its pixels: the sky's, and their brightness times the flux of an electron."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import norm

from lenspipe.errors import ConfigError
from lenspipe.simulate.instrument import add_noise
from lenspipe.simulate.observe import draw_conditions
from lenspipe.simulate.published import published_noise
from lenspipe.simulate.published_image import draw_scene
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.rows import simulate_rows
from lenspipe.simulate.run import simulate
from lenspipe.simulate.stamp import draw_stamp

SMALL = {"image.0.pixel_scale_arcsec": 0.1, "image.0.size_px": 32}
BRIGHT = {"published.source_brightness_njy": [0.2, 0.2]}
SEED, REPEATS = 5, 1500


def taken(name, item, changes):
    """Columns of a stamp, its image without noise, and a function that makes its noise anew."""
    recipe = read_recipe(name, changes=SMALL | changes)
    facts = draw_stamp(recipe, seed=SEED, item=item).facts
    rng = np.random.default_rng([SEED, item])
    if recipe.published is None:
        stamp = draw_stamp(recipe, seed=SEED, item=item)
        had = stamp.conditions
        how = {"sky_rms_njy": had.sky_rms_njy, "njy_per_electron": had.njy_per_electron}
        return facts, stamp.lensed.arcs.image, lambda model, rng: add_noise(model, rng=rng, **how)
    kind = list(recipe.classes)[int(rng.choice(3, p=np.full(3, 1 / 3)))]
    assert kind == facts["kind"]
    scene = draw_scene(rng, recipe, kind, draw_conditions(rng, recipe), seed=SEED)
    had = scene.conditions
    how = {"sky_rms_njy": had.sky_rms_njy, "njy_per_electron": had.njy_per_electron}
    model = scene.arcs_njy(scene.lens.deflectors) + scene.light_njy()
    return facts, model, lambda model, rng: published_noise(model, recipe.published.noise, rng=rng, **how)


def moments(model, noisy, rng):
    """Mean and variance of every pixel over many exposures."""
    shown = np.stack([noisy(model, rng).astype(np.float64) for _ in range(REPEATS)])
    return shown.mean(axis=0), shown.var(axis=0)


@pytest.mark.parametrize(
    ("name", "item", "changes"),
    [
        *(("model-f", 1, {}), ("substructure-1", 2, {})),
        *(("model-j", item, {}) for item in (1, 2, 3)),
        *(("deeplense-1", item, BRIGHT) for item in (1, 2)),
    ],
)
def test_variance_over_many_exposures_is_that_of_the_columns(rng, name, item, changes):
    facts, model, noisy = taken(name, item, changes)
    (band,) = (key[len("sky_rms_") : -len("_njy")] for key in facts if key.startswith("sky_rms_"))
    sky, gain = facts[f"sky_rms_{band}_njy"], facts[f"njy_per_electron_{band}"]
    mean, variance = moments(model, noisy, rng)
    ratio = variance / (sky**2 + gain * mean)
    # where photons are drawn twice, negative pixels are cut in between
    lit = mean > (3 * sky if name == "deeplense-1" else 0.1 * sky)
    bright = mean > np.quantile(mean[lit], 0.8)
    assert lit.sum() > 100 and (gain * mean[bright]).mean() > 0.05 * sky**2
    for some in (lit, bright):
        assert ratio[some].mean() == pytest.approx(1, abs=5 * np.sqrt(2 / REPEATS / some.sum()) + 0.005)


def test_where_it_is_dark_photons_that_are_drawn_twice_have_half_of_the_noise_and_a_mean(rng):
    facts, model, noisy = taken("deeplense-1", 1, BRIGHT)
    sky, gain = facts["sky_rms_I_njy"], facts["njy_per_electron_I"] / 2
    mean, variance = moments(0 * model, noisy, rng)
    assert mean.mean() == pytest.approx(norm.pdf(0) * sky, rel=0.01)
    want = sky**2 * (0.5 - norm.pdf(0) ** 2) + gain * norm.pdf(0) * sky
    assert variance.mean() == pytest.approx(want, rel=0.01)


def test_the_column_has_a_unit_and_is_null_where_there_is_no_noise():
    rows = simulate_rows(read_recipe("deeplense-2", changes=SMALL), seed=1, items=range(3))
    name = "njy_per_electron_VIS"
    assert rows[name].null_count == 3
    assert rows.schema.field(name).metadata[b"unit"] == b"nJy"
    rows = simulate_rows(read_recipe("model-j", changes=SMALL), seed=1, items=range(40))
    gain, sky = (rows[key].to_numpy() for key in ("njy_per_electron_I", "sky_rms_I_njy"))
    assert gain.max() / gain.min() > 5
    np.testing.assert_allclose(gain / sky**2, gain[0] / sky[0] ** 2)  # both fall with the exposure
    rows = simulate_rows(read_recipe("challenge2", changes={}), seed=1, items=range(1))
    assert {f"njy_per_electron_{band}" for band in ("VIS", "J", "Y", "H")} <= set(rows.column_names)


def test_stamps_of_a_version_with_other_columns_are_not_lengthened(tmp_path):
    recipe = read_recipe("model-f", changes=SMALL | {"part_rows": 2})
    simulate(recipe, count=2, seed=1, out=tmp_path / "a")
    (part,) = (tmp_path / "a").glob("*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["njy_per_electron_I"]), part)
    with pytest.raises(ConfigError, match=r"another version.*without='njy_per_electron_I'"):
        simulate(recipe, count=4, seed=1, out=tmp_path / "a", resume=True)
    assert simulate(recipe, count=2, seed=1, out=tmp_path / "a", resume=True)["new_rows"] == 0
