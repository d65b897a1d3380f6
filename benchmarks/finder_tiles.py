"""
What the steps of `lenspipe finder` before the training cost for 4, 8 and 16 tiles, and by one and two Ray workers.

    python -m benchmarks.finder_tiles --real ../shared/data

Tiles are copies of a crop of the KiDS tile, moved on the sky; the stamps to paint are in proportion to them. The plain
loop gives the processor time of each step (the same on a busy machine); the whole command with Ray, start included, and
by the plain loop gives wall time, and whether both make the same stamps.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
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
TILES = (4, 8, 16)
STAMPS_PER_TILE = 50
APART_DEG = 0.5
HUNDRED = 100


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


def wall_s(tiles: Path, n: int, out: Path, *runner: str) -> float:
    """Wall seconds of the whole command until the stamps are there."""
    command = [sys.executable, "-m", "lenspipe", "finder", str(tiles), "--survey", "kids", "--out", str(out)]
    begun = time.perf_counter()
    subprocess.run(
        [*command, "--until", "stamps", "--set", f"stamps.count={STAMPS_PER_TILE * n}", *runner],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - begun


def stamps_of(out: Path) -> Any:
    """The pixels and labels of the stamps."""
    data = StampSet.open(out / "stamps")
    order = np.argsort(data.column("stamp_id").astype(str))
    return data.read_images("image", np.arange(data.n))[order], data.column("label")[order]


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--side", "side_px", type=click.IntRange(min=600), default=1300, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, help="Of wall times.")
@record.keep_option
def main(real: Path, side_px: int, rounds: int, keep: bool) -> None:
    """Make the stamps of a finder from copies of a tile."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        cpu: dict[str, dict[str, float]] = {}
        for n in TILES:
            make_tiles(real, work / f"tiles-{n}", n, side_px)
            cpu[str(n)] = cpu_of_steps(work / f"tiles-{n}", n, work / f"cpu-{n}")
            print(n, cpu[str(n)], flush=True)
        most = TILES[-1]
        tiles = work / f"tiles-{most}"
        walls: dict[str, list[float]] = {"plain": [], "1": [], "2": []}
        for k in range(rounds):
            walls["plain"].append(wall_s(tiles, most, work / f"plain-{k}", "--runner", "local"))
            for workers in ("1", "2"):
                out = work / f"ray-{workers}-{k}"
                walls[workers].append(wall_s(tiles, most, out, "--runner", "ray", "--workers", workers))
            print({name: round(ones[-1], 1) for name, ones in walls.items()}, flush=True)
        plain, other = stamps_of(work / "plain-0"), stamps_of(work / "ray-2-0")
        equal = bool(np.array_equal(plain[0], other[0], equal_nan=True) and (plain[1] == other[1]).all())
    of_tile = {step: (cpu[str(most)][step] - cpu[str(TILES[0])][step]) / (most - TILES[0]) for step in STEPS}
    once = {step: cpu[str(TILES[0])][step] - TILES[0] * of_tile[step] for step in STEPS}
    result = {
        "side_px": side_px,
        "stamps_per_tile": STAMPS_PER_TILE,
        "cpu_s": cpu,
        "cpu_s_per_tile": {step: round(value, 3) for step, value in of_tile.items()},
        "cpu_s_once": {step: round(value, 2) for step, value in once.items()},
        "hundred_tiles_cpu_s": round(sum(of_tile.values()) * HUNDRED + sum(once.values()), 1),
        "sixteen_over_eight": round(sum(cpu["16"].values()) / sum(cpu["8"].values()), 3),
        "wall_s": {name: [round(one, 1) for one in ones] for name, ones in walls.items()},
        "two_workers_over_one": round(statistics.median(walls["1"]) / statistics.median(walls["2"]), 2),
        "same_stamps": equal,
        "load_at_the_end": round(os.getloadavg()[0], 2),
    }
    aims = [
        record.at_most("processor time of 16 tiles over that of 8", result["sixteen_over_eight"], 2.1),
        record.at_least("two workers over one", result["two_workers_over_one"], 1.5),
    ]
    record.write("finder_tiles", result, aims, keep=keep)


if __name__ == "__main__":
    main()
