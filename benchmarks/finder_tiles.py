"""
What the steps of `lenspipe finder` before the training cost for 8 and 16 tiles, by the plain loop and by Ray workers.

    python -m benchmarks.finder_tiles --real ../shared/data

Tiles are copies of a crop of the KiDS tile, moved on the sky; the stamps to paint are in proportion to them. All is in
processor time, the same on a busy machine: per step by the plain loop, and of the whole command with one and two Ray
workers, told apart into the command's own process, which does not get faster with workers, the workers, which share
the tiles, and Ray's own processes. Both runners must make the same stamps. The training is not in it: one worker takes
it, and it costs the same whatever the number of tiles.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from astropy.io import fits

from benchmarks import record
from benchmarks.studies.finder_survey.crop import KEPT
from benchmarks.timing import Clock
from lenspipe.finder.request import FinderRequest
from lenspipe.finder.run import make_finder
from lenspipe.finder.settings import FinderSettings
from lenspipe.runner import SILENT
from lenspipe.stamps.format import StampSet
from lenspipe.survey.layout import read_layout
from lenspipe.toml import put_over

STEPS = ("scan", "sources", "hosts", "stamps")
TILES = (8, 16)
STAMPS_PER_TILE = 50
APART_DEG = 0.5
HUNDRED = 100
EVERY_S = 0.1


def make_tiles(real: Path, out: Path, n: int, side_px: int) -> None:
    """Copies of the lower left of the KiDS tile."""
    for band in "ugri":
        with fits.open(real / "tiles/kids_viking" / f"{band}.fits") as hdus:
            header, pixels = hdus[1].header, hdus[1].data[:side_px, :side_px].astype("f4")
            for number in range(n):
                one = fits.ImageHDU(pixels)
                for card in header.cards:
                    if card.keyword.startswith(KEPT):
                        one.header[card.keyword] = card.value
                one.header["CRVAL1"] = header["CRVAL1"] + number * APART_DEG
                folder = out / f"copy-{number:03d}"
                folder.mkdir(parents=True, exist_ok=True)
                fits.HDUList([fits.PrimaryHDU(), one]).writeto(folder / f"{band}.fits")


def cpu_of_steps(tiles: Path, n: int, out: Path) -> dict[str, float]:
    """Processor seconds of each step by the plain loop, with what it takes to see that those before are done."""
    settings = put_over(FinderSettings(), {"stamps.count": STAMPS_PER_TILE * n}, origin="benchmark")
    request = FinderRequest((str(tiles),), read_layout("kids"), settings)
    found = {}
    for step in STEPS:
        with Clock() as clock:
            make_finder(request, out, progress=SILENT, until=step)
        found[step] = round(clock.cpu_s, 2)
    return found


class CpuOf:
    """Processor seconds of a command and of all that it starts."""

    def __init__(self, command: psutil.Process) -> None:
        self._command, self._seconds = command, dict[tuple[str, int], float]()

    def look(self) -> None:
        """Read the clocks of all processes once more; what one takes after its last look is lost."""
        for process in (self._command, *self._command.children(recursive=True)):
            try:
                times = process.cpu_times()
                self._seconds[self._kind(process), process.pid] = times.user + times.system
            except psutil.Error:
                continue

    def _kind(self, process: psutil.Process) -> str:
        if process.pid == self._command.pid:
            return "command"
        said = " ".join(process.cmdline())
        return "workers" if "default_worker" in said or said.startswith("ray::") else "ray"

    def told(self) -> dict[str, float]:
        """Seconds by kind; a process that was renamed counts by its last name alone."""
        last = {pid: (kind, s) for (kind, pid), s in sorted(self._seconds.items(), key=lambda one: one[1])}
        return {k: round(sum(s for kind, s in last.values() if kind == k), 1) for k in ("command", "workers", "ray")}


def cpu_of_command(tiles: Path, n: int, out: Path, workers: int) -> dict[str, float]:
    """Processor seconds of the whole command until the stamps are there, with Ray."""
    command = [sys.executable, "-m", "lenspipe", "finder", str(tiles), "--survey", "kids", "--out", str(out)]
    command += ["--until", "stamps", "--set", f"stamps.count={STAMPS_PER_TILE * n}"]
    started = subprocess.Popen([*command, "--runner", "ray", "--workers", str(workers)], stdout=subprocess.DEVNULL)
    cpu = CpuOf(psutil.Process(started.pid))
    while started.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            cpu.look()
        time.sleep(EVERY_S)
    if started.returncode:
        raise click.ClickException(f"the finder with {workers} workers ended with {started.returncode}")
    return cpu.told()


def stamps_of(out: Path) -> Any:
    """The pixels and labels of the stamps."""
    data = StampSet.open(out / "stamps")
    order = np.argsort(data.column("stamp_id").astype(str))
    return data.read_images("image", np.arange(data.n))[order], data.column("label")[order]


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--side", "side_px", type=click.IntRange(min=600), default=800, show_default=True)
@record.keep_option
def main(real: Path, side_px: int, keep: bool) -> None:
    """Make the stamps of a finder from copies of a tile."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        cpu: dict[str, dict[str, float]] = {}
        for n in TILES:
            make_tiles(real, work / f"tiles-{n}", n, side_px)
            cpu[str(n)] = cpu_of_steps(work / f"tiles-{n}", n, work / f"cpu-{n}")
            print(n, cpu[str(n)], flush=True)
        with_ray: dict[str, dict[str, float]] = {}
        for n, workers in ((TILES[0], 1), (TILES[1], 1), (TILES[1], 2)):
            key = f"{n} tiles, {workers} worker{'s' * (workers > 1)}"
            with_ray[key] = cpu_of_command(work / f"tiles-{n}", n, work / f"ray-{n}-{workers}", workers)
            print(key, with_ray[key], flush=True)
        plain, other = stamps_of(work / f"cpu-{TILES[1]}"), stamps_of(work / f"ray-{TILES[1]}-2")
        equal = bool(np.array_equal(plain[0], other[0], equal_nan=True) and (plain[1] == other[1]).all())
    assert equal, "Ray makes other stamps than the plain loop"
    few, most = TILES
    of_tile = {step: (cpu[str(most)][step] - cpu[str(few)][step]) / (most - few) for step in STEPS}
    once = {step: cpu[str(few)][step] - few * of_tile[step] for step in STEPS}
    half, one, two = with_ray.values()
    result = {
        "side_px": side_px,
        "stamps_per_tile": STAMPS_PER_TILE,
        "cpu_s": cpu,
        "cpu_s_per_tile": {step: round(value, 3) for step, value in of_tile.items()},
        "cpu_s_once": {step: round(value, 2) for step, value in once.items()},
        "hundred_tiles_cpu_s": round(sum(of_tile.values()) * HUNDRED + sum(once.values()), 1),
        "twice_the_tiles": round(sum(cpu[str(most)].values()) / sum(cpu[str(few)].values()), 3),
        "with_ray_cpu_s": with_ray,
        "workers_two_over_one": round(two["workers"] / one["workers"], 3),
        "command_of_twice_the_tiles": round(one["command"] / half["command"], 3),
        "same_stamps": equal,
        "load_at_the_end": round(os.getloadavg()[0], 2),
    }
    aims = [record.at_most("processor time of 16 tiles over that of 8", result["twice_the_tiles"], 2.1)]
    record.write("finder_tiles", result, aims, keep=keep)


if __name__ == "__main__":
    main()
