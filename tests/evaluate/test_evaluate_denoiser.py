# The gate lets through what helps and nothing else: the deep image itself passes, a blur and the input do not.

import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from denoisers import write_denoiser
from scipy import ndimage
from sky import gaussian_sources

from lenspipe.cli import group
from lenspipe.evaluate import denoiser_report
from lenspipe.evaluate.denoiser import GateField, GateLimits, judge, measure_field, run_gate
from lenspipe.stamps.format import write_part
from lenspipe.stamps.spec import ImageSpec, image_column, stamp_schema
from lenspipe.stats.denoising import noise_of

RMS = np.array([5.0, 5.0, 5.0])
HELPS = {
    "tpr_gain": {
        "0.01": {"value": 0.05, "interval95": [0.02, 0.08]},
        "0.001": {"value": 0.0, "interval95": [-0.1, 0.1]},
    },
    "invented": {"gain": {"value": 0.0, "interval95": [-0.01, 0.01]}},
}


@pytest.fixture(scope="module")
def field():
    rng = np.random.default_rng(4)
    shape, n = (400, 400), 160
    x, y = rng.uniform(12, 388, (2, n))
    flux = 10 ** rng.uniform(2.0, 4.6, n)
    star = gaussian_sources(shape, x[:80], y[:80], flux[:80], fwhm_px=4.0)
    galaxy = gaussian_sources(shape, x[80:], y[80:], flux[80:], fwhm_px=7.0)
    truth = np.stack([star + galaxy] * 3).astype(np.float32)
    noise = rng.normal(0, RMS[:, None, None], (2, *truth.shape))
    short = truth + noise[0]
    deep = truth + (noise[0] + noise[1]) / 2
    return GateField("field", short.astype(np.float32), deep.astype(np.float32), RMS, 2.0, truth)


def like_deep(field):
    return lambda images, rms, ratio: field.deep_njy[None]


def blur(images, rms, ratio):
    return np.asarray(ndimage.gaussian_filter(images, (0, 0, 1.5, 1.5)), np.float32)


def test_the_deep_image_itself_passes_and_gains_what_its_exposure_says(field):
    report = run_gate(like_deep(field), [field], finder=HELPS)
    assert report["passed"], report["reasons"]
    found = report["fields"][0]
    assert found["after"]["detections"]["completeness"] == 1
    assert found["gain"]["sky"] == pytest.approx(2**0.5, rel=0.06)
    assert found["gain"]["flux"] == pytest.approx(2**0.5, rel=0.25)
    assert found["gain_of_deep"] == found["gain"]
    assert found["at_purity_before"] == {"threshold_sigma": 1.5, "completeness": 1.0, "purity": 1.0}
    assert found["before"]["detections"]["completeness"] < 0.97
    assert found["after"]["psnr_db"] - found["before"]["psnr_db"] == pytest.approx(3.0, abs=0.2)
    assert found["after"]["ssim"] > found["before"]["ssim"]


def test_a_gaussian_blur_fails_although_it_makes_the_sky_smooth(field):
    report = run_gate(blur, [field], finder=HELPS)
    assert not report["passed"]
    assert any("half-light radius" in reason for reason in report["reasons"])
    assert any("fluxes of magnitude" in reason for reason in report["reasons"])
    found = report["fields"][0]
    assert found["gain"]["sky"] > 1.1
    assert found["after"]["residual"]["correlation_1"] > 0.5


def test_a_denoiser_that_dims_what_is_faint_fails(field):
    def dim(images, rms, ratio):
        return np.where(field.truth_njy < 15, 0.8, 1.0) * field.deep_njy[None]

    found = measure_field(dim, field)
    assert found["after"]["faint_fluxes"]["bias_of_noise"] < -0.3


def test_what_changes_nothing_does_not_pass_without_a_finder_that_gains(field):
    same = run_gate(lambda images, rms, ratio: images, [field], finder=None)
    assert same["reasons"] == ["no finder was trained and run without and with it"]


@pytest.mark.parametrize(
    ("finder", "reason"),
    [
        ({"tpr_gain": {"0.01": {"interval95": [-0.01, 0.02]}}}, "does not find more lenses"),
        ({"tpr_gain": {"0.01": {"interval95": [0.01, 0.02]}, "0.001": {"interval95": [-0.2, -0.1]}}}, "finds fewer"),
        ({"invented": {"gain": {"interval95": [0.001, 0.01]}}}, "more arcs on galaxies without"),
    ],
)
def test_the_finder_decides(field, finder, reason):
    measured = [measure_field(like_deep(field), field)]
    assert judge(measured, HELPS, GateLimits()) == []
    reasons = judge(measured, HELPS | finder, GateLimits())
    assert len(reasons) == 1 and reason in reasons[0]


def test_a_data_set_gives_a_verdict_by_command(tmp_path, tiny_model, rng):
    """Untrained weights help nobody: the report says so, and why."""
    write_stamps(tmp_path / "data", rng)
    model = write_denoiser(tmp_path / "denoiser")
    arguments = [str(tiny_model), "--data", tmp_path / "data", "--out", tmp_path / "report", "--denoiser", model]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoiser_report, "simulated_fields", list)
        result = CliRunner().invoke(group, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert "Verdict: FAILED" in result.output
    report = json.loads((tmp_path / "report" / "gate.json").read_text())
    assert report["passed"] is False and report["reasons"]
    assert report["finder"]["n_lens"] == 20 and report["finder"]["n_other"] == 40


def test_the_noise_of_a_stamp_is_not_taken_from_its_galaxy(rng):
    galaxy = gaussian_sources((64, 64), np.array([32.0]), np.array([32.0]), np.array([8000.0]), fwhm_px=12.0)
    stamps = (galaxy + rng.normal(0, 5.0, (6, 2, 64, 64))).astype(np.float32)
    np.testing.assert_allclose(noise_of(stamps), 5.0, rtol=0.12)


def write_stamps(folder, rng):
    n, spec = 60, ImageSpec(("g", "r", "i"), 49, 0.2)
    table = {
        "stamp_id": [f"s{k}" for k in range(n)],
        "image": image_column(rng.normal(0, 10, (n, 3, 49, 49)).astype(np.float32), spec),
        "label": ["lens"] * 20 + ["nonlens"] * 40,
        "recipe": ["made"] * n,
        "seed": [0] * n,
        "host": [f"h{k}" for k in range(n)],
        "split": ["test"] * n,
    }
    write_part(pa.table(table, schema=stamp_schema({"image": spec})), folder, "part")
