"""The models that ship: small, whole, honest about themselves, and better than chance on what they never saw."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from lenspipe.cli.models import command
from lenspipe.infer.prepare import cutout_size_px
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import SHIPPED, WEIGHTS_FILE, find_model, shipped_models
from lenspipe.nn.registry import families

FIRST = "ground-gri-first"


@pytest.fixture(scope="module")
def first() -> Scorer:
    return Scorer(find_model(FIRST), device="cpu")


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_is_small_and_its_card_says_what_it_is(name: str) -> None:
    scorer = Scorer(SHIPPED / name, device="cpu")
    assert scorer.card.name == name
    assert (SHIPPED / name / WEIGHTS_FILE).stat().st_size < 2 << 20
    assert {"command", "seed", "hosts"} <= set(scorer.card.training)
    assert scorer.card.metrics
    assert scorer.card.licence


def test_the_models_command_lists_families_and_shipped_models() -> None:
    run = CliRunner().invoke(command)
    assert run.exit_code == 0
    for name in [*families(), *shipped_models()]:
        assert name in run.output


def test_noise_and_empty_sky_are_not_lenses(first: Scorer) -> None:
    rng = np.random.default_rng(0)
    sky = rng.normal(0, 1, (40, 3, 65, 65)) * np.array([8, 9, 18])[:, None, None]
    sky[0] = 0
    assert first.score(sky.astype(np.float32), pixel_scale_arcsec=0.27).max() < 0.2


def test_lenses_of_a_simulated_field_score_above_its_galaxies_and_stars(first: Scorer) -> None:
    """A field of another seed, pixel scale and depth than any it was trained on."""
    from lenspipe.image.cutouts import extract_cutouts
    from lenspipe.simulate.field import simulate_field

    field = simulate_field(seed=77, shape_px=(900, 900), n_lens=14, n_galaxy=220, pixel_scale_arcsec=0.215)
    truth = field.truth.to_pydict()
    bright = np.array(truth["mag_i"]) < 22
    x, y, is_lens = (np.array(truth[name])[bright] for name in ("x_px", "y_px", "is_lens"))
    nothing = np.zeros(field.image.shape, bool)
    cutouts, _ = extract_cutouts(field.image, nothing, x, y, size_px=cutout_size_px(first.card, 0.215))
    score = first.score(cutouts, pixel_scale_arcsec=0.215)
    assert is_lens.sum() == 14
    assert roc_auc_score(is_lens, score) > 0.85
