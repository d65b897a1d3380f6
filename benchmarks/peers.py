"""
Beside the others, the same inputs and outputs on one core: ratios of processor seconds.

    python -m benchmarks.peers --tiles ../shared/data/tiles/kids_viking --envs FOLDER
    python -m benchmarks.peers_page        # docs/peers.md, from the record

Each is a whole process from its start to its files, kept on one core; what counts is the processor time of it and of
all that it starts, the fastest of some rounds, so other work on the machine disturbs little. Peers from PyPI live in
environments of their own, which are made in ``--envs``; one that cannot be had stands in the record with its error.
Source Extractor and funpack are Debian's.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import record
from benchmarks.catalog_speed import make_run
from benchmarks.cut_speed import SIZE_PX, make
from benchmarks.detection_speed import PARAMETERS, PYRAMID
from benchmarks.simulate_speed import lenstronomy_models, ours
from benchmarks.timing import rounds_s
from lenspipe.nn.card import find_model

PEERS = {"cutana": "cutana==0.4.0", "hats-import": "hats-import==0.11.1"}
SCRIPTS = Path(__file__).parent / "peer_scripts"
LENSPIPE = [sys.executable, "-m", "lenspipe"]
N_STAMP, N_ROW, BANDS = 20_000, 200_000, "ugri"
Command = Sequence[str]


def cpu_s(commands: Sequence[Command], folder: Path) -> float:
    """Processor seconds of processes one after the other, and of all that they start, on one core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    core = min(os.sched_getaffinity(0))
    for command in commands:
        words = ["taskset", "-c", str(core), *command]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            raise RuntimeError(f"{' '.join(command)[:300]}: {(done.stderr or done.stdout)[-600:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def python_of(envs: Path, name: str) -> str:
    """Python of a peer's environment, which is made where there is none."""
    python = envs / name / "bin" / "python"
    if not python.exists():
        for words in (["venv", "-q", str(envs / name)], ["pip", "install", "-q", "--python", str(python), PEERS[name]]):
            done = subprocess.run(["uv", *words], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-600:])
    return str(python)


def compared(
    mine: Sequence[Command], theirs: Sequence[Command], folder: Path, rounds: int, outputs: Sequence[str]
) -> dict[str, Any]:
    """Both sides in turn; ``outputs`` of a round are removed before the next."""
    found: dict[str, list[float]] = {"lenspipe": [], "peer": []}
    for _ in range(rounds):
        for name in outputs:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for side, commands in (("lenspipe", mine), ("peer", theirs)):
            found[side].append(round(cpu_s(commands, folder), 2))
    best = {f"{side}_cpu_s": min(seconds) for side, seconds in found.items()}
    return {**best, "rounds": found, "ratio": round(best["peer_cpu_s"] / best["lenspipe_cpu_s"], 2)}


def catalogue(folder: Path, tiles: Path, envs: Path, rounds: int) -> dict[str, Any]:
    """Four bands of a compressed tile to one measured catalogue, detected in r."""
    (folder / "tile").mkdir()
    for band in BANDS:
        shutil.copy(tiles / f"{band}.fits", folder / "tile")
    (folder / "p.param").write_text("\n".join(PARAMETERS.split()))
    (folder / "p.conv").write_text(PYRAMID)
    options = {
        "CATALOG_TYPE": "FITS_1.0", "PARAMETERS_NAME": "p.param", "FILTER_NAME": "p.conv", "DETECT_THRESH": "1.5",
        "ANALYSIS_THRESH": "1.5", "DETECT_MINAREA": "5", "DEBLEND_NTHRESH": "32", "DEBLEND_MINCONT": "0.005",
        "BACK_SIZE": "64", "BACK_FILTERSIZE": "3", "PHOT_FLUXFRAC": "0.5", "MAG_ZEROPOINT": "0",
        "MEMORY_PIXSTACK": "3000000", "VERBOSE_TYPE": "QUIET", "NTHREADS": "1",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in (f"-{key}", value)]
    unpack = [["funpack", "-O", f"plain_{band}.fits", f"tile/{band}.fits"] for band in BANDS]
    extract = [
        [
            "source-extractor",
            f"plain_r.fits,plain_{band}.fits",
            "-c",
            "/dev/null",
            *words,
            "-CATALOG_NAME",
            f"{band}.cat",
        ]
        for band in BANDS
    ]
    scan = [*LENSPIPE, "scan", "tile", "--survey", "kids", "--model", "none", "--runner",
            "local", "--no-catalog", "--out", "run", "--shard-px", "2600"]  # fmt: skip
    plain = [f"plain_{band}.fits" for band in BANDS]
    found = compared([scan], [*unpack, *extract], folder, rounds, ["run", *plain])
    dry = cpu_s([[*scan[: scan.index("--out")], "--out", "dry", "--dry-run"]], folder)
    from astropy.io import fits

    shards = pq.read_table(folder / "run" / "shards.parquet")
    return {
        **found,
        "lenspipe_cpu_s_of_start_and_plan": round(dry, 2),
        "ratio_without_start": round(found["peer_cpu_s"] / (found["lenspipe_cpu_s"] - dry), 2),
        "why": "a tile of 2600 px is short beside the start of lenspipe, which many tiles share",
        "lenspipe_sources": sum(shards["n_source"].to_pylist()),
        "peer_sources": len(fits.getdata(folder / "r.cat", 1)),
        "peer_version": said(["source-extractor", "--version"]),
    }


def cutouts(folder: Path, tiles: Path, envs: Path, rounds: int) -> dict[str, Any]:
    """10,000 stamps of 64 px at given positions of a compressed tile, pixels as they are."""
    make(folder)
    cut = [*LENSPIPE, "stamps", "cut", "tile_i.fits", "--positions", "list.csv", "--size", str(SIZE_PX),
           "--sky", "keep", "--split", "none", "--format", "npy", "--out", "ours"]  # fmt: skip
    python = python_of(envs, "cutana")
    theirs = [python, str(SCRIPTS / "cutana_cut.py"), str(folder / "tile_i.fits"), "list.csv", str(SIZE_PX), "theirs"]
    found = compared([cut], [theirs], folder, rounds, ["ours", "theirs"])
    size = sum(path.stat().st_size for path in (folder / "theirs").rglob("*") if path.is_file())
    assert size > 10_000 * SIZE_PX, f"Cutana left {size} bytes"
    return {**found, "peer_version": said([python, "-c", version_of("cutana")])}


def scores(folder: Path, tiles: Path, envs: Path, rounds: int) -> dict[str, Any]:
    """The shipped ground finder over 20,000 stamps, from an array on disk to an array of scores."""
    model = find_model("ground-gri")
    from lenspipe.infer.prepare import cutout_size_px
    from lenspipe.nn.card import read_card

    card = read_card(model)
    side = cutout_size_px(card, 0.2)
    stamps = np.random.default_rng(0).normal(20, 60, (N_STAMP, len(card.bands), side, side)).astype(np.float32)
    np.save(folder / "stamps.npy", stamps)
    mine, theirs = (
        [sys.executable, str(SCRIPTS / script), str(model), "stamps.npy", out]
        for script, out in (("lenspipe_score.py", "ours.npy"), ("torch_loop.py", "theirs.npy"))
    )
    found = compared([mine], [theirs], folder, rounds, [])
    difference = float(np.abs(np.load(folder / "ours.npy") - np.load(folder / "theirs.npy")).max())
    assert difference < 1e-4, difference
    return {**found, "stamps": N_STAMP, "largest_difference_of_scores": difference, "peer_version": said_torch()}


def written(folder: Path, tiles: Path, envs: Path, rounds: int) -> dict[str, Any]:
    """A HATS tree of 200,000 candidates; lenspipe merges sources that two shards have, which hats-import does not."""
    make_run(folder / "run", N_ROW)
    python = python_of(envs, "hats-import")
    mine = [sys.executable, str(SCRIPTS / "lenspipe_catalog.py"), "run", "ours"]
    theirs = [python, str(SCRIPTS / "hats_import_write.py"), str(folder / "run" / "candidates.parquet"), "theirs"]
    found = compared([mine], [theirs], folder, rounds, ["ours", "theirs"])
    rows = {
        side: sum(pq.read_metadata(path).num_rows for path in (folder / side).rglob("Npix=*.parquet"))
        for side in ("ours", "theirs")
    }
    assert rows["theirs"] == N_ROW and 0.9 * N_ROW < rows["ours"] <= N_ROW, rows
    return {**found, "rows": rows, "peer_version": said([python, "-c", version_of("hats-import")])}


def simulation(folder: Path, tiles: Path, envs: Path, rounds: int) -> dict[str, Any]:
    """A lens of 64 px in three bands, in memory."""
    import lenstronomy

    models = lenstronomy_models()

    def theirs() -> list[Any]:
        return [model.image(**kwargs) for model, kwargs in models]

    seconds = rounds_s({"lenspipe": ours, "peer": theirs}, 15)
    best = {f"{side}_cpu_s": round(min(ones), 5) for side, ones in seconds.items()}
    ratio = min(seconds["peer"]) / min(seconds["lenspipe"])
    return {**best, "ratio": round(ratio, 2), "peer_version": lenstronomy.__version__}


TASKS: dict[str, tuple[str, Callable[[Path, Path, Path, int], dict[str, Any]]]] = {
    "tile to a measured four-band catalogue": ("source-extractor, dual-image mode", catalogue),
    "10,000 cutouts of given positions": ("Cutana", cutouts),
    "20,000 stamps scored by the same network": ("plain PyTorch loop", scores),
    "a HATS catalogue of 200,000 rows": ("hats-import", written),
    "a simulated three-band lens": ("lenstronomy SimAPI", simulation),
}
NOT_COMPARED = {
    "hyrax": "its infer verb over the same stamps was not set up",
    "SLSim": "it draws populations, and images by SimAPI, which is compared",
    "hats-import, append": "it imports onto pixels that are there, and does not know rows that are there already",
}


def said(command: Command) -> str:
    """First line that a command says."""
    done = subprocess.run(list(command), capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def version_of(name: str) -> str:
    """Python that prints the version of a package."""
    return f"from importlib.metadata import version; print(version({name!r}))"


def said_torch() -> str:
    """Version of torch, of both sides."""
    from importlib.metadata import version

    return version("torch")


@click.command()
@click.option("--tiles", type=click.Path(exists=True, path_type=Path), required=True, help="ugri of a KiDS tile.")
@click.option("--envs", type=click.Path(path_type=Path), required=True, help="Environments of the peers.")
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--only", multiple=True, help="Peers, by a word of their name.")
@record.keep_option
def main(tiles: Path, envs: Path, rounds: int, only: tuple[str, ...], keep: bool) -> None:
    """Compare with each peer that can be had."""
    table: list[dict[str, Any]] = []
    for task, (peer, compare) in TASKS.items():
        if only and not any(word in peer for word in only):
            continue
        with tempfile.TemporaryDirectory(prefix="peers-") as folder:
            try:
                row = compare(Path(folder), tiles.resolve(), envs.resolve(), rounds)
            except (RuntimeError, OSError, ImportError) as error:
                row = {"error": str(error)}
        table.append({"task": task, "peer": peer, **row})
        print(pa.table({k: [str(v)] for k, v in table[-1].items()}).to_pylist()[0], flush=True)
    result = {"table": table, "not_compared": NOT_COMPARED, "load_at_the_end": round(os.getloadavg()[0], 2)}
    aims = [record.at_least(f"over {row['peer']}: {row['task']}", row.get("ratio", 0.0), 1.0) for row in table]
    record.write("peers", result, aims, keep=keep and not only)


if __name__ == "__main__":
    main()
