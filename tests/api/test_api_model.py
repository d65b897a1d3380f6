import numpy as np
import pytest
import torch

import lenspipe as lp
from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import find_model


@pytest.fixture(scope="module")
def model():
    return lp.Model.load("ground-gri")


@pytest.fixture(scope="module")
def lenses():
    return [
        lp.simulate_lens(theta_e_arcsec=size, pixel_scale_arcsec=0.27, size_px=65, seed=k)
        for k, size in enumerate((1.2, 1.8))
    ]


def test_scores_are_the_bits_of_a_scan(model, lenses):
    stack = np.stack([lens.pixels_njy for lens in lenses])
    scorer = Scorer(find_model("ground-gri"))
    expected = scorer.score(stack, pixel_scale_arcsec=0.27)
    table = model.score(stack, pixel_scale_arcsec=0.27)
    assert table["score"].tolist() == expected.tolist()
    assert lp.score(lenses, model)["score"].tolist() == expected.tolist()
    assert table.meta["digest"] == scorer.digest


def test_bands_may_come_in_any_order_and_with_others(model, lenses):
    stack = np.stack([lens.pixels_njy for lens in lenses])
    shuffled = np.stack([stack[:, 2], np.zeros_like(stack[:, 0]), stack[:, 0], stack[:, 1]], axis=1)
    again = model.score(shuffled, bands=["i", "K", "g", "r"], pixel_scale_arcsec=0.27)
    assert again["score"].tolist() == lp.score(lenses, model)["score"].tolist()


def test_an_array_of_counts_scores_as_its_njy_do(model, lenses):
    njy = lenses[0].pixels_njy.astype(float)
    counts = njy * 10 ** (0.4 * (22.5 - 31.4))
    score = lp.score(njy, model, pixel_scale_arcsec=0.27)["score"][0]
    same = {"pixel_scale_arcsec": 0.27, "zero_point_ab": 22.5}
    assert lp.score(counts, model, **same)["score"][0] == pytest.approx(score, rel=1e-4)
    assert abs(lp.score(counts, model, pixel_scale_arcsec=0.27)["score"][0] - score) > 0.1
    assert model.features(counts, **same) == pytest.approx(
        model.features(njy, pixel_scale_arcsec=0.27), rel=1e-3, abs=1e-3
    )
    with pytest.raises(ConfigError, match="stamps are in nJy"):
        lp.score(lenses, model, zero_point_ab=22.5)
    with pytest.raises(DataError, match=r"give an array \(n, band, y, x\)"):
        lp.score([njy, njy], model, **same)
    for other in ([22.5, 22.5, 22.5], float("nan")):
        with pytest.raises(ConfigError, match="zero_point_ab is one number"):
            lp.score(njy, model, pixel_scale_arcsec=0.27, zero_point_ab=other)


def test_a_picture_of_one_band_is_a_stamp(rng):
    space = lp.Model.load("space-vis")
    image = rng.normal(0, 30, (1, 101, 101))
    flat, stack = (space.score(one, pixel_scale_arcsec=0.1)["score"][0] for one in (image[0], image))
    assert flat == stack


def test_a_committee_scores_as_one_with_a_column_per_member(lenses, tmp_path, model):
    from lenspipe.infer.committee import committee_score
    from lenspipe.nn.checkpoint import load_model, save_model

    network, card = load_model(find_model("ground-gri"))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 1.01
    save_model(tmp_path / "other", network, card.model_copy(update={"name": "other"}))
    table = lp.score(lenses, ["ground-gri", tmp_path / "other"])
    calibration = card.outputs.calibration
    each = np.stack([table["score_ground-gri"], table["score_other"]])
    assert each[0].tolist() == model.score(lenses)["score"].tolist()
    assert not np.array_equal(each[0], each[1])
    assert table["score"].tolist() == committee_score(each, [calibration, calibration]).tolist()


def test_a_probability_needs_a_prior_and_falls_with_it(model, lenses):
    assert "probability" not in model.score(lenses).colnames
    rare, common = (model.score(lenses, prior=prior)["probability"] for prior in (1e-4, 1e-2))
    odds = [p / (1 - p) for p in (rare, common)]
    assert np.allclose(odds[1] / odds[0], (1e-2 / 0.99) / (1e-4 / 0.9999))


def test_an_array_must_say_its_scale_and_fit(model):
    blank = np.zeros((2, 3, 61, 61), np.float32)
    with pytest.raises(ConfigError, match="pixel_scale_arcsec"):
        model.score(blank)
    with pytest.raises(ModelError, match="pixels of"):
        model.score(blank, pixel_scale_arcsec=3.0)
    with pytest.raises(DataError, match="one name per band"):
        model.score(blank[:, :2], pixel_scale_arcsec=0.27)
    blank[1, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="finite"):
        model.score(blank, pixel_scale_arcsec=0.27)


def test_what_is_no_finder_is_refused():
    with pytest.raises(ConfigError, match="only finders"):
        lp.Model.load("denoise-ground")


def test_a_score_is_explained_where_the_arcs_are(model):
    lens = lp.simulate_lens(theta_e_arcsec=1.6, pixel_scale_arcsec=0.27)
    falls = model.explain(lens)
    assert falls.shape == lens.pixels_njy.shape[1:]
    y, x = np.indices(falls.shape) - 30
    near = np.hypot(x, y) * 0.27 < 3
    assert falls[near].mean() > 10 * np.abs(falls[~near].mean())


def test_features_are_one_row_per_stamp(model, lenses):
    found = model.features(lenses)
    assert len(found) == 2 and found.ndim == 2
    assert not np.array_equal(found[0], found[1])
