"""
How much faster is a scan by Ray with two workers than the plain loop, on the same 64 shards, start-up excluded?

Each side's clock starts when every one of its workers has committed its first shard: by then Ray, the imports and the
model are behind it. What is compared is the shards per second from there to the last commit. A shard is a call of its
own, so that what is half done when the clock starts is little: at most half a shard per worker, on average. Whole times
are recorded beside it.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import contextlib
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.runner import Silent
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.survey.layout import read_layout

N_TILE, TILE_PX, CORE_PX, N_WORKER, REPEATS, TIMES = 4, 2048, 1024, 2, 3, 4


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
    """The same files under four names each."""
    many.mkdir()
    for path in few.iterdir():
        for i in range(TIMES):
            os.link(path, many / f"again{i}-{path.name}")


@contextlib.contextmanager
def local(clock: Any) -> Any:
    from lenspipe.scan.local import scan_local

    yield timed(scan_local, clock)


@contextlib.contextmanager
def by_ray(clock: Any) -> Any:
    from lenspipe.distributed.scan import scan_ray

    yield timed(partial(scan_ray, n_worker=N_WORKER), clock)


class Commits:
    """Times of commits, and shards of each."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.commits: list[tuple[float, int]] = []

    def rate(self, n_worker: int) -> float:
        """Shards per second, from the commit with which each worker can have made one to the last."""
        begun = self.commits[2 * n_worker - 1][0]
        after = self.commits[2 * n_worker :]
        return sum(n for _, n in after) / (after[-1][0] - begun)


def timed(runner: Any, clock: Commits) -> Any:
    def run(*args: Any, on_part: Any, **kwargs: Any) -> None:
        def committed(counts: dict[str, int]) -> None:
            clock.commits.append((clock.clock.wall_s, counts["shards"]))
            on_part(counts)

        runner(*args, on_part=committed, **kwargs)

    return run


def scan(tiles: Path, out: Path, runner: Any) -> tuple[Commits, Any]:
    score = {"model": "ground-gri", "shards_per_call": 1}
    config = ScanConfig.model_validate({"shard": {"core_px": CORE_PX}, "score": score})
    clock = Commits()
    request = ScanRequest((str(tiles),), read_layout("generic"), config, None)
    run_scan(request, out, partial(runner, clock), Silent(), resume=False)
    return clock, pq.read_table(out / "candidates.parquet")


@click.command()
@record.keep_option
def main(keep: bool) -> None:
    """Scan the same shards both ways."""
    work = Path(tempfile.mkdtemp(prefix="scan-speed-"))
    make_tiles(work / "few")
    repeat_tiles(work / "few", work / "many")
    from lenspipe.distributed.session import ray_session

    rates: dict[str, list[float]] = {"loop": [], "ray": []}
    whole_s: dict[str, list[float]] = {"loop": [], "ray": []}
    equal = True
    with ray_session(n_worker=N_WORKER):
        for i in range(REPEATS):
            loop, want = scan(work / "many", work / f"loop-{i}", local)
            ray, got = scan(work / "many", work / f"ray-{i}", by_ray)
            for name, clock, n_worker in (("loop", loop, 1), ("ray", ray, N_WORKER)):
                rates[name].append(round(clock.rate(n_worker), 3))
                whole_s[name].append(round(clock.commits[-1][0], 2))
            equal &= bool(got.equals(want))
    ratios = [ray / loop for loop, ray in zip(rates["loop"], rates["ray"], strict=True)]
    result = {
        "shards": N_TILE * (TILE_PX // CORE_PX) ** 2 * TIMES,
        "candidates": want.num_rows,
        "workers": N_WORKER,
        "shards_a_second": rates,
        "speedup_start_up_excluded": round(statistics.median(ratios), 2),
        "speedups": [round(r, 2) for r in ratios],
        "whole_scan_s": whole_s,
        "speedup_of_the_whole_scan": round(
            statistics.median(a / b for a, b in zip(whole_s["loop"], whole_s["ray"], strict=True)), 2
        ),
        "rows_equal": equal,
        "load_average_at_the_end": os.getloadavg(),
        "note": "one thread per process on both sides",
    }
    assert equal, "the rows differ"
    aims = [record.at_least("speed-up, start-up excluded", result["speedup_start_up_excluded"], 1.6)]
    record.write("scan_ray_speed", result, aims, keep=keep)


if __name__ == "__main__":
    main()
