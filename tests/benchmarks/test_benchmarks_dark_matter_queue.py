"""The queue of the comparison is killed in the middle of its second cell, goes on, and records what it would have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lenspipe.learn.fit_state import STATE_FILE, read_state

ROOT = Path(__file__).resolve().parents[2]
QUEUE = """
space = "SPACE"
[[data]]
recipe = "model-f"
count = 60
[data.changes]
"image.0.pixel_scale_arcsec" = 0.2
"image.0.size_px" = 24
"image.0.supersampling" = 1
[[stage]]
fractions = [1.0]
[[stage]]
fractions = [0.5]
steps = 600
"""
SPACE = """
task = "classify"
base.sampling = { batch_size = 8, steps_per_epoch = 12 }
base.optim = { epochs = 6, monitor = "auc", patience = 5 }
shared."sampling.fraction" = [1.0, 0.5]
[[model]]
family = "small-cnn"
settings = { width = 4 }
"""
CALL = """
import sys
from pathlib import Path
from benchmarks.studies.dark_matter import cells, queue
cells.HERE = cells.ROOT = Path(sys.argv.pop(1))
queue.main()
"""
TIMES = ("cpu_s", "training_s", "fits_cpu_s")


def started(files: Path, work: Path, *more: str) -> subprocess.Popen[bytes]:
    told = [sys.executable, "-c", CALL, files, "--work", work, "--records", work / "records", *more]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(list(map(str, told)), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ended(process: subprocess.Popen[bytes]) -> str:
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said.decode()[-3000:]
    return said.decode()


def records(work: Path) -> dict[str, dict]:
    found = {path.stem: json.loads(path.read_text())["result"] for path in (work / "records").glob("*.json")}
    return {name: {k: v for k, v in one.items() if k not in TIMES} for name, one in found.items()}


def epochs_of(cell: Path) -> int:
    """Whole epochs of a cell's state."""
    state = cell / STATE_FILE
    return read_state(state).epoch if state.exists() else 0


@pytest.mark.long
def test_a_queue_that_was_killed_in_its_second_cell_records_what_it_would_have(tmp_path):
    (tmp_path / "queue.toml").write_text(QUEUE.replace("SPACE", "space.toml"))
    (tmp_path / "space.toml").write_text(SPACE)
    ended(started(tmp_path, tmp_path / "whole"))
    whole = records(tmp_path / "whole")
    assert len(whole) == 2 and all("error" not in one and one["epochs"] > 2 for one in whole.values()), whole

    work = tmp_path / "killed"
    process = started(tmp_path, work)
    second = "dark_matter_fitted_model-f_small-cnn-50-600_0"
    cell = work / "cells" / "model-f" / "fitted-small-cnn-50-600-0"
    assert set(whole) == {second, "dark_matter_fitted_model-f_small-cnn-100-curve_0"}
    while not epochs_of(cell) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    first = next(p for p in (work / "records").glob("*.json"))
    assert first.stem != second and not (work / "records" / f"{second}.json").exists()
    begun, there = first.stat().st_mtime_ns, epochs_of(cell)
    assert 0 < there < whole[second]["epochs"]

    said = ended(started(tmp_path, work))
    assert first.stem not in said and first.stat().st_mtime_ns == begun
    assert records(work) == whole
    assert ended(started(tmp_path, work)) == ""
    assert "2 cells, 2 with a record" in ended(started(tmp_path, work, "--list"))
