"""The real sky: the reserved half stays closed, painted arcs are counted, real galaxies set the threshold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.real_sky import ground
from benchmarks.studies.real_sky.page import real_sky_page
from benchmarks.studies.real_sky.space import on_grid, space_real_sky
from lenspipe.errors import ConfigError
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import ModelCard, find_model, read_card

REAL = Path(__file__).resolve().parents[2] / "../shared/data"
needs_real = pytest.mark.skipif(not (REAL / "tiles/kids_viking").is_dir(), reason="the real pixels are not here")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(find_model("ground-gri"), device="cpu")


def test_completeness_counts_undetected_arcs_and_every_arc_once() -> None:
    rng = np.random.default_rng(1)
    logit = [rng.normal() if k % 5 else None for k in range(200)]
    arcs = zip(rng.uniform(0.8, 3, 200), 10 * rng.pareto(1, 200) + 10, logit, strict=True)
    rows = [{"theta_e_arcsec": theta, "arc_snr": snr, "logit": value} for theta, snr, value in arcs]
    found = ground.completeness(rows, 0.3)
    passed = [row for row in rows if row["logit"] is not None and row["logit"] > 0.3]
    assert found["all"]["k"] == len(passed) and found["all"]["n"] == 200
    assert found["detected"]["k"] == 160
    for name in ("theta_e_arcsec", "arc_snr"):
        assert sum(b["n"] for b in found[name]) == 200 and sum(b["k"] for b in found[name]) == len(passed)


@needs_real
def test_the_halves_of_space_warps_share_nothing_and_leave_out_known_lenses() -> None:
    mine, grade = ground.spacewarps_stamps(REAL)
    other, other_grade = ground.spacewarps_stamps(REAL, reserved=True)
    assert not {stamp.tobytes() for stamp in mine} & {stamp.tobytes() for stamp in other}
    assert (grade >= 2).sum() + (other_grade >= 2).sum() == 44
    assert np.isclose(grade, 0.3).sum() + np.isclose(other_grade, 0.3).sum() == 78 - 13


@needs_real
def test_the_shipped_finder_tells_lenses_from_real_galaxies_and_finds_painted_arcs(predictor: Predictor) -> None:
    found = ground.ground_real_sky(predictor, REAL, n_pass=1)
    assert found["n_kids_galaxies"] > 200
    assert found["auc_spacewarps_good_against_kids"]["interval95"][0] > 0.85
    one, five = (found[f"where_{part}_of_kids_pass"] for part in ("0.01", "0.05"))
    assert one["spacewarps_good"]["k"] <= five["spacewarps_good"]["k"]
    assert one["painted_arcs"]["detected"]["value"] > 0.8
    assert found["cfhtls"]["distance_arcsec"] < 1.5 and found["cfhtls"]["rank"] <= 10
    page = real_sky_page([{"model": "ground-gri", "ground": found}, {"model": "odd", "why": "its bands"}])
    assert "Space Warps candidates: the half for choosing" in page and "its bands" in page
    json.dumps(found, allow_nan=False)


def test_a_model_of_several_bands_is_refused_for_the_space_sets(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one band"):
        space_real_sky(predictor, tmp_path)


def test_a_stamp_of_any_scale_keeps_its_brightness_on_the_models_grid() -> None:
    card: ModelCard = read_card(find_model("ground-gri")).model_copy(
        update={"bands": ("VIS",), "stamp_px": 33, "pixel_scale_arcsec": 0.1}
    )
    linear = card.stretch.model_copy(update={"name": "linear", "band_scales": (1.0,), "alpha": 1.0})
    seen = on_grid(np.full((1, 150, 150), 0.0009, np.float32), 0.03, card.model_copy(update={"stretch": linear}))
    np.testing.assert_allclose(seen, 1.0, rtol=1e-5)


@needs_real
def test_the_shipped_space_finder_puts_real_lenses_above_real_galaxies_that_it_never_saw() -> None:
    found = space_real_sky(Predictor(find_model("space-vis"), device="cpu"), REAL, n_arc=1)
    assert found["n_galaxies"] == 64 and len(found["lens_logits"]) == 8
    area = found["auc_lenses_against_galaxies"]
    assert area["value"] > 0.95 and area["interval95"][0] > 0.8  # eight lenses: the interval is as wide as that
    assert found["auc_lenses_against_galaxies_to_22.5"]["n"] == [8, 7]
    at = found["where_0.05_of_galaxies_pass"]
    assert at["galaxies_passing"]["k"] <= 5 and at["lenses"]["k"] >= 6
    arcs = at["painted_arcs"]["all"]
    assert arcs["n"] == 7 and arcs["k"] >= 4  # 213 of 252 were recorded
    assert "not measured with 64 galaxies" in real_sky_page([{"model": "space-vis", "space": found}])
