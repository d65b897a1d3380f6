import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_runs import scan
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from sky import write_tile

from lenspipe.catalog.grades import agreement, mean_grades, read_grades, weighted_kappa
from lenspipe.catalog.looks import rounds_of
from lenspipe.catalog.run_rows import Run, open_run_folder
from lenspipe.cli import group
from lenspipe.errors import ConfigError


def write(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["run_id", "candidate_id", "name", "ra", "dec", "grader", "grade", "time"])
        writer.writerows([[run, c, "", "", "", who, grade, when] for run, c, who, grade, when in rows])
    return str(path)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_weighted_kappa_is_scikit_learns(pairs):
    one, two = np.array(pairs).T
    kappa = weighted_kappa(one, two)
    want = cohen_kappa_score(one, two, labels=[0, 1, 2, 3], weights="quadratic") if kappa is not None else None
    assert kappa is None or kappa == pytest.approx(want, abs=1e-12)
    assert (kappa is None) == (len(set(one) | set(two)) == 1)


def test_the_newer_grade_counts_and_means_become_labels(tmp_path):
    file = write(
        tmp_path / "g.csv",
        [
            ("r", "c1", "ada", "N", "2026-01-01"),
            ("r", "c1", "ada", "A", "2026-01-02"),
            ("r", "c1", "bob", "B", "2026-01-01"),
            ("r", "c2", "ada", "N", "2026-01-01"),
            ("r", "c3", "ada", "C", "2026-01-01"),
        ],
    )
    grades = read_grades([file])
    means = {r["candidate_id"]: r for r in mean_grades(grades, lens_from=2.0, nonlens_to=0.5).to_pylist()}
    assert means["c1"]["mean_grade"] == 2.5
    assert means["c1"]["grades"] == "AB"
    assert [means[c]["label"] for c in ("c1", "c2", "c3")] == [1, 0, None]
    assert agreement(grades) == [{"first": "ada", "second": "bob", "n": 1, "equal": 0.0, "kappa": 0.0}]


def test_files_that_are_no_grades_are_refused_with_file_and_line(tmp_path):
    bad = write(tmp_path / "bad.csv", [("r", "c", "ada", "A", ""), ("r", "d", "ada", "X", "")])
    with pytest.raises(ConfigError, match=r"not a grade.*line=3.*'X'"):
        read_grades([bad])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="no column run_id"):
        read_grades([str(tmp_path / "other.csv")])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_grades([str(tmp_path / "absent.csv")])
    with pytest.raises(ConfigError, match="labels need"):
        mean_grades(read_grades([write(tmp_path / "ok.csv", [])]), lens_from=0.5, nonlens_to=2.0)


def test_grades_of_a_run_come_back_as_labels_with_positions(tmp_path):
    write_tile(tmp_path / "tiles", "a")
    scan(tmp_path / "tiles", tmp_path / "run")
    run = open_run_folder(tmp_path / "run")
    ids = pq.read_table(tmp_path / "run" / "candidates.parquet")["candidate_id"].to_pylist()
    rows = [(run.run_id, c, who, "AN"[i % 2], "") for i, c in enumerate(ids[:6]) for who in ("ada", "bob")]
    file = write(tmp_path / "g.csv", [*rows, ("another", "x", "ada", "A", "")])
    call = ["grades", file, "--run", str(tmp_path / "run")]
    result = CliRunner().invoke(group, call, catch_exceptions=False, standalone_mode=False)
    assert "1.000" in result.output
    table = pq.read_table(tmp_path / "run" / "grades.parquet")
    assert sorted(table["candidate_id"].to_pylist()) == sorted(ids[:6])
    assert table["label"].to_pylist() == [1, 1, 1, 0, 0, 0]
    assert table["ra"].null_count == 0
    said = CliRunner().invoke(group, [*call, "--next"], catch_exceptions=False).output
    assert "round 1: 6 looks, 3 new lenses: 2.0 looks per new lens [1.1, 8.5]" in said
    strange = write(tmp_path / "s.csv", [(run.run_id, "nobody", "ada", "A", "")])
    with pytest.raises(ConfigError, match="does not have"):
        CliRunner().invoke(group, ["grades", strange, *call[2:]], catch_exceptions=False, standalone_mode=False)


def test_a_file_that_a_spreadsheet_saved_begins_with_a_mark_and_is_read(tmp_path):
    file = write(tmp_path / "g.csv", [("r", "c", "ada", "A", "")])
    (tmp_path / "g.csv").write_text((tmp_path / "g.csv").read_text(), encoding="utf-8-sig")
    assert read_grades([file])["grade"].to_pylist() == ["A"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory, tiny_model):
    """A scored run, its 12 best candidates graded (no lens, a lens, undecided), and the stamps of their labels."""
    folder = tmp_path_factory.mktemp("graded")
    write_tile(folder / "tiles", "a", shape=(300, 300), n_source=20)
    scan(folder / "tiles", folder / "run", model=tiny_model, shard={"core_px": 128, "halo_px": 64})
    run = open_run_folder(folder / "run")
    rows = pq.read_table(folder / "run" / "candidates.parquet").to_pylist()[:12]
    given = {row["candidate_id"]: "AACABNANNNNN"[i] for i, row in enumerate(rows)}
    file = write(folder / "g.csv", [(run.run_id, c, "ada", grade, "") for c, grade in given.items()])
    call = ["grades", file, "--run", str(folder / "run"), "--stamps", str(folder / "stamps")]
    result = CliRunner().invoke(group, call, catch_exceptions=False, standalone_mode=False)
    assert result.return_value == 0, result.output
    return folder, {row["candidate_id"]: (given[row["candidate_id"]], row["score"]) for row in rows}


def test_stamps_of_graded_candidates_score_as_the_candidates_did(graded, tiny_model):
    from lenspipe.infer.predict import Predictor
    from lenspipe.infer.stamps import stamp_input
    from lenspipe.nn.card import read_card
    from lenspipe.stamps.format import StampSet

    folder, given = graded
    stamps = StampSet.open(folder / "stamps")
    want = {c: ("nonlens" if grade == "N" else "lens") for c, (grade, _) in given.items() if grade != "C"}
    ids = stamps.column("candidate_id")
    assert dict(zip(ids, stamps.column("label"), strict=True)) == want
    spec, card = stamps.images["image"], read_card(tiny_model)
    prepared = stamp_input(
        stamps.read_images(), bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=card
    )
    score = Predictor(tiny_model, device="cpu").predict(prepared, None).score
    np.testing.assert_allclose(score, [given[c][1] for c in ids], rtol=1e-6)


def test_grades_calibrate_the_model_that_found_the_candidates(graded, tiny_model, tmp_path):
    folder, _ = graded
    assert (
        CliRunner().invoke(group, ["stamps", "validate", str(folder / "stamps")], standalone_mode=False).return_value
        == 0
    )
    call = [
        "calibrate",
        str(tiny_model),
        "--data",
        str(folder / "stamps"),
        "--split",
        "all",
        "--out",
        str(tmp_path / "m"),
    ]
    CliRunner().invoke(group, call, catch_exceptions=False, standalone_mode=False)
    calibration = json.loads((tmp_path / "m" / "card.json").read_text())["calibration"]
    assert (calibration["n_lens"], calibration["n_other"]) == (5, 6)


def test_stamps_without_a_label_or_over_other_data_are_refused(graded, tmp_path):
    folder, given = graded
    run = open_run_folder(folder / "run")
    undecided = write(tmp_path / "c.csv", [(run.run_id, next(iter(given)), "ada", "C", "")])
    call = ["grades", undecided, "--run", str(folder / "run"), "--out", str(tmp_path / "t.parquet"), "--stamps"]
    with pytest.raises(ConfigError, match="no graded candidate has a label"):
        CliRunner().invoke(group, [*call, str(tmp_path / "s")], catch_exceptions=False, standalone_mode=False)
    call[1] = str(folder / "g.csv")
    with pytest.raises(ConfigError, match="exists"):
        CliRunner().invoke(group, [*call, str(folder / "stamps")], catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize("grader", ["", "  "])
def test_a_grade_without_a_grader_is_refused_and_its_line_named(tmp_path, grader):
    (tmp_path / "g.csv").write_text(f"run_id,candidate_id,grader,grade\nr,c,ann,A\nr,d,{grader},A\n")
    with pytest.raises(ConfigError, match=r"has no grader.*line=3"):
        read_grades([str(tmp_path / "g.csv")])


def run_of(run_id):
    """A run of one shard, from 9 to 11 degrees and -1 to 1."""
    corners = {"corner_ra_deg": [[9.0, 11.0, 11.0, 9.0]], "corner_dec_deg": [[-1.0, -1.0, 1.0, 1.0]]}
    shards = pa.table({"status": ["ok"], **corners})
    return Run(Path(), run_id, run_id, {}, (), shards, shards)


def test_a_round_counts_what_no_earlier_file_graded(tmp_path):
    first = write(tmp_path / "1.csv", [("r", f"c{k}", "ada", "A" if k == 0 else "N", "") for k in range(5)])
    # an export of the page holds the earlier grades too
    second = write(
        tmp_path / "2.csv",
        [("r", f"c{k}", "ada", "A" if k in (0, 7, 8) else "N", "") for k in range(11)]
        + [("r", "c7", "bob", "B", ""), ("r", "c8", "bob", "N", ""), ("other", "x", "ada", "A", "")],
    )
    one, two, three = rounds_of([first, second, first], run_of("r"), lens_from=2.0)
    assert (one.looks, one.lenses, one.looks_per_lens) == (5, 1, 5.0)
    assert (two.looks, two.lenses, two.looks_per_lens) == (6, 1, 6.0)  # c8 has a mean of 1.5
    assert (three.looks, three.looks_per_lens) == (0, None)
    low, high = two.interval95
    assert low == pytest.approx(1 / 0.6412, abs=1e-3) and high == pytest.approx(1 / 0.00421, rel=1e-2)


def test_a_round_in_a_later_run_counts_by_position_and_what_was_graded_before_does_not(tmp_path):
    def file(name, run_id, grades, *, at=0.0):
        rows = [("run_id", "candidate_id", "ra", "dec", "grader", "grade")]
        rows += [(run_id, f"{run_id}-{k}", 10 + 0.01 * k + at / 3600, 0.5, "ada", g) for k, g in grades.items()]
        with (tmp_path / name).open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
        return str(tmp_path / name)

    first = file("1.csv", "a", {0: "A", 1: "N", 2: "N"})
    second = file("2.csv", "b", {1: "N", 2: "N", 3: "A", 4: "N", 500: "A"}, at=0.4)  # 500 lies in no shard
    for run_id in "ab":  # whichever run of the sky is named
        one, two = rounds_of([first, second], run_of(run_id), lens_from=2.0)
        assert (one.looks, one.lenses) == (3, 1)
        assert two.lenses - (run_id == "b") == 1 and two.looks - (run_id == "b") == 2
