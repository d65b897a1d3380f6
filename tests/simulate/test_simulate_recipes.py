import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lenspipe.errors import ConfigError
from lenspipe.simulate.catalog import COLUMNS
from lenspipe.simulate.recipe import read_recipe, recipe_names
from lenspipe.simulate.rows import simulate_rows
from lenspipe.stamps.format import image_array
from lenspipe.stamps.spec import ImageSpec

WANT = {
    "ground-gri": {"image": (("g", "r", "i"), 65, 0.2)},
    "ground-ugri": {"image": (("u", "g", "r", "i"), 101, 0.2)},
    "space-vis": {"image": (("VIS",), 101, 0.1)},
    "challenge2": {"image_vis": (("VIS",), 200, 0.1), "image_nir": (("J", "Y", "H"), 66, 0.3)},
    "substructure-1": {"image": (("F814W",), 150, 0.05)},
    "substructure-2": {"image": (("VIS",), 64, 0.1)},
    "substructure-3": {"image": (("F160W",), 64, 0.08)},
    "substructure-4": {"image": (("VIS", "Y", "J"), 64, 0.1)},
}
PUBLISHED = ["deeplense-1", "deeplense-2", "deeplense-3", "model-f", "model-j"]
"""Tested in a file of their own."""
FINDERS = [name for name in WANT if not name.startswith("sub")]
SUBSTRUCTURE = [name for name in WANT if name.startswith("sub")]
PROBED = "substructure-3"
"""Whose stamps are the cheapest: enough of them for a probe. `benchmarks/simulate_recipes.py` probes every recipe."""
LENS_TRUTHS = [
    "theta_e_arcsec",
    "z_lens",
    "z_source",
    "axis_ratio",
    "shear",
    "source_radius_arcsec",
    "magnification",
    "arc_snr",
]
VORTEX_TRUTHS = ["vortex_mass_msun", "vortex_density_msun_kpc", "axion_mass_ev"]
SUBHALO_TRUTHS = ["subhalo_mass_fraction", "subhalo_slope", "n_subhalo"]


@pytest.fixture(scope="module")
def tables():
    made = {}

    def make(name):
        if name not in made:
            n = 90 if name == PROBED else 24 if name in SUBSTRUCTURE else 36
            made[name] = simulate_rows(read_recipe(name), seed=11, items=range(n))
        return made[name]

    return make


def column(table, name, where=None):
    values = np.array(table.column(name).to_pylist(), dtype=object)
    return values if where is None else values[where]


def flux_and_size(images):
    """Mean flux and second-moment radius of each stamp, band by band."""
    y, x = np.indices(images.shape[-2:]) - (images.shape[-1] - 1) / 2
    light = np.clip(images, 0, None)
    size = np.sqrt((light * (x**2 + y**2)).sum(axis=(2, 3)) / np.maximum(light.sum(axis=(2, 3)), 1e-9))
    return np.concatenate([images.mean(axis=(2, 3)), size], axis=1)


def probe_auc(features, positive):
    model = make_pipeline(StandardScaler(), LogisticRegression())
    score = cross_val_predict(model, features, positive, cv=5, method="predict_proba")[:, 1]
    return roc_auc_score(positive, score)


def test_the_shipped_recipes_are_these():
    assert recipe_names() == sorted([*WANT, *PUBLISHED])


@pytest.mark.parametrize("name", list(WANT))
def test_a_recipe_makes_the_bands_shape_scale_classes_and_truths_it_says(tables, name):
    table = tables(name)
    specs = {f.name: spec for f in table.schema if (spec := ImageSpec.of_field(f)) is not None}
    assert {k: (v.bands, v.size_px, v.pixel_scale_arcsec) for k, v in specs.items()} == WANT[name]
    for image in specs:
        assert np.isfinite(image_array(table, image)).all()
    labels = column(table, "label")
    lens = labels != "nonlens"
    if name in SUBSTRUCTURE:
        assert set(labels) == {"no_substructure", "subhalo", "vortex"}
        assert (column(table, "perturbation_snr", labels != "no_substructure").astype(float) > 0).all()
        for truths, label in ((SUBHALO_TRUTHS, "subhalo"), (VORTEX_TRUTHS, "vortex")):
            for truth in truths:
                assert len(set(column(table, truth, labels == label))) > 5
                assert set(column(table, truth, labels != label)) == {None}
    else:
        assert set(labels) == {"lens", "nonlens"}
        assert len(set(column(table, "kind", ~lens))) >= 5
        assert set(column(table, "theta_e_arcsec", ~lens)) == {None}
    for truth in LENS_TRUTHS:
        values = column(table, truth, lens).astype(float)
        assert np.isfinite(values).all()
        assert len(set(values)) > 0.9 * lens.sum()
    assert set(column(table, "recipe")) == {name}
    assert len(set(column(table, "stamp_id"))) == len(table)
    assert len(set(column(table, "host"))) == len(table)
    assert {"train"} <= set(column(table, "split")) <= {"train", "validation", "test"}


def test_mean_flux_and_size_alone_cannot_tell_substructure(tables):
    table = tables(PROBED)
    features, labels = flux_and_size(image_array(table, "image")), column(table, "label")
    aucs = {label: probe_auc(features, labels == label) for label in set(labels)}
    assert max(aucs.values()) < 0.6, aucs


def test_the_catalogue_of_the_second_challenge_is_complete_and_defines_its_lenses(tables):
    table = tables("challenge2")
    assert set(COLUMNS) <= set(table.schema.names)
    lens = column(table, "label") == "lens"
    images, magnification, pixels = (column(table, c) for c in ("n_source_im", "mag_eff", "n_pix_source"))
    rule = [
        i > 0 and m is not None and m > 1.6 and p > 20 for i, m, p in zip(images, magnification, pixels, strict=True)
    ]
    np.testing.assert_array_equal(rule, lens)
    theta = column(table, "theta_e_arcsec", lens).astype(float)
    np.testing.assert_allclose(column(table, "ein_area", lens).astype(float), np.pi * theta**2, rtol=0.12)
    assert (column(table, "n_gal_10").astype(int) >= column(table, "n_gal_3").astype(int)).all()


def test_lenses_reach_the_signal_to_noise_that_is_asked_for(tables):
    for name in ("ground-gri", "space-vis"):
        table = tables(name)
        snr = column(table, "arc_snr", column(table, "label") == "lens").astype(float)
        assert snr.min() >= read_recipe(name).min_arc_snr


def test_another_pixel_scale_can_be_asked_for_and_noise_follows():
    fine, coarse = (read_recipe("ground-gri", pixel_scale_arcsec=s) for s in (0.17, 0.27))
    rows = [simulate_rows(r, seed=1, items=range(3)) for r in (fine, coarse)]
    assert [ImageSpec.of_field(t.schema.field("image")).pixel_scale_arcsec for t in rows] == [0.17, 0.27]
    rms = [np.array(t.column("sky_rms_r_njy").to_pylist()) for t in rows]
    np.testing.assert_allclose(rms[1] / rms[0], 0.27 / 0.17)
    with pytest.raises(ConfigError, match="one image"):
        read_recipe("challenge2", pixel_scale_arcsec=0.2)


def test_a_wrong_recipe_is_refused_with_a_hint(tmp_path):
    with pytest.raises(ConfigError, match=r"no such recipe.*ground-gri"):
        read_recipe("ground")
    text = (
        'name = "x"\ndescription = ""\nkind = "finder"\nmin_arc_sn = 3\n[[image]]\nbands = ["g"]\nsize_px = 32\n'
        'pixel_scale_arcsec = 0.2\n[[survey]]\nname = "s"\n[classes]\nlens = 1\n'
    )
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match="Did you mean 'min_arc_snr'"):
        read_recipe(str(tmp_path / "x.toml"))
    (tmp_path / "x.toml").write_text(
        text.replace("min_arc_sn = 3\n", "").replace('name = "s"', 'name = "s"\nband = {}')
    )
    with pytest.raises(ConfigError, match="has no table for g"):
        read_recipe(str(tmp_path / "x.toml"))
