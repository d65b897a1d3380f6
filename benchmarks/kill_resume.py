"""Is a scan exactly-once? Kill its driver at 20 seeded moments, from planning to finalizing, and resume it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np

from benchmarks import record
from benchmarks.timing import Clock
from tests.killing import MOMENTS, KillPoint, command, kill_at, leftovers, resume, tables
from tests.sky import write_tile

SEED = 2026
PER_MOMENT = {"ray": 2, "local": 2}


@click.command()
@record.keep_option
def main(keep: bool) -> None:
    """Kill and resume scans."""
    rng = np.random.default_rng(SEED)
    work = Path(tempfile.mkdtemp(prefix="kill-resume-"))
    tiles = work / "tiles"
    model = Path(shutil.copytree(_model(), work / "model"))
    for i, shape in enumerate([(512, 512), (384, 384), (256, 256)]):
        write_tile(tiles, f"t{i}", shape=shape, n_source=shape[0] // 8, seed=i)
    broken = tiles / "t2_r.fits"
    broken.write_bytes(broken.read_bytes()[:100_000])
    subprocess.run(command(tiles, work / "whole", model, "local"), check=False, capture_output=True)
    whole = tables(work / "whole")
    points = [
        KillPoint(moment, k_of(moment, rng), float(rng.uniform(0, 0.4)) if i else 0.0, runner)
        for runner, n in PER_MOMENT.items()
        for moment in MOMENTS
        for i in range(n)
    ]
    rows = []
    for i, point in enumerate(points):
        out = work / f"run{i}"
        clock = Clock()
        unfinished = kill_at(point, tiles, out, model)
        code = resume(tiles, out, model, point.runner)
        equal = all(got.equals(want) for got, want in zip(tables(out), whole, strict=True))
        rows.append(
            {
                "runner": point.runner,
                "moment": point.moment,
                "parts_before": point.k,
                "delay_s": round(point.delay_s, 3),
                "unfinished": unfinished,
                "rows_equal": equal,
                "leftovers": leftovers(out),
                "exit_code": code,
                "seconds": round(clock.wall_s, 1),
            }
        )
        print(rows[-1], flush=True)
        shutil.rmtree(out)
    shutil.rmtree(work)
    result = {
        "kill_points": len(rows),
        "hit_an_unfinished_run": sum(r["unfinished"] for r in rows),
        "equal_row_sets": sum(r["rows_equal"] for r in rows),
        "shards": whole[1].num_rows,
        "candidates": whole[0].num_rows,
        "failure_rows": whole[2].num_rows,
        "points": rows,
    }
    aims = [
        record.at_least("kill points", len(rows), 20),
        record.at_least("runs whose rows are equal", result["equal_row_sets"], len(rows)),
        record.at_least("kills that hit an unfinished run", result["hit_an_unfinished_run"], 15),
    ]
    record.write("kill_resume", result, aims, keep=keep)


def k_of(moment: str, rng: np.random.Generator) -> int:
    """Parts that must be there before the kill; small shards are all read before the first part is committed."""
    return int(rng.integers(0, 3)) if moment in ("score", "commit") else 0


def _model() -> Path:
    from lenspipe.nn.card import find_model

    return find_model("ground-gri")


if __name__ == "__main__":
    main()
