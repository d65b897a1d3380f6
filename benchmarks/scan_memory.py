"""Is a worker under 1 GB on a four-band 2048 px window? Does the peak stay with four times as many tiles?"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import psutil

from benchmarks import record
from benchmarks.memory import PeakMemory, each_mib, own_mib, ray_workers, rss_mib

FEW, MANY = 12, 48  # twelve shards are three calls of the scorer: by then every buffer has been in use


def worker(tiles: str) -> None:
    """In a process of its own, as a worker does it: one shard of 2048 px and its halo, four bands, scored."""
    from lenspipe.scan.config import ScanConfig
    from lenspipe.scan.context import ScanContext
    from lenspipe.scan.models import choose_readers
    from lenspipe.scan.plan import plan_tiles, tasks_of
    from lenspipe.scan.request import ScanRequest, find_tiles
    from lenspipe.scan.scoring import ScoreShards
    from lenspipe.scan.shard import scan_shard
    from lenspipe.survey.layout import read_layout

    request = ScanRequest((tiles,), read_layout("generic"), ScanConfig(), None)
    found, bands = find_tiles(request)
    task = max(tasks_of(plan_tiles(found, request.layout, request.config)), key=lambda t: t.shard.window.n_px)
    readers = choose_readers(request.config, bands, request.layout).readers
    context = ScanContext(request.config, request.layout, bands, Path(tiles) / ".attempts", readers)
    score, me = ScoreShards(context), psutil.Process()
    with PeakMemory(lambda: own_mib(me), every_s=0.005) as own:
        for _ in range(2):  # the second finds the model and its libraries loaded
            row = score(scan_shard(task, context))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "window": list(task.shard.window.shape),
                "bands": len(bands),
                "status": row["status"][0].as_py(),
                "sources": row["n_source"][0].as_py(),
                "peak_mb": own.peak_mib,
                "peak_with_shared_libraries_mb": peak / 1024,
            }
        )
    )


def peak_of_scan(tiles: Path, out: Path, runner: str) -> dict[str, float]:
    """Peak resident memory of the driver and of the largest worker while a scan runs."""
    command = [sys.executable, "-m", "lenspipe", "scan", str(tiles), "--survey", "generic", "--shard-px", "1024"]
    process = subprocess.Popen(
        [*command, "--runner", runner, "--workers", "2", "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    driver = [psutil.Process(process.pid)]
    with (
        PeakMemory(lambda: sum(each_mib(rss_mib, driver))) as of_driver,
        PeakMemory(lambda: max(each_mib(own_mib, ray_workers(process.pid)), default=0.0)) as of_worker,
    ):
        code = process.wait()
    assert code == 0, f"the scan ended with {code}"
    return {"driver_mb": round(of_driver.peak_mib, 1), "worker_mb": round(of_worker.peak_mib, 1)}


@click.command()
@click.option("--worker", "tiles", hidden=True, help="Score the largest shard of these tiles in this process.")
@record.keep_option
def main(tiles: str | None, keep: bool) -> None:
    """Measure the memory of scans."""
    if tiles is not None:
        worker(tiles)
        return
    from tests.sky import write_tile

    work = Path(tempfile.mkdtemp(prefix="scan-memory-"))
    write_tile(work / "one", "big", bands="griz", shape=(2304 + 2048, 2304 + 2048), n_source=4000)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scan_memory", "--worker", str(work / "one")],
        capture_output=True,
        text=True,
        check=True,
    )
    one = json.loads(done.stdout.splitlines()[-1])
    for i in range(MANY):
        for folder in ("few", "many")[0 if i < FEW else 1 :]:
            write_tile(work / folder, f"t{i}", shape=(768, 768), n_source=140, seed=i)
    scans = {}
    for runner in ("local", "ray"):
        few = peak_of_scan(work / "few", work / f"{runner}-few", runner)
        many = peak_of_scan(work / "many", work / f"{runner}-many", runner)
        growth = {k: round(many[k] / few[k] - 1, 4) for k in few if few[k]}
        scans[runner] = {"few": few, "many": many, "growth": growth}
    result = {
        "worker_four_bands_2048": {k: round(v, 1) if isinstance(v, float) else v for k, v in one.items()},
        "tiles": [FEW, MANY],
        "scans": scans,
    }
    assert one["status"] == "ok"
    aims = [record.at_most("MB of a worker", one["peak_mb"], 1024)]
    aims += [
        record.at_most(f"growth of the {name.removesuffix('_mb')}, {runner}", growth, 0.10)
        for runner, scan in scans.items()
        for name, growth in scan["growth"].items()
    ]
    record.write("scan_memory", result, aims, keep=keep)


if __name__ == "__main__":
    main()
