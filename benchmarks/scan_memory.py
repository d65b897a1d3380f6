"""Is a worker under 1 GB on a four-band 2048 px window? Does the peak stay with four times as many tiles?"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.record import write

MB = 2**20
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
    score, own, done = ScoreShards(context), [0.0], threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not done.wait(0.005):
            info = me.memory_info()
            own[0] = max(own[0], (info.rss - info.shared) / MB)

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(2):  # the second finds the model and its libraries loaded
        row = score(scan_shard(task, context))
    done.set()
    thread.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "window": list(task.shard.window.shape),
                "bands": len(bands),
                "status": row["status"][0].as_py(),
                "sources": row["n_source"][0].as_py(),
                "peak_mb": own[0],
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
    peaks = {"driver_mb": 0.0, "worker_mb": 0.0}

    driver = psutil.Process(process.pid)

    def watch() -> None:
        while process.poll() is None:
            try:
                peaks["driver_mb"] = max(peaks["driver_mb"], driver.memory_info().rss / MB)
                for child in driver.children(recursive=True):
                    if "ray::" in " ".join(child.cmdline()):
                        info = child.memory_info()
                        peaks["worker_mb"] = max(peaks["worker_mb"], (info.rss - info.shared) / MB)
            except psutil.Error:
                pass
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    code = process.wait()
    thread.join()
    assert code == 0, f"the scan ended with {code}"
    return {k: round(v, 1) for k, v in peaks.items()}


def main() -> int:
    from tests.sky import write_tile

    work = Path(tempfile.mkdtemp(prefix="scan-memory-"))
    write_tile(work / "one", "big", bands="griz", shape=(2304 + 2048, 2304 + 2048), n_source=4000)
    done = subprocess.run(
        [sys.executable, __file__, "worker", str(work / "one")], capture_output=True, text=True, check=True
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
        "target_worker_mb": 1024,
        "tiles": [FEW, MANY],
        "scans": scans,
        "target_growth": 0.10,
    }
    write("scan_memory", result)
    worst = max(g for s in scans.values() for g in s["growth"].values())
    return 0 if one["peak_mb"] < 1024 and one["status"] == "ok" and worst < 0.10 else 1


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2])
    else:
        sys.exit(main())
