"""Several finders scan as one: scores, columns, catalogue, explanation, calibration, and the judge's own score."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from sky import write_tile

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.cli import group
from lenspipe.nn.card import ModelCard, digest, read_card, write_card
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.outputs import Calibration
from lenspipe.nn.registry import build
from lenspipe.scan.after.explain import explain
from lenspipe.scan.after.graded import graded_stamps

SLOPES, INTERCEPTS, PRIORS = (0.7, 2.0), (-0.4, 0.3), (0.4, 0.2)


def call(*arguments: object) -> str:
    result = CliRunner().invoke(group, [str(a) for a in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def fitted(k: int) -> Calibration:
    return Calibration(
        method="platt", slope=SLOPES[k], intercept=INTERCEPTS[k], prior=PRIORS[k], n_lens=40, n_other=60, data="made"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Two calibrated finders of other bands and sides, a tile, runs of each alone and of both."""
    folder = tmp_path_factory.mktemp("committee")
    write_tile(folder / "tiles", "a", shape=(220, 220), n_source=18)
    shutil.copytree(tiny_model, folder / "wide")
    write_card(folder / "wide", read_card(folder / "wide").with_outputs(calibration=fitted(0)))
    torch.manual_seed(11)
    card = ModelCard(
        name="narrow",
        family="small-cnn",
        settings={"width": 4, "dropout": 0.0},
        bands=("i", "r"),
        pixel_scale_arcsec=0.2,
        scale_tolerance=0.1,
        min_scale_arcsec=0.1,
        max_scale_arcsec=0.4,
        stamp_px=25,
        stretch={"band_scales": (0.01, 0.01), "alpha": 0.1, "q": 1.0},
    ).with_outputs(calibration=fitted(1))
    save_model(folder / "narrow", build("small-cnn", 2, 25, width=4, dropout=0.0), card)
    scan(folder, "both", "wide", "narrow")
    return folder


def scan(made: Path, out: str, *models: str, options: tuple[str, ...] = ()) -> pa.Table:
    named = [word for model in models for word in ("--model", made / model)]
    call("scan", made / "tiles", *named, "--shard-px", 128, "--runner", "local", "--out", made / out, *options)
    return pq.read_table(made / out / "candidates.parquet").sort_by("candidate_id")


def calibrate(made: Path, stamps: Path) -> None:
    call("calibrate", made / "wide", made / "narrow", "--data", stamps, "--split", "all", "--out", made / "committee")


def rows(made: Path, out: str) -> pa.Table:
    return pq.read_table(made / out / "candidates.parquet").sort_by("candidate_id")


def log_odds(score: np.ndarray, k: int) -> np.ndarray:
    """Calibrated log odds at a prior of one half, by hand."""
    return SLOPES[k] * np.log(score / (1 - score)) + INTERCEPTS[k] - np.log(PRIORS[k] / (1 - PRIORS[k]))


def test_the_score_is_the_mean_of_the_members_calibrated_logits(made):
    both = rows(made, "both")
    each = [both[f"score_{name}"].to_numpy() for name in ("tiny", "narrow")]
    want = 1 / (1 + np.exp(-(log_odds(each[0], 0) + log_odds(each[1], 1)) / 2))
    assert both.num_rows > 10 and both["score"].null_count == 0
    np.testing.assert_allclose(both["score"].to_numpy(), want, rtol=1e-12)
    members = " ".join(digest(made / name) for name in ("wide", "narrow"))
    assert set(both["members"].to_pylist()) == {members}


@pytest.mark.parametrize(("folder", "name"), [("wide", "tiny"), ("narrow", "narrow")])
def test_a_member_scores_as_it_does_alone(made, folder, name):
    alone, both = scan(made, f"alone-{name}", folder), rows(made, "both")
    assert alone["candidate_id"].equals(both["candidate_id"])
    assert alone["score"].to_pylist() == both[f"score_{name}"].to_pylist()
    assert not {"members", f"score_{name}"} & set(alone.column_names)


def test_the_catalogue_knows_the_members_and_a_candidate_comes_back_bit_for_bit(made):
    run = open_run_folder(made / "both")
    catalog = pq.read_table(made / "both/catalog/candidates.parquet")
    assert {"score_tiny", "score_narrow", "members"} <= set(catalog.column_names)
    stored = {row["candidate_id"]: row for row in rows(made, "both").to_pylist()}
    for row in catalog.to_pylist():
        assert all(row[name] == stored[row["candidate_id"]][name] for name in ("score", "score_tiny", "members"))
    record = json.loads((made / "both/run.json").read_text())["model"]
    assert [member["name"] for member in record["members"]] == ["tiny", "narrow"]
    for candidate_id in list(stored)[::5]:
        again = explain(run, candidate_id)
        assert again.same and again.changed == () and again.again["score_narrow"] is not None


def test_a_member_that_was_trained_again_is_named_and_the_run_does_not_resume(made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    scan(folder, "again", "wide", "narrow")
    write_card(folder / "narrow", read_card(folder / "narrow").with_outputs(calibration=fitted(0)))
    found = explain(open_run_folder(folder / "again"), rows(folder, "again")["candidate_id"][0].as_py())
    assert not found.same and any("was" in line for line in found.changed)
    with pytest.raises(Exception, match="another model"):
        scan(folder, "again", "wide", "narrow", options=("--resume",))


@pytest.fixture(scope="module")
def stamps(made: Path) -> Path:
    """The candidates of the run as labelled stamps: the better half are lenses, but for the two in the middle."""
    run, table = open_run_folder(made / "both"), rows(made, "both")
    n = table.num_rows
    labels = table.select(["candidate_id", "tile", "shard_id", "ra", "dec", "x_px", "y_px", "score", "model"])
    score = table["score"].to_numpy()
    rank = np.argsort(np.argsort(score))
    is_lens = (rank >= n // 2) ^ np.isin(rank, (n // 2 - 1, n // 2))  # whichever half a stamp falls into, scores rise
    added = {"label": is_lens.astype(int), "mean_grade": np.zeros(n), "n_grader": np.ones(n, np.int32)}
    for name, values in added.items():
        labels = labels.append_column(name, pa.array(values))
    graded_stamps(run, labels, made / "stamps", seed=1)
    return made / "stamps"


def test_calibrate_writes_a_committee_that_scans_and_is_judged_with_the_same_scores(made, stamps):
    calibrate(made, stamps)
    card = json.loads((made / "committee/committee.json").read_text())
    assert [member["model"] for member in card["members"]] == ["../wide", "../narrow"]
    assert [member["digest"] for member in card["members"]] == [digest(made / "wide"), digest(made / "narrow")]
    scanned, both = scan(made, "by-folder", "committee", options=("--prior", "0.01")), rows(made, "both")
    assert scanned["score"].to_pylist() == both["score"].to_pylist()
    score, c = scanned["score"].to_numpy(), card["calibration"]
    odds = np.exp(c["slope"] * np.log(score / (1 - score)) + c["intercept"])
    odds *= (0.01 / 0.99) / (c["prior"] / (1 - c["prior"]))
    np.testing.assert_allclose(scanned["probability"].to_numpy(), odds / (1 + odds), rtol=1e-9)
    call("evaluate", made / "committee", "--data", stamps, "--split", "all", "--out", made / "report")
    judged = pq.read_table(made / "report/scores.parquet", filters=[("model", "=", "committee")])
    assert judged.num_rows == both.num_rows
    of_scan = {row["candidate_id"]: row["score"] for row in both.to_pylist()}
    names = [stamp_id.rsplit("/", 1)[-1] for stamp_id in judged["stamp_id"].to_pylist()]
    np.testing.assert_allclose(judged["score"].to_numpy(), [of_scan[name] for name in names], rtol=1e-5)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (("wide", "bare"), "has no calibration"),
        (("wide", "wide"), "a model twice"),
        (("wide", "none"), "no such model"),
    ],
)
def test_a_committee_that_cannot_score_is_refused_before_the_folder_is_made(made, models, message):
    if not (made / "bare").exists():
        shutil.copytree(made / "narrow", made / "bare")
        write_card(made / "bare", read_card(made / "bare").with_outputs(calibration=None))
    with pytest.raises(Exception, match=message):
        scan(made, "refused", *models)
    assert not (made / "refused").exists()


def test_a_committee_moves_with_its_members_and_refuses_another_member(made, stamps, tmp_path):
    if not (made / "committee").exists():
        call(
            "calibrate", made / "wide", made / "narrow", "--data", stamps, "--split", "all", "--out", made / "committee"
        )
    moved = tmp_path / "elsewhere"
    for name in ("wide", "narrow", "committee", "tiles"):
        shutil.copytree(made / name, moved / name)
    assert scan(moved, "run", "committee")["score"].to_pylist() == rows(made, "both")["score"].to_pylist()
    write_card(moved / "narrow", read_card(moved / "narrow").with_outputs(calibration=fitted(0)))
    with pytest.raises(Exception, match="a member is not the one of the committee's card"):
        scan(moved, "other", "committee")
