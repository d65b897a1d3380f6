"""
How much faster is a scan by Ray with two workers than the plain loop, on the same shards, start-up excluded?

Each side scans 16 and 64 shards. What starts once (Ray, workers, imports, the model) is in both, so the difference is
what 48 shards take; the whole times are recorded beside it.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # both sides

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from record import write

from lenspipe.config import ScanConfig
from lenspipe.scan.run import ScanRequest, run_scan
from lenspipe.survey.layout import read_layout

N_TILE, TILE_PX, CORE_PX, N_WORKER, REPEATS, TIMES = 4, 2048, 1024, 2, 3, 4


class Silent:
    def stage(self, name: str, total: int, done: int = 0) -> None: ...
    def advance(self, counts: dict[str, int]) -> None: ...
    def say(self, message: str) -> None: ...


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
def local() -> Any:
    from lenspipe.scan.local import scan_local

    yield scan_local


@contextlib.contextmanager
def warm_ray() -> Any:
    """The runner, once two workers and two scorers have been started and have imported what they need."""
    from lenspipe.dist.scan import scan_ray

    yield partial(scan_ray, n_worker=N_WORKER)


def scan(tiles: Path, out: Path, runner: Any) -> tuple[float, Any]:
    config = ScanConfig.model_validate({"shard": {"core_px": CORE_PX}, "score": {"model": "ground-gri-first"}})
    result = run_scan(
        ScanRequest((str(tiles),), read_layout("generic"), config, None), out, runner, Silent(), resume=False
    )
    return result.seconds["scan"], pq.read_table(out / "candidates.parquet")


def main() -> int:
    work = Path(tempfile.mkdtemp(prefix="scan-speed-"))
    make_tiles(work / "few")
    repeat_tiles(work / "few", work / "many")
    from lenspipe.dist.session import ray_session

    seconds: dict[str, list[float]] = {"loop_few": [], "loop_many": [], "ray_few": [], "ray_many": []}
    equal = True
    with ray_session(n_worker=N_WORKER):
        for i in range(REPEATS):
            for size in ("few", "many"):
                loop_s, want = scan(work / size, work / f"loop-{size}-{i}", local)
                ray_s, got = scan(work / size, work / f"ray-{size}-{i}", warm_ray)
                seconds[f"loop_{size}"].append(round(loop_s, 2))
                seconds[f"ray_{size}"].append(round(ray_s, 2))
                equal &= bool(got.equals(want))
    columns = zip(*seconds.values(), strict=True)
    ratios = [(loop_many - loop_few) / (ray_many - ray_few) for loop_few, loop_many, ray_few, ray_many in columns]
    n_few = N_TILE * (TILE_PX // CORE_PX) ** 2
    result = {
        "shards": [n_few, n_few * TIMES],
        "candidates": want.num_rows,
        "workers": N_WORKER,
        "seconds": seconds,
        "speedup_start_up_excluded": round(statistics.median(ratios), 2),
        "speedups": [round(r, 2) for r in ratios],
        "speedup_of_the_whole_longer_scan": round(
            statistics.median(a / b for a, b in zip(seconds["loop_many"], seconds["ray_many"], strict=True)), 2
        ),
        "target": 1.6,
        "rows_equal": equal,
        "load_average_at_the_end": os.getloadavg(),
        "note": "one thread a process on both sides; the speedup is of the difference between the two sizes",
    }
    write("scan_ray_speed", result)
    return 0 if equal and result["speedup_start_up_excluded"] >= 1.6 else 1


if __name__ == "__main__":
    sys.exit(main())
