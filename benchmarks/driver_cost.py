"""
What a shard costs the driver of a scan, whatever is in it: plan, dispatch, ledger, resume, finalize.

    python -m benchmarks.driver_cost --shards 100000

Tiles are empty (sparse files of zeros), and the runner commits what a worker would have given for an empty shard, a
few to a part as always: no pixel is read and nothing is detected, so what is left is the driver's own work. The rows
are made from one template, and their making and writing, which is the workers' work, is timed apart. A tile of
2,500 shards is scanned first: its time is not counted, and memory per shard is what the peak lies above its peak, over
the shards that there are more of. What a program takes whatever the number of shards is no shard's.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS

from benchmarks import record
from benchmarks.memory import PeakMemory, own_mib
from benchmarks.timing import Clock
from lenspipe.runner import SILENT, here
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.ledger import write_part
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.rows import identity
from lenspipe.scan.run import run_scan
from lenspipe.scan.scoring import ScoreShards
from lenspipe.scan.shard import scan_shard
from lenspipe.survey.layout import read_layout

CORE_PX, SIDE = 64, 100
"""Side of a shard's core, and shards along a side of a tile: 10,000 per tile."""
FIRST_SIDE = 50
"""Of the tile that is scanned first."""


def make_tiles(folder: Path, n: int, side: int = SIDE) -> None:
    """``n`` tiles of one band: a header, and a hole in the file that reads as zeros."""
    folder.mkdir()
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix, wcs.wcs.cdelt = ("RA---TAN", "DEC--TAN"), (3200.5, 3200.5), (-5.6e-5, 5.6e-5)
    for k in range(n):
        wcs.wcs.crval = 150.0 + 0.4 * k, 2.0
        header = wcs.to_header()
        header["BUNIT"] = "nJy"
        hdu = fits.PrimaryHDU(np.zeros((1, 1), np.float32), header)
        for axis in (1, 2):
            hdu.header[f"NAXIS{axis}"] = CORE_PX * side
        text = hdu.header.tostring().encode()
        with (folder / f"empty{k:04d}_r.fits").open("wb") as stream:
            stream.write(text)
            stream.truncate(len(text) + -(-4 * (CORE_PX * side) ** 2 // 2880) * 2880)


class Empty:
    """A runner whose shards hold nothing."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.workers = Clock()
        self.workers_cpu_s = 0.0
        self.stop_after = stop_after

    def __call__(
        self,
        tasks: Sequence[ShardTask],
        context: ScanContext,
        parts: Path,
        *,
        session: str,
        on_part: Callable[[dict[str, int]], None],
    ) -> None:
        clock = Clock()
        finish = ScoreShards(context)
        template = finish(scan_shard(tasks[0], context))
        step = context.config.score.shards_per_call
        fixed = {name: template[name].combine_chunks() for name in template.column_names}
        self.workers_cpu_s += clock.cpu_s
        for number, start in enumerate(range(0, len(tasks), step)):
            some = tasks[start : start + step]
            clock = Clock()
            index = pa.array(np.zeros(len(some), np.int64))
            values = {name: column.take(index) for name, column in fixed.items()}
            ids = [identity(task) for task in some]
            values |= {name: pa.array([one[name] for one in ids], template.schema.field(name).type) for name in ids[0]}
            rows = pa.table([values[name] for name in template.column_names], schema=template.schema)
            counts = write_part(parts, f"part-{session}-{number:06d}", rows)
            self.workers_cpu_s += clock.cpu_s
            on_part(counts)
            if self.stop_after is not None and start + step >= self.stop_after:
                raise StoppedError


class StoppedError(Exception):
    """The driver is killed."""


def measured(
    name: str,
    out: dict[str, Any],
    n: int,
    work: Callable[[], Any],
    empty: Empty,
    *,
    first: tuple[int, float] = (0, 0.0),
) -> Any:
    """Add what a piece of work took per shard; ``first`` are the shards of the first scan and its peak, MiB."""
    before, process = empty.workers_cpu_s, psutil.Process()
    with PeakMemory(partial(own_mib, process)) as memory:
        clock = Clock()
        try:
            found = work()
        except StoppedError:
            found = None
        cpu_s = clock.cpu_s - (empty.workers_cpu_s - before)
    out[name] = {
        "driver_cpu_s": round(cpu_s, 2),
        "ms_per_shard": round(1e3 * cpu_s / n, 3),
        "peak_mib": round(memory.peak_mib, 1),
        "kb_per_shard": round(max(0.0, memory.peak_mib - first[1]) * 1024 / (n - first[0]), 3),
        "workers_cpu_s": round(empty.workers_cpu_s - before, 2),
    }
    return found


@click.command()
@click.option("--shards", type=click.IntRange(min=SIDE**2), default=100_000, show_default=True)
@record.keep_option
def main(shards: int, keep: bool) -> None:
    """Scan empty shards, half of them before a resume."""
    n_tile = shards // SIDE**2
    n = n_tile * SIDE**2
    result: dict[str, Any] = {"shards": n, "tiles": n_tile}
    with tempfile.TemporaryDirectory(prefix="driver-cost-", dir=os.environ.get("TMPDIR")) as scratch:
        work = Path(scratch)
        make_tiles(work / "tiles", n_tile)
        config = ScanConfig.model_validate({"shard": {"core_px": CORE_PX, "halo_px": 0}, "score": {"model": "none"}})
        first, second = Empty(n // 2), Empty()

        def scan(runner: Empty, *, resume: bool, what: str = "") -> Any:
            request = ScanRequest((str(work / f"tiles{what}"),), read_layout("generic"), config, None)
            return run_scan(request, work / f"run{what}", here(runner), SILENT, resume=resume)

        make_tiles(work / "tiles-first", 1, FIRST_SIDE)
        warm = Empty()
        measured("first", result, FIRST_SIDE**2, lambda: scan(warm, resume=False, what="-first"), warm)
        before = FIRST_SIDE**2, result["first"]["peak_mib"]

        measured("plan, half of the shards, killed", result, n, lambda: scan(first, resume=False), first, first=before)
        done = measured(
            "resume, the other half, finalize", result, n, lambda: scan(second, resume=True), second, first=before
        )
        result["seconds"] = {key: round(value, 2) for key, value in done.seconds.items()}
        measured("resume of what is whole", result, n, lambda: scan(second, resume=True), second, first=before)
        assert done.totals.shards == done.totals.shards_ok == n, done.totals
    both = [result[key] for key in ("plan, half of the shards, killed", "resume, the other half, finalize")]
    ms, kb = sum(one["ms_per_shard"] for one in both), max(one["kb_per_shard"] for one in both)
    result |= {"ms_per_shard": round(ms, 3), "kb_per_shard": round(kb, 3)}
    aims = [
        record.at_most("driver's processor time per shard, ms", ms, 5.0),
        record.at_most("driver's memory per shard, KB", kb, 2.0),
    ]
    record.write("driver_cost", result, aims, keep=keep)


if __name__ == "__main__":
    main()
