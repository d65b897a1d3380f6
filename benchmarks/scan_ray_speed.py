"""How much faster is a scan by Ray with two workers than the plain loop, on the same shards, start-up excluded?"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
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

N_TILE, TILE_PX, CORE_PX, N_WORKER, REPEATS = 4, 2048, 1024, 2, 3


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
    make_tiles(work / "tiles")
    from lenspipe.dist.session import ray_session

    loop_s, ray_s, equal = [], [], True
    scan(work / "tiles", work / "warm-local", local)
    with ray_session(n_worker=N_WORKER):
        cold_s, _ = scan(work / "tiles", work / "warm-ray", warm_ray)
        for i in range(REPEATS):
            one, want = scan(work / "tiles", work / f"local{i}", local)
            two, got = scan(work / "tiles", work / f"ray{i}", warm_ray)
            loop_s.append(one)
            ray_s.append(two)
            equal &= bool(got.equals(want))
    ratios = [a / b for a, b in zip(loop_s, ray_s, strict=True)]
    result = {
        "shards": N_TILE * (TILE_PX // CORE_PX) ** 2,
        "candidates": want.num_rows,
        "workers": N_WORKER,
        "loop_s": [round(s, 2) for s in loop_s],
        "ray_s": [round(s, 2) for s in ray_s],
        "ray_first_scan_of_a_session_s": round(cold_s, 2),
        "speedup_median": round(statistics.median(ratios), 2),
        "speedups": [round(r, 2) for r in ratios],
        "target": 1.6,
        "rows_equal": equal,
        "note": "starting Ray and planning excluded; each Ray scan starts its actor; one thread a process",
        "time": time.strftime("%FT%TZ", time.gmtime()),
    }
    write("scan_ray_speed", result)
    return 0 if equal and result["speedup_median"] >= 1.6 else 1


if __name__ == "__main__":
    sys.exit(main())
