"""
How much faster is `lenspipe scan` with Ray on two cores than the plain loop, start-up included, on a two-minute job?

    python -m benchmarks.scan_ray_speed

Both are the command as it is given, from its start to its end, taking turns. From the times of the parts that were
committed follows what is left without the start: shards per second from when each worker can have committed one to the
last. Ray's own start is what `run.json` says of it: from joining to the first worker that has loaded what it needs.
A measurement of two cores needs both: the load of the machine as each command begins stands in the record.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.rundir import read_json

N_TILE, TILE_PX, CORE_PX, N_WORKER, TIMES = 4, 2048, 1024, 2, 10
RUNNERS = {"loop": ("--runner", "local"), "ray": ("--runner", "ray", "--workers", str(N_WORKER))}


def make_tiles(folder: Path) -> None:
    """Four g r i tiles of 2048 px, each a 1024 px simulated field set four times side by side."""
    from lenspipe.scan.sample import BANDS, _wcs
    from lenspipe.simulate.field import simulate_field

    folder.mkdir()
    half = TILE_PX // 2
    for t in range(N_TILE):
        field = simulate_field(seed=100 + t, shape_px=(half, half), n_galaxy=400, n_star=60, n_lens=4)
        header = _wcs().to_header()
        header["CRVAL2"] += 0.2 * t
        header["BUNIT"] = "nJy"
        for b, band in enumerate(BANDS):
            image = np.tile(field.image[b], (2, 2))
            hdu = fits.CompImageHDU(image, header, compression_type="RICE_1", quantize_level=16)
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / f"speed{t}_{band}.fits")


def repeat_tiles(few: Path, many: Path) -> None:
    """The same files under ``TIMES`` names each."""
    many.mkdir()
    for path in few.iterdir():
        for i in range(TIMES):
            os.link(path, many / f"again{i}-{path.name}")


def scan(tiles: Path, out: Path, *more: str) -> dict[str, Any]:
    """One command: its wall time, what ``run.json`` says, and shards per second without the start."""
    command = [sys.executable, "-m", "lenspipe", "scan", str(tiles), "--model", "ground-gri", "--no-catalog"]
    load, clock = os.getloadavg()[0], Clock()
    done = subprocess.run(
        [*command, "--shard-px", str(CORE_PX), "--out", str(out), *more], capture_output=True, text=True
    )
    whole_s = clock.wall_s
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    told = read_json(out / "run.json")
    parts = sorted(
        (path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in (out / "parts").glob("*.parquet")
    )
    first = 2 * (N_WORKER if "ray" in told else 1) - 1
    after = parts[first + 1 :]
    return {
        "whole_scan_s": round(whole_s, 2),
        "shards_a_second": round(sum(n for _, n in after) / (after[-1][0] - parts[first][0]), 3),
        "seconds": told["seconds"],
        "workers": told.get("ray", {}).get("workers"),
        "load_at_the_start": round(load, 2),
    }


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@record.keep_option
def main(rounds: int, keep: bool) -> None:
    """Scan the same shards both ways."""
    work = Path(tempfile.mkdtemp(prefix="scan-speed-"))
    make_tiles(work / "few")
    repeat_tiles(work / "few", work / "many")
    found: dict[str, list[dict[str, Any]]] = {"loop": [], "ray": []}
    for i in range(rounds):
        tables = {}
        for name, more in RUNNERS.items():
            found[name].append(scan(work / "many", work / f"{name}-{i}", *more))
            tables[name] = pq.read_table(work / f"{name}-{i}" / "candidates.parquet")
        assert tables["ray"].equals(tables["loop"]), "the rows differ"
    shutil.rmtree(work)

    def of(key: str) -> dict[str, list[float]]:
        return {name: [one[key] for one in ones] for name, ones in found.items()}

    rates, whole_s = of("shards_a_second"), of("whole_scan_s")
    bare = [ray / loop for loop, ray in zip(rates["loop"], rates["ray"], strict=True)]
    whole = [loop / ray for loop, ray in zip(whole_s["loop"], whole_s["ray"], strict=True)]
    start_s = [one["seconds"]["start"] + one["workers"]["first_worker_s"] for one in found["ray"]]
    result = {
        "shards": N_TILE * (TILE_PX // CORE_PX) ** 2 * TIMES,
        "candidates": tables["loop"].num_rows,
        "workers": N_WORKER,
        "whole_scan_s": whole_s,
        "speedup_of_the_whole_scan": round(statistics.median(whole), 2),
        "speedups_of_the_whole_scan": [round(r, 2) for r in whole],
        "shards_a_second": rates,
        "speedup_start_up_excluded": round(statistics.median(bare), 2),
        "speedups_start_up_excluded": [round(r, 2) for r in bare],
        "ray_start_s": [round(s, 2) for s in start_s],
        "scans": found,
        "rows_equal": True,
        "note": "one thread per process on both sides",
    }
    aims = [
        record.at_least("speed-up of the whole command", result["speedup_of_the_whole_scan"], 1.5),
        record.at_most("Ray's own start, s", statistics.median(start_s), 8.0),
        record.at_least("speed-up, start-up excluded", result["speedup_start_up_excluded"], 1.6),
    ]
    record.write("scan_ray_speed", result, aims, keep=keep)


if __name__ == "__main__":
    main()
