"""
Random faults while commands work, with and without a cluster: afterwards nothing is lost and nothing is there twice.

Scan (to a folder and to an object store), train, sweep, catalogue and completeness; a driver, a worker or a node of a
Ray cluster of two nodes is killed, the disk fills, the store refuses or hangs, a tile is cut short and whole later,
memory ends. The command is given again until it ends, and what it leaves is compared with an unbroken run.
What was measured already is kept in ``--work``, so that it can be done in pieces.

    python -m benchmarks.soak --work FOLDER --minutes 10
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from benchmarks import record
from benchmarks.forks import fork, import_everything, in_fork, lenspipe, run_lenspipe
from benchmarks.full_disks import mount
from benchmarks.kills import FINISHED
from benchmarks.timing import Clock
from benchmarks.victims import URL, Rays, Store, empty_store
from benchmarks.writers import WRITERS, Leaves, Writer, differences, leaves_of, make_stock

SEED, AIM = 2027, 100
TRIES, ALONE_S = 6, 240
RAY_S = 6.0
"""What a command takes longer on a cluster than the plain loop, about: faults come while it works."""
_LOCAL = {w.name: w for w in WRITERS}
_COMPLETENESS = tuple(w for w in _LOCAL["completeness"].arguments if w not in ("--runner", "local"))
_SCAN = _LOCAL["scan"].arguments
COMMANDS = {
    **{name: _LOCAL[name] for name in ("scan", "train", "sweep", "catalog", "completeness")},
    "scan to a store": Writer(
        "scan to a store", (*_SCAN[: _SCAN.index("--out")], "--out", URL, "--runner", "local"), ("--resume",)
    ),
    **{name: _LOCAL[name] for name in ("scan with Ray", "train with Ray", "catalog --distributed")},
    "completeness with Ray": Writer(
        "completeness with Ray", (*_COMPLETENESS, "--runner", "ray", "--workers", "2"), ("--resume",), ray=True
    ),
    "sweep with Ray": _LOCAL["sweep with Ray"],
    "scan with Ray to a store": Writer(
        "scan with Ray to a store",
        (*_SCAN[: _SCAN.index("--out")], "--out", URL, "--runner", "ray", "--workers", "2"),
        ("--resume",),
        ray=True,
    ),
}
FAULTS = {
    "driver": lambda name: True,
    "disk": lambda name: "Ray" not in name and "distributed" not in name and "store" not in name,
    "memory": lambda name: "Ray" not in name and "distributed" not in name,
    "tile": lambda name: name.startswith("scan"),
    "store refuses": lambda name: "store" in name,
    "store hangs": lambda name: "store" in name,
    "worker": lambda name: "Ray" in name or "distributed" in name,
    "node": lambda name: "Ray" in name or "distributed" in name,
}
PLAIN = {
    **dict.fromkeys(("scan with Ray", "scan to a store", "scan with Ray to a store"), "scan"),
    "completeness with Ray": "completeness",
}
"""Whose tables must be those of another command."""


class Soak:
    """Commands, faults, and what is compared."""

    def __init__(self, work: Path, store: Store | None, rays: Rays | None) -> None:
        self.stock, self.here, self.disk = work / "stock", work / "disk" / "here", work / "disk"
        self.store, self.rays, self.ends = store, rays, work / "ends"
        self.said = work / "said.txt"
        self.ends.mkdir(exist_ok=True)

    def prepare(self, writer: Writer) -> None:
        """An empty folder, or place in the store."""
        writer.prepare(self.stock, self.here)
        if "store" in writer.name:
            in_fork(empty_store)

    def end(self, name: str) -> dict[str, Any]:
        """What an unbroken run leaves; of two runs what is not the same is not compared."""
        name = PLAIN.get(name, name)
        kept = self.ends / f"{re.sub(r'[^a-z]+', '-', name.lower())}.json"
        if not kept.exists():
            ends, seconds = [], 0.0
            for _ in range(2):
                self.prepare(COMMANDS[name])
                clock = Clock()
                code, said = run_lenspipe(COMMANDS[name].words(self.stock, self.here))
                seconds = clock.wall_s
                if code not in (0, 3):
                    raise RuntimeError(f"{name}: {code}: {said[-2000:]}")
                ends.append(leaves_of(self.here))
            differ = [k for k in ends[0].keys() | ends[1].keys() if ends[0].get(k) != ends[1].get(k)]
            kept.write_text(json.dumps({"end": ends[1], "differ": differ, "seconds": seconds, "code": code}))
        whole: dict[str, Any] = json.loads(kept.read_text())
        return whole

    def faults(self, name: str, fault: str, whole: dict[str, Any]) -> list[str]:
        """Where what is left differs from the unbroken end."""
        if "store" in name:
            in_fork(lambda: _from_store(self.here / "run"))
        end: Leaves = whole["end"]
        found = [f for f in differences(self.here, end) if f.split(" ")[0] not in whole["differ"]]
        if fault == "tile":  # a catalogue keeps the name that it was given first, by the run with the tile that was cut
            found = [f for f in found if not f.endswith("catalog/provenance.json:catalogue_id differs")]
        if name in PLAIN:  # the tables; records say how the work was done
            found = [f for f in found if re.match(r"(run|sel)/[a-z_]+\.parquet:", f)]
        return found

    def round(self, name: str, fault: str, rng: np.random.Generator) -> dict[str, Any]:
        """One command, one fault, and the command again until it ends."""
        if self.rays:
            self.rays.make_whole()
        writer, whole = COMMANDS[name], self.end(name)
        self.prepare(writer)
        after_s = float(rng.uniform(0.02, 0.9)) * (whole["seconds"] + (RAY_S if writer.ray and name in PLAIN else 0.0))
        words = writer.words(self.stock, self.here)
        with self._fault(fault, rng) as (before, strike):
            pid = fork(lambda: (before(), lenspipe(words))[1], self.said)
            hit = strike(pid, after_s)
            code = _wait(pid, ALONE_S)
        if fault in ("memory", "disk"):  # there from the beginning; whether it was too little
            hit = code != whole["code"]
        tries = 1
        while code != whole["code"] or fault == "tile":  # 3: with tiles that failed, or trials that crashed
            code, said = self._again(writer)
            tries += 1
            if code == whole["code"] or any(words in said for words in FINISHED):
                break
            if tries > TRIES:
                return {"command": name, "fault": fault, "hit": hit, "tries": tries, "faults": [said[-600:]]}
        return {"command": name, "fault": fault, "after_s": round(after_s, 2), "hit": hit, "tries": tries,
                "faults": self.faults(name, fault, whole)[:8]}  # fmt: skip

    def _again(self, writer: Writer) -> tuple[int, str]:
        pid = fork(lambda: lenspipe(writer.words(self.stock, self.here, again=True)), self.said)
        return _wait(pid, ALONE_S), self.said.read_text(errors="replace")

    @contextlib.contextmanager
    def _fault(self, fault: str, rng: np.random.Generator) -> Iterator[tuple[Callable[[], None], Callable[..., bool]]]:
        def nothing() -> None:
            return

        def at(strike: Callable[[int], bool]) -> Callable[[int, float], bool]:
            def wait(pid: int, after_s: float) -> bool:
                time.sleep(after_s)
                running = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
                return strike(pid) and running

            return wait

        if fault == "driver":
            yield nothing, at(lambda pid: os.kill(pid, signal.SIGKILL) is None)
        elif fault == "memory":
            room = int(rng.uniform(1, 40)) << 20
            yield lambda: _less_memory(room), at(lambda pid: True)
        elif fault == "disk":
            facts = os.statvfs(self.disk)
            used = (facts.f_blocks - facts.f_bfree) * facts.f_frsize
            mount(self.disk, f"remount,size={used + int(rng.uniform(0, 200_000)) // 4096 * 4096}")
            yield nothing, at(lambda pid: True)
            mount(self.disk, f"remount,size={1 << 30}")
        elif fault == "tile":
            tile = self.stock / "tiles" / "t1_r.fits"
            whole = tile.read_bytes()
            tile.write_bytes(whole[: int(rng.uniform(0, len(whole)))])
            try:
                yield nothing, at(lambda pid: True)
            finally:
                tile.write_bytes(whole)
        elif fault == "store refuses" and self.store:
            for_s, refuses = float(rng.uniform(0.5, 8.0)), self.store.refuses

            def refuse(pid: int) -> bool:
                refuses.touch()
                time.sleep(for_s)
                return True

            yield nothing, at(refuse)
            refuses.unlink(missing_ok=True)
        elif fault == "store hangs" and self.store:
            for_s, server = float(rng.uniform(0.5, 6.0)), self.store.pid

            def hang(pid: int) -> bool:
                os.kill(server, signal.SIGSTOP)
                time.sleep(for_s)
                os.kill(server, signal.SIGCONT)
                return True

            yield nothing, at(hang)
        elif fault == "worker" and self.rays:
            rays = self.rays
            yield nothing, at(lambda pid: rays.kill_worker(rng))
        elif fault == "node" and self.rays:
            rays = self.rays
            yield nothing, at(lambda pid: rays.kill_node() is None)
        else:
            raise ValueError(fault)


def _from_store(folder: Path) -> None:
    from lenspipe.store.place import place_at

    with place_at(URL, writes=False) as there:
        shutil.copytree(there, folder)


def _less_memory(room: int) -> None:
    most = psutil.Process().memory_info().vms + room
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _wait(pid: int, limit_s: float) -> int:
    """Exit code of a process; one that does not end is killed, -9."""
    clock = Clock()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if clock.wall_s > limit_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -9
        time.sleep(0.05)


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="What was measured so far.")
@click.option("--stock", type=click.Path(path_type=Path), default=None, help="Inputs that were made before.")
@click.option("--also", type=click.Path(path_type=Path), multiple=True, help="Other --work folders, for the record.")
@click.option("--minutes", type=float, default=10.0, show_default=True, help="No fault begins later.")
@click.option("--with-ray/--without-ray", default=False, show_default=True, help="On a cluster of two nodes.")
@record.keep_option
def main(work: Path, stock: Path | None, also: tuple[Path, ...], minutes: float, with_ray: bool, keep: bool) -> None:
    """Break commands at random, and compare what they come to."""
    clock = Clock()
    work.mkdir(parents=True, exist_ok=True)
    import_everything()
    if stock is not None and not (work / "stock").exists():
        shutil.copytree(stock, work / "stock")
    make_stock(work / "stock")
    kept = work / "soak.json"
    rounds: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    (work / "disk").mkdir(exist_ok=True)
    subprocess.run(["umount", "-l", work / "disk"], check=False, capture_output=True)  # of one that was ended
    mount(work / "disk", f"size={1 << 30}")
    store = Store(work)
    rays = Rays(work) if with_ray else None
    soak = Soak(work, store, rays)
    pairs = [(n, f) for n in COMMANDS for f in FAULTS if FAULTS[f](n) and bool(rays) == COMMANDS[n].ray]
    try:
        while clock.wall_s < 60 * minutes:
            number = sum(bool(rays) == r["with_ray"] for r in rounds)
            rng = np.random.default_rng([SEED, bool(rays), number])
            name, fault = pairs[number % len(pairs)] if number < len(pairs) else pairs[int(rng.integers(len(pairs)))]
            one = Clock()
            row = soak.round(name, fault, rng) | {"with_ray": bool(rays), **one.seconds()}
            rounds.append(row)
            kept.write_text(json.dumps(rounds))
            print(json.dumps(row), flush=True)
    finally:
        store.stop()
        if rays:
            rays.stop()
        subprocess.run(["umount", "-l", work / "disk"], check=False)
    others = [row for folder in also for row in json.loads((folder / "soak.json").read_text())]
    report([*rounds, *others], keep=keep)


def report(rounds: list[dict[str, Any]], *, keep: bool) -> None:
    """Write the record."""
    bad, hit = [r for r in rounds if r["faults"]], sum(bool(r["hit"]) for r in rounds)
    result = {
        "seed": SEED,
        "faults": len(rounds),
        "hit_a_running_command": hit,
        "by_fault": dict(Counter(r["fault"] for r in rounds)),
        "by_command": dict(Counter(r["command"] for r in rounds)),
        "with_ray_on_two_nodes": sum(r["with_ray"] for r in rounds),
        "given_again": sum(r["tries"] - 1 for r in rounds),
        "ends_that_differ": bad,
    }
    aims = [
        record.at_least("faults that hit a running command", hit, AIM),
        record.at_most("ends that differ", len(bad), 0),
    ]
    record.write("soak", result, aims, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
