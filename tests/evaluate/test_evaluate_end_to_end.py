"""From simulated stamps to a report of the shipped finder, as a user does it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
from click.testing import CliRunner

from lenspipe.cli.calibrate import command as calibrate
from lenspipe.cli.evaluate import command as evaluate
from lenspipe.cli.simulate import command as simulate
from lenspipe.stamps.format import StampSet


def test_simulated_stamps_calibrate_and_judge_the_shipped_finder(tmp_path: Path) -> None:
    data = str(tmp_path / "stamps")
    steps = [
        (simulate, ["--recipe", "ground-gri", "--count", "36", "--seed", "3", "--runner", "local", "--out", data]),
        (calibrate, ["ground-gri", "--data", data, "--split", "all", "--out", str(tmp_path / "calibrated")]),
        (
            evaluate,
            [
                "ground-gri",
                str(tmp_path / "calibrated"),
                "--data",
                data,
                "--split",
                "all",
                "--out",
                str(tmp_path / "report"),
                "--audit",
                "--audit-stamps",
                "2",
            ],
        ),
    ]
    for command, options in steps:
        result = CliRunner().invoke(command, options, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "report" / "metrics.json").read_text())
    stamps = StampSet.open(data)
    assert record["n_lens"] == (stamps.column("label") == "lens").sum()
    assert record["n_lens"] + record["n_other"] == 36
    assert record["auroc"] > 0.5
    shipped, refitted = (model["metrics"] for model in record["models"])
    assert refitted["calibrated"]["method"] == "platt"
    assert refitted["calibrated"]["brier"] < shipped["calibrated"]["brier"]  # fitted on these very stamps
    assert refitted["calibrated"]["brier"] < shipped["reliability"]["brier"]
    assert "theta_e_arcsec" in shipped["recall_by"] and "early_type" in shipped["by_kind"]
    assert 0 < record["models"][0]["audit"]["turns by 90 degrees"]["mean"] < 1
    scores = pq.read_table(tmp_path / "report" / "scores.parquet")
    assert scores.num_rows == 72 and scores["probability"].null_count == 0
