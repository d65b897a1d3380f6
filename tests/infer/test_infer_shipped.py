"""The models that ship: small, whole, honest about themselves, and better than chance on what they never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from lenspipe.cli.models import command
from lenspipe.infer.prepare import cutout_size_px
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import SHIPPED, WEIGHTS_FILE, find_model, shipped_models
from lenspipe.nn.registry import families
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.models import choose_readers
from lenspipe.scan.readers.find import Finder
from lenspipe.survey.layout import read_layout

GROUND = "ground-gri"


@pytest.fixture(scope="module")
def ground() -> Scorer:
    return Scorer(find_model(GROUND), device="cpu")


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


@pytest.mark.parametrize(
    ("bands", "name"),
    [
        (("g", "r", "i"), GROUND),
        (("u", "g", "r", "i", "z"), GROUND),
        (("i", "r", "g"), GROUND),
        (("g", "r", "i", "z"), GROUND),
        (("g", "r", "z"), "ground-grz"),
        (("VIS",), "space-vis"),
    ],
)
def test_a_scan_takes_the_shipped_model_whose_bands_its_tiles_have(bands: tuple[str, ...], name: str) -> None:
    chosen = choose_readers(ScanConfig(), bands, read_layout("generic"))
    (finder,) = chosen.readers
    assert isinstance(finder, Finder)
    assert (finder.model.folder, finder.name, chosen.no_model) == (SHIPPED / name, name, None)


def test_a_scan_without_the_bands_of_a_shipped_model_has_none_and_says_why() -> None:
    chosen = choose_readers(ScanConfig(), ("g", "r"), read_layout("generic"))
    assert (chosen.readers, chosen.no_model) == ((), "no shipped model fits the bands g r")


def test_noise_and_empty_sky_are_not_lenses(ground: Scorer) -> None:
    rng = np.random.default_rng(0)
    sky = rng.normal(0, 1, (40, 3, 65, 65)) * np.array([8, 9, 18])[:, None, None]
    sky[0] = 0
    assert ground.score(sky.astype(np.float32), pixel_scale_arcsec=0.27).max() < 0.2


def test_the_candidate_of_the_cfhtls_tile_is_among_the_best_five_of_its_sources(
    ground: Scorer, real_data: Path
) -> None:
    """SL2SJ142209+524652; the tile was never trained on."""
    from benchmarks.studies.data import cfhtls_tile, study_hosts

    scale, size = 0.186, cutout_size_px(ground.card, 0.186)
    image = cfhtls_tile(real_data)
    hosts, at = study_hosts(image, name="c", pixel_scale_arcsec=scale, psf_fwhm_arcsec=np.full(3, 0.8), size_px=size)
    score = ground.score(np.stack([host.pixels_njy for host in hosts]), pixel_scale_arcsec=scale)
    distance_arcsec = np.hypot(at[:, 0] - 222, at[:, 1] - 230) * scale
    assert len(score) >= 40
    assert distance_arcsec.min() < 1.5
    assert (score >= score[distance_arcsec.argmin()]).sum() <= 5


@pytest.mark.parametrize("name", [GROUND, "ground-grz"])
def test_lenses_of_a_simulated_field_score_above_its_galaxies_and_stars(name: str) -> None:
    """A field of another seed, pixel scale and depth than any it was trained on."""
    from lenspipe.image.cutouts import extract_cutouts
    from lenspipe.simulate.field import simulate_field

    scorer = Scorer(find_model(name), device="cpu")
    bands = scorer.card.bands
    field = simulate_field(seed=77, bands=bands, shape_px=(900, 900), n_lens=14, n_galaxy=220, pixel_scale_arcsec=0.215)
    truth = field.truth.to_pydict()
    bright = np.array(truth[f"mag_{bands[-1]}"]) < 22
    x, y, is_lens = (np.array(truth[name])[bright] for name in ("x_px", "y_px", "is_lens"))
    nothing = np.zeros(field.image.shape, bool)
    cutouts, _ = extract_cutouts(field.image, nothing, x, y, size_px=cutout_size_px(scorer.card, 0.215))
    score = scorer.score(cutouts, pixel_scale_arcsec=0.215)
    assert is_lens.sum() == 14
    assert roc_auc_score(is_lens, score) > 0.85
