"""`lenspipe evaluate` on models whose scores are known: what the report says is what plain numpy says."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from evaluate_models_made import make_data, make_model
from pictures import drawn
from sklearn import metrics as sk

from lenspipe.cli.evaluate import command
from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.evaluate.finders import Scored, Single
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judges.find import FindJudge
from lenspipe.evaluate.judging import judge_of, open_members, stream
from lenspipe.nn.card import read_card, write_card
from lenspipe.nn.outputs import Calibration
from lenspipe.stamps.format import StampSet, image_column, write_part

Data = tuple[Path, dict[str, Any]]
TRAINING = {
    "epochs": 7,
    "seed": 3,
    "settings": {
        "optim": {"learning_rate": 0.004, "monitor": None},
        "augment": None,
        "input": {"bands": ["g", "r"], "mix": [[1.0, 0.5]]},
    },
    "augment": {"noise": [0.2, 2.0], "dihedral": False},
    "history": [{"epoch": 1}],
}


def run(*args: str) -> str:
    result = CliRunner().invoke(command, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "sees": make_model(folder / "sees", [[0, 4, 0, 0]], -2.0, training=TRAINING),
        "looks-left": make_model(folder / "looks-left", [[0, 0.5, 0, 3]], -2.0),
        "three": make_model(
            folder / "three", np.eye(3, 4, k=1).tolist(), task="classify", classes=("none", "subhalo", "vortex")
        ),
        "level": make_model(
            folder / "level",
            [[0, 1, 0, 0], [0, 0, 0, 0]],
            [0.0, -9.0],
            task="regress",
            targets=("level",),
            target_means=(0.0,),
            target_spreads=(1.0,),
            uncertainty="gaussian",
        ),
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, data: Data, models: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("report") / "out"
    with drawn():
        run(
            *(str(models[m]) for m in ("sees", "looks-left")),
            "--data",
            str(data[0]),
            "--out",
            str(out),
            "--committee",
            "mean",
            "--committee",
            "product",
            "--views",
            "mean",
            "--audit",
            "--audit-stamps",
            "25",
        )
    return out


def _expected(data: Data) -> tuple[np.ndarray, np.ndarray]:
    made = data[1]
    rows = made["split"] == "test"
    r = made["stamps"][rows][:, 1].astype(np.float64).mean(axis=(1, 2))
    return expit(4 * r - 2), made["truth"][rows] == 1


def test_metrics_are_scikit_learns_on_the_rows_of_the_split(report: Path, data: Data) -> None:
    score, truth = _expected(data)
    record = json.loads((report / "metrics.json").read_text())
    assert {"auroc", "tpr0", "tpr10", "tpr_at_fpr"} <= set(record)
    assert record["n_lens"] == truth.sum() and record["n_other"] == (~truth).sum()
    assert record["auroc"] == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-6)
    best = np.sort(score[~truth])[::-1]
    assert record["tpr0"] == pytest.approx((score[truth] > best[0]).mean(), abs=1e-9)
    assert record["tpr10"] == pytest.approx((score[truth] > best[9]).mean(), abs=1e-9)
    allowed = int(0.1 * (~truth).sum())
    assert record["tpr_at_fpr"]["1e-1"]["value"] == pytest.approx((score[truth] > best[allowed]).mean(), abs=1e-9)
    assert record["tpr_at_fpr"]["1e-4"]["value"] is None
    assert "not measurable with" in record["tpr_at_fpr"]["1e-4"]["why"]
    kinds = record["models"][0]["metrics"]["by_kind"]
    assert kinds["ring"]["n"] + kinds["spiral"]["n"] == (~truth).sum() and kinds["lens"]["class"] == "lens"


def test_scores_of_every_model_and_stamp_are_in_the_table(report: Path, data: Data) -> None:
    score, truth = _expected(data)
    table = pq.read_table(report / "scores.parquet").to_pandas()
    mine = table[table["model"] == "sees"].sort_values("stamp_id")
    np.testing.assert_allclose(mine["score"], score, rtol=1e-5)
    np.testing.assert_array_equal(mine["is_lens"], truth)
    assert set(table["model"]) == {
        "sees",
        "looks-left",
        "sees, 8 views, mean",
        "looks-left, 8 views, mean",
        "committee, mean",
        "committee, product",
    }
    wide = table.pivot(index="stamp_id", columns="model", values="score")
    np.testing.assert_allclose(wide["committee, mean"], (wide["sees"] + wide["looks-left"]) / 2)
    np.testing.assert_allclose(wide["committee, product"], np.sqrt(wide["sees"] * wide["looks-left"]))


def test_the_table_of_models_has_the_confusion_and_the_settings(report: Path, data: Data) -> None:
    score, truth = _expected(data)
    rows = list(csv.DictReader((report / "models.csv").open()))
    assert len(rows) == 6
    tn, fp, fn, tp = sk.confusion_matrix(truth, score >= 0.5).ravel()
    assert [int(rows[0][k]) for k in ("TN", "FP", "FN", "TP")] == [tn, fp, fn, tp]
    assert rows[0]["family"] == "test-brightness" and rows[0]["training.epochs"] == "7"
    assert int(rows[0]["n_parameter"]) == 5
    trained = {key: value for key, value in rows[0].items() if key.startswith("training.")}
    assert trained == {
        "training.epochs": "7",
        "training.seed": "3",
        "training.optim.learning_rate": "0.004",
        "training.input.bands": "g r",
        "training.augment.noise": "0.2 2.0",
        "training.augment.dihedral": "False",
    }
    assert {rows[1][key] for key in trained} == {""}


def _with_few_levels(folder: Path, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Stamps of two levels in g and of nine in r; levels of the rows of the split ``(n, 2)`` and their truth."""
    made = data[1]
    levels = np.stack([made["level"] > 1, np.round(2 * made["level"]).clip(-2, 6) / 2], axis=1)
    stamps = np.broadcast_to(levels[:, :, None, None], made["stamps"].shape).astype(np.float32)
    known = StampSet.open(data[0])
    table = pa.concat_tables([pq.read_table(part) for part in known.parts])
    place, kind = table.schema.get_field_index("image"), table.schema.field("image")
    write_part(table.set_column(place, kind, image_column(stamps, known.images["image"])), folder, "part-000")
    test = made["split"] == "test"
    return levels[test], made["truth"][test] == 1


def test_sources_of_one_score_pass_together(data: Data, models: dict[str, Path], tmp_path: Path) -> None:
    """Scikit-learn's curve has a point a distinct score: the best that so many false positives allow is one of them."""
    levels, truth = _with_few_levels(tmp_path / "data", data)
    coarse = make_model(tmp_path / "coarse", [[4, 0, 0, 0]])
    run(str(models["sees"]), str(coarse), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"))
    fine, two = (m["metrics"] for m in json.loads((tmp_path / "out" / "metrics.json").read_text())["models"])
    n_other = (~truth).sum()
    for found, level in ((fine, levels[:, 1]), (two, levels[:, 0])):
        assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, level), abs=1e-9)
        fpr, tpr, _ = sk.roc_curve(truth, level, drop_intermediate=False)
        false = np.rint(fpr * n_other)
        assert found["tpr0"] == pytest.approx(tpr[false == 0].max(), abs=1e-9)
        assert found["tpr10"] == pytest.approx(tpr[false < 10].max(), abs=1e-9)
        for name, rate in (("1e-1", 0.1), ("1e-2", 0.01)):
            want = tpr[false <= rate * n_other].max()
            assert found["tpr_at_fpr"][name]["value"] == pytest.approx(want, abs=1e-9)
    # each rate is another: two levels have ten others in the upper one, and nothing passes
    assert two["tpr0"] == two["tpr10"] == 0 < fine["tpr0"] < fine["tpr10"] < fine["tpr_at_fpr"]["1e-1"]["value"]


def test_the_audit_finds_the_model_that_looks_left_and_clears_the_one_that_does_not(report: Path) -> None:
    sees, left = (m["audit"] for m in json.loads((report / "metrics.json").read_text())["models"][:2])
    for change in ("turns by 90 degrees", "mirrors"):
        assert sees[change]["largest"] < 1e-6 < left[change]["largest"]
    assert set(sees) == {
        "turns by 90 degrees",
        "mirrors",
        *(f"turns by 360/{n}, resampled" for n in (4, 8, 12, 16)),
        "turns by any angle",
        "shifts by 0.25 px",
        "shifts by 0.5 px",
    }


def test_the_page_needs_no_other_file_and_no_network(report: Path) -> None:
    text = (report / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "<script" not in text and "not measurable with" in text and "looks-left" in text
    assert text.count("data:image/png;base64,") == len(list((report / "plots").iterdir())) >= 5
    assert min(path.stat().st_size for path in (report / "plots").iterdir()) > 3000


def test_classes_and_values_are_judged_too(tmp_path: Path, models: dict[str, Path]) -> None:
    made = make_data(tmp_path / "data", 600, labels=("none", "subhalo", "vortex"))
    test = made["split"] == "test"
    with drawn():
        run(str(models["three"]), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "three"))
    found = json.loads((tmp_path / "three" / "metrics.json").read_text())
    table = pq.read_table(tmp_path / "three" / "scores.parquet").to_pandas().sort_values("stamp_id")
    p = table[[f"probability_{c}" for c in ("none", "subhalo", "vortex")]].to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1)
    onehot = np.eye(3)[made["truth"][test]]
    assert found["auroc_micro"] == pytest.approx(sk.roc_auc_score(onehot, p, average="micro"), abs=1e-9)
    assert found["auroc_macro"] == pytest.approx(sk.roc_auc_score(onehot, p, average="macro"), abs=1e-9)

    with drawn():
        run(str(models["level"]), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "level"))
    found = json.loads((tmp_path / "level" / "metrics.json").read_text())["targets"]["level"]
    known = test & (np.arange(600) % 7 != 0)
    error = made["stamps"][known][:, 1].mean(axis=(1, 2)) - made["level"][known]
    assert found["n"] == known.sum()
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-3)
    assert found["coverage"]["1sigma"]["k"] == (np.abs(error) <= np.exp(-4.5)).sum()


def test_a_calibrated_committee_wants_calibrations(data: Data, models: dict[str, Path], tmp_path: Path) -> None:
    both = [str(models["sees"]), str(models["looks-left"]), "--data", str(data[0]), "--committee", "calibrated"]
    with pytest.raises(ConfigError, match="no calibration on the card"):
        run(*both, "--out", str(tmp_path / "bare"))
    copies = []
    for k, name in enumerate(("sees", "looks-left")):
        copies.append(make_model(tmp_path / name, [[0, 4 - k, 0, 0]], -2.0))
        fitted = Calibration(method="platt", slope=0.5, prior=0.5, n_lens=9, n_other=9, data="made")
        write_card(copies[-1], read_card(copies[-1]).with_outputs(calibration=fitted))
    run(*map(str, copies), *both[2:], "--out", str(tmp_path / "both"))
    wide = (
        pq.read_table(tmp_path / "both" / "scores.parquet")
        .to_pandas()
        .pivot(index="stamp_id", columns="model", values=["score", "probability"])
    )
    stated = wide["probability"][["sees", "looks-left"]].astype(float)
    np.testing.assert_allclose(wide["score"]["committee, calibrated"].astype(float), stated.mean(axis=1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--split", "nowhere"], DataError, "no labelled stamps in this split.*splits='test,train,validation'"),
        (["--committee", "mean"], ConfigError, "two models or more"),
    ],
)
def test_bad_requests_are_refused(
    options: list[str], error: type[Exception], message: str, data: Data, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run(str(models["sees"]), "--data", str(data[0]), "--out", str(tmp_path / "out"), *options)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_stamps_that_do_not_fit_the_card_are_refused(data: Data, tmp_path: Path) -> None:
    band = make_model(tmp_path / "band", [[1, 1, 0, 0]], bands=("g", "z"))
    scale = make_model(
        tmp_path / "scale", [[1, 1, 0, 0]], pixel_scale_arcsec=0.05, min_scale_arcsec=0.04, max_scale_arcsec=0.06
    )
    wide = make_model(tmp_path / "wide", [[1, 1, 0, 0]], stamp_px=41)
    for model, error, message in (
        (band, ModelError, "z not among g r"),
        (scale, ModelError, "the data have 0.25"),
        (wide, DataError, "too small for wide.*got_arcsec=5.0, want_arcsec=10.25"),
    ):
        with pytest.raises(error, match=message):
            run(str(model), "--data", str(data[0]), "--out", str(tmp_path / "out"))


def test_one_class_mixed_tasks_and_a_full_folder_are_refused(
    data: Data, models: dict[str, Path], tmp_path: Path
) -> None:
    make_data(tmp_path / "one", 50, labels=("nonlens",))
    with pytest.raises(DataError, match="one class only"):
        run(str(models["sees"]), "--data", str(tmp_path / "one"), "--out", str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="one task"):
        run(str(models["sees"]), str(models["level"]), "--data", str(data[0]), "--out", str(tmp_path / "mixed"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something"):
        run(str(models["sees"]), "--data", str(data[0]), "--out", str(tmp_path / "full"), "--overwrite")
    with pytest.raises(DataError, match="none of the model's classes"):
        run(str(models["three"]), "--data", str(data[0]), "--out", str(tmp_path / "three"))


def test_scratch_of_a_killed_report_goes_with_the_next(data: Data, models: dict[str, Path], tmp_path: Path) -> None:
    left = tmp_path / "out" / "plots" / ".scores.png.5ed8bcf7.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a picture")
    run(str(models["sees"]), "--data", str(data[0]), "--out", str(tmp_path / "out"), "--overwrite")
    assert not left.exists() and (left.parent / "scores.png").exists()


class Halved:
    """Another kind of finder: half the score of a model, with a calibration of its own."""

    name = "halved"
    calibration = Calibration(method="temperature", slope=1.0, prior=0.5, n_lens=9, n_other=9, data="made")

    def __init__(self, single: Single) -> None:
        self.single = single

    def score(self, batch: Scored) -> np.ndarray:
        return batch.of(self.single) / 2

    def facts(self, n: int) -> dict[str, Any]:
        return {"n_seen": n}


def test_whatever_has_a_score_a_calibration_and_a_name_is_judged_as_a_model_is(
    data: Data, models: dict[str, Path]
) -> None:
    stamps, rows = StampSet.open(data[0]), []
    members = open_members([models["sees"]], stamps)
    judge = judge_of(members, stamps, JudgeSettings())
    assert isinstance(judge, FindJudge)
    halved = Halved(Single(members[0]))
    judge.add(halved)
    stream(judge, on_rows=rows.append, progress=lambda done, total: None)
    sees, half = judge.metrics().values()
    assert half["auroc"] == sees["auroc"] and half["n_seen"] == sees["n_lens"] + sees["n_other"]
    assert half["calibrated"]["method"] == "temperature" and sees["calibrated"] is None
    wide = pa.concat_tables(rows).to_pandas().pivot(index="stamp_id", columns="model", values="score")
    np.testing.assert_array_equal(wide["halved"], wide["sees"] / 2)
    with pytest.raises(ConfigError, match="one name"):
        judge.add(halved)


def test_a_model_scores_a_stamp_once_however_many_finders_ask_for_it(
    data: Data, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps, seen = StampSet.open(data[0]), []
    members = open_members([models["sees"], models["looks-left"]], stamps)
    for member in members:
        own = member.predictor.outputs
        monkeypatch.setattr(member.predictor, "outputs", lambda s, f, own=own: (seen.append(len(s)), own(s, f))[1])
    judge = judge_of(members, stamps, JudgeSettings(committees=("mean", "product"), views="mean"))
    stream(judge, on_rows=lambda rows: None, progress=lambda done, total: None)
    assert sum(seen) == 2 * 8 * (data[1]["split"] == "test").sum()


def test_what_a_killed_evaluation_left_may_be_written_over_and_a_users_file_may_not(tmp_path):
    from lenspipe.evaluate.report import _is_report

    (tmp_path / "plots").mkdir()
    for name in ("plots/roc.png", "models.csv", ".scores.parquet.0123abcd.tmp", ".lock"):
        (tmp_path / name).write_text("x")
    assert _is_report(tmp_path)
    (tmp_path / "thesis.tex").write_text("x")
    assert not _is_report(tmp_path)
