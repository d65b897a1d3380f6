# Candidates that look like lenses are asked for their dark matter, in any runner; the others, and silences, stay null.

from __future__ import annotations

import contextlib
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from sky import write_tile

from lenspipe.cli.scan import command
from lenspipe.errors import ConfigError
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import ModelCard, read_card, write_card
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.outputs import Abstention, Calibration
from lenspipe.nn.registry import build
from lenspipe.runner import Silent, here
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext
from lenspipe.scan.local import scan_local
from lenspipe.scan.models import choose_readers
from lenspipe.scan.plan import read_plan, tasks_of
from lenspipe.scan.readers.contract import CutoutKey
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.rows import unpack_cutouts
from lenspipe.scan.run import run_scan
from lenspipe.scan.shard import scan_shard
from lenspipe.schema import substructure_fields
from lenspipe.survey.layout import read_layout

CLASSES = ("no_substructure", "subhalo", "vortex")
RULE = Abstention(least_snr=0.0, least_radius_arcsec=0.0, least_confidence=0.0, accuracy=0.5, n=1, data="made")
NAMES = [f.name for f in substructure_fields()]


def model(folder: Path, **card) -> Path:
    torch.manual_seed(5)
    facts = {
        "name": folder.name,
        "family": "small-cnn",
        "settings": {"width": 4, "dropout": 0.0},
        "task": "classify",
        "classes": CLASSES,
        "bands": ("i", "r"),
        "pixel_scale_arcsec": 0.2,
        "scale_tolerance": 0.1,
        "min_scale_arcsec": 0.1,
        "max_scale_arcsec": 0.4,
        "stamp_px": 40,
        "abstention": RULE,
        "stretch": {"band_scales": (0.01, 0.01), "alpha": 0.1, "q": 1.0},
    }
    if card.get("task") == "regress":
        facts = {name: value for name, value in facts.items() if name not in ("classes", "abstention")}
    made = ModelCard.model_validate(facts | card)
    save_model(folder, build("small-cnn", made.n_channel, made.stamp_px, made.n_out, width=4, dropout=0.0), made)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("substructure")
    write_tile(folder / "tiles", "a", shape=(300, 300), n_source=30)
    shutil.copytree(tiny_model, folder / "finder")
    score = rows_of(request({"finder": tiny_model, "tiles": folder / "tiles"}, (), 0), folder / "run")["score"]
    middle = float(np.median(score.to_numpy()))
    intercept = -60 * np.log(middle / (1 - middle))  # half of the candidates are probable
    calibration = Calibration(
        method="platt", slope=60.0, intercept=intercept, prior=0.4, n_lens=40, n_other=60, data="made"
    )
    write_card(folder / "finder", read_card(tiny_model).with_outputs(calibration=calibration))
    model(folder / "classes")
    values = {
        "targets": ("theta_e_arcsec", "vortex_mass_msun"),
        "target_means": (1.0, 1e10),
        "target_spreads": (0.2, 4e9),
        "uncertainty": "gaussian",
        "stamp_px": 33,
    }
    model(folder / "values", task="regress", **values)
    return {path.name: path for path in folder.iterdir()}


def request(
    made, models=("classes", "values"), above=0.5, *, finder="finder", survey="generic", **layout
) -> ScanRequest:
    raw = {
        "shard": {"core_px": 128, "halo_px": 64},
        "score": {"model": str(made[finder]), "prior": 0.4 if models and finder == "finder" else None},
        "substructure": {"models": [str(made.get(name, name)) for name in models], "above": above},
    }
    config = ScanConfig.model_validate(raw)
    chosen = read_layout("generic").model_copy(update=layout)
    return ScanRequest((str(made["tiles"]),), chosen, config, None)


local = here(scan_local)


@contextlib.contextmanager
def by_ray(separate_scorers, plain_s=None):
    from lenspipe.distributed.scan import scan_ray

    yield partial(scan_ray, n_worker=2, separate_scorers=separate_scorers)


def rows_of(asked: ScanRequest, out: Path, runner=local):
    run_scan(asked, out, runner, Silent(), resume=False)
    return pq.read_table(out / "candidates.parquet")


@pytest.fixture(scope="module")
def run(made, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "local"
    rows_of(request(made), out)
    return out


def test_probable_lenses_have_what_the_networks_say_of_their_cutouts_and_others_nothing(run, made):
    rows = {row["candidate_id"]: row for row in pq.read_table(run / "candidates.parquet").to_pylist()}
    above = [row for row in rows.values() if row["probability"] >= 0.5]
    assert 5 < len(above) < len(rows) - 5
    assert all(row[name] in (None, "") for row in rows.values() if row["probability"] < 0.5 for name in NAMES)
    plan, bands = read_plan(run / "plan.parquet")
    asked = request(made)
    readers = choose_readers(asked.config, bands, asked.layout).readers
    context = ScanContext(asked.config, asked.layout, bands, run / "attempts", readers)
    row = scan_shard(tasks_of(plan)[0], context)
    cutouts = unpack_cutouts(row, 0)[CutoutKey(("i", "r"), 41)]  # odd, around even stamps
    assert cutouts.shape[1:] == (2, 41, 41)
    classes, values = (Predictor(made[name], device="cpu", batch_size=4) for name in ("classes", "values"))
    said = classes.predict(stamp_input(cutouts, bands=("i", "r"), pixel_scale_arcsec=0.2, card=classes.card))
    found = values.predict(
        np.ascontiguousarray(stamp_input(cutouts, bands=("i", "r"), pixel_scale_arcsec=0.2, card=values.card))
    )
    n_checked = 0
    for k, candidate in enumerate(row["candidates"][0].as_py()):
        stored = rows[candidate["candidate_id"]]
        if stored["probability"] < 0.5:
            continue
        n_checked += 1
        np.testing.assert_allclose([stored[f"probability_{c}"] for c in CLASSES], said.probability[k], rtol=1e-5)
        assert stored["substructure_class"] == CLASSES[said.probability[k].argmax()]
        assert stored["theta_e_arcsec"] == pytest.approx(found.value[k, 0], rel=1e-5)
        assert stored["theta_e_err_arcsec"] == pytest.approx(found.sigma[k, 0], rel=1e-5)
        is_vortex = stored["substructure_class"] == "vortex"
        want = found.value[k, 1] if is_vortex else None
        assert stored["vortex_mass_msun"] == (pytest.approx(want, rel=1e-5) if is_vortex else None)
        assert stored["substructure_reason"] == ""
    assert n_checked


@pytest.mark.parametrize("shown", [{"smooth_residual": True}, {"high_pass_px": 1.5, "standardise": True}])
def test_an_input_that_is_more_than_pixels_is_made_in_a_scan_as_elsewhere(made, tmp_path, shown):
    rule = {"name": "asinh", "band_scales": (0.01, 0.02), "alpha": 0.1, "q": 1.0}
    plain, other = (model(tmp_path / name, stretch=rule | more) for name, more in (("plain", {}), ("other", shown)))
    write_tile(tmp_path / "tiles", "a", shape=(160, 160), n_source=10)
    asked = request({**made, "other": other, "tiles": tmp_path / "tiles"}, ("other",), 0)
    rows = {row["candidate_id"]: row for row in rows_of(asked, tmp_path / "run").to_pylist()}
    plan, bands = read_plan(tmp_path / "run" / "plan.parquet")
    readers = choose_readers(asked.config, bands, asked.layout).readers
    context = ScanContext(asked.config, asked.layout, bands, tmp_path / "run" / "attempts", readers)
    apart = []
    for task in tasks_of(plan):
        shard = scan_shard(task, context)
        if not shard["candidates"][0].as_py():
            continue
        ((_, cutouts),) = (item for item in unpack_cutouts(shard, 0).items() if item[0].bands == ("i", "r"))
        said, without = (
            predictor.predict(stamp_input(cutouts, bands=("i", "r"), pixel_scale_arcsec=0.2, card=predictor.card))
            for predictor in (Predictor(folder, device="cpu", batch_size=3) for folder in (other, plain))
        )
        for k, candidate in enumerate(shard["candidates"][0].as_py()):
            stored = rows[candidate["candidate_id"]]
            if stored["substructure_reason"] == "masked":
                continue
            found = [stored[f"probability_{c}"] for c in CLASSES]
            np.testing.assert_allclose(found, said.probability[k], rtol=2e-6)
            apart.append(np.abs(np.array(found) - without.probability[k]).max())
    assert len(apart) > 3 and np.median(apart) > 3e-5


@pytest.mark.usefixtures("ray_local")
def test_ray_writes_the_columns_of_the_plain_loop(run, made, tmp_path):
    """With cutouts that travel to scorers of their own; the other way is the plain loop's in a process of Ray."""
    rows = rows_of(request(made), tmp_path / "ray", partial(by_ray, True))
    assert rows.equals(pq.read_table(run / "candidates.parquet"))


@pytest.mark.parametrize(
    ("rule", "layout", "reason"),
    [
        ({"least_snr": 1e9}, {}, "snr"),
        ({"least_radius_arcsec": 99.0}, {}, "radius"),
        ({"widest_psf_arcsec": {"r": 0.6}}, {"psf_fwhm_arcsec": {"r": 0.7}}, "psf"),
        ({"least_confidence": None}, {}, "confidence"),
    ],
)
def test_an_abstaining_classifier_says_why_and_numbers_of_stamps_beyond_it_stay_null(
    made, tmp_path, rule, layout, reason
):
    name = model(tmp_path / "strict", abstention=RULE.model_copy(update=rule))
    write_tile(tmp_path / "tiles", "a", shape=(160, 160), n_source=10)
    few = {**made, "strict": name, "tiles": tmp_path / "tiles"}
    rows = rows_of(request(few, ("strict", "values"), 0, **layout), tmp_path / "run").to_pylist()
    assert {row["substructure_class"] for row in rows} == {"abstained"}
    assert {row["substructure_reason"] for row in rows} <= {reason, "masked"}
    asked = [row for row in rows if row["substructure_reason"] == reason]
    assert len(asked) > len(rows) / 2
    assert {row["probability_vortex"] is None for row in asked} == {reason != "confidence"}
    assert {row["vortex_mass_msun"] for row in rows} == {None}


def test_models_that_cannot_be_used_are_refused_before_any_work(made, tmp_path, tiny_model):
    model(tmp_path / "other_bands", bands=("i", "Y"))
    model(tmp_path / "other_scale", pixel_scale_arcsec=0.05, min_scale_arcsec=0.04, max_scale_arcsec=0.06)
    model(tmp_path / "ruleless", abstention=None)
    model(tmp_path / "needs_psf", abstention=RULE.model_copy(update={"widest_psf_arcsec": {"r": 1.0}}))
    model(tmp_path / "other_classes", classes=("cdm", "axion"))
    model(tmp_path / "wide", stamp_px=200)
    known = {**made, **{path.name: path for path in tmp_path.iterdir()}, "raw": tiny_model}
    refused = {
        "needs bands .* missing='Y'": request(known, ["other_bands"]),
        "does not fit the tiles.*0.04": request(known, ["other_scale"]),
        "no rule when to abstain": request(known, ["ruleless"]),
        "states none: add psf_fwhm_arcsec": request(known, ["needs_psf"]),
        "candidates have columns for": request(known, ["other_classes"]),
        "classifies or regresses": request(known, ["finder"]),
        "wider than the halo": request(known, ["wide"]),
        "one classifier and one regression": request(known, ["classes", "classes"]),
        "no calibrated finder scores": request(known, finder="raw"),
    }
    for message, asked in refused.items():
        with pytest.raises(ConfigError, match=message):
            run_scan(asked, tmp_path / "run", local, Silent(), resume=False)
        assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_its_models(run, made, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    again = run_scan(request(made), tmp_path / "run", local, Silent(), resume=True)
    assert again.exit_code == 0
    other = model(tmp_path / "m" / "classes", abstention=RULE.model_copy(update={"n": 2}))
    shutil.copytree(made["classes"], tmp_path / "kept")
    shutil.copyfile(other / "card.json", made["classes"] / "card.json")
    try:
        with pytest.raises(ConfigError, match="begun with another model"):
            run_scan(request(made), tmp_path / "run", local, Silent(), resume=True)
    finally:
        shutil.copyfile(tmp_path / "kept" / "card.json", made["classes"] / "card.json")


def test_the_command_takes_the_models_and_the_catalogue_carries_their_columns(made, tmp_path):
    options = ["--model", str(made["finder"]), "--substructure", str(made["classes"]), "--substructure-above", "0"]
    asked = [str(made["tiles"]), *options, "--runner", "local", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(command, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = pq.read_table(tmp_path / "run" / "catalog" / "candidates.parquet")
    assert "" not in rows["substructure_class"].to_pylist()
    assert rows["vortex_mass_msun"].null_count == rows.num_rows
    with pytest.raises(ConfigError, match="about --substructure"):
        CliRunner().invoke(command, [str(made["tiles"]), "--substructure-above", "0.1"], catch_exceptions=False)
