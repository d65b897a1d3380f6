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

import json
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
from benchmarks import simulate_speed as lens
from benchmarks.catalog_speed import make_run
from benchmarks.cut_speed import SIZE_PX, make
from benchmarks.detection_speed import PARAMETERS, PYRAMID
from benchmarks.timing import rounds_s
from lenspipe.nn.card import find_model
from lenspipe.simulate.instrument import gaussian_kernel
from lenspipe.simulate.photometry import njy_of_magnitude

PEERS = {
    "cutana": ("cutana==0.4.0",),
    "hats-import": ("hats-import==0.11.1",),
    "hyrax": ("hyrax==0.13",),
    "caustics": ("caustics==1.7.1",),
    # with a newer lenstronomy it fails; the others it imports and does not name
    "slsim": ("slsim==0.1.1", "lenstronomy==1.13.0", "colossus", "sncosmo", "speclite", "skypy", "pandas"),
}
SCRIPTS = Path(__file__).parent / "peer_scripts"
LENSPIPE = [sys.executable, "-m", "lenspipe"]
N_STAMP, N_ROW, BANDS, SCALE_ARCSEC = 20_000, 200_000, "ugri", 0.2
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
        for words in (
            ["venv", "-q", str(envs / name)],
            ["pip", "install", "-q", "--python", str(python), *PEERS[name]],
        ):
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
    model, _ = stamps_to_score(folder)
    theirs = [sys.executable, str(SCRIPTS / "torch_loop.py"), str(model), "stamps.npy", "theirs.npy"]
    found = compared([scoring(model)], [theirs], folder, rounds, [])
    return {**found, **same_scores(folder), "peer_version": said_torch()}


def hyrax_infer(folder: Path, tiles: Path, envs: Path, rounds: int) -> dict[str, Any]:
    """The same; hyrax is given the network traced and the stamps prepared, which is not counted."""
    import torch

    from lenspipe.infer.prepare import prepare_stamps
    from lenspipe.nn.checkpoint import load_model

    model, stamps = stamps_to_score(folder)
    network, card = load_model(model)
    prepared = prepare_stamps(stamps, cutout_scale_arcsec=SCALE_ARCSEC, card=card)
    np.save(folder / "prepared.npy", prepared)
    traced: Any = torch.jit.trace(network.eval(), torch.from_numpy(prepared[:2]), check_trace=False)  # type: ignore[no-untyped-call]
    traced.save(str(folder / "network.pt"))
    del prepared, network
    python = python_of(envs, "hyrax")
    theirs = [python, str(SCRIPTS / "hyrax_infer.py"), "network.pt", "prepared.npy", "theirs.npy"]
    found = compared([scoring(model)], [theirs], folder, rounds, [])
    return {**found, **same_scores(folder), "peer_version": said([python, "-c", version_of("hyrax")])}


def stamps_to_score(folder: Path) -> tuple[Path, Any]:
    """The shipped ground finder, and stamps of noise, which are also written."""
    from lenspipe.infer.prepare import cutout_size_px
    from lenspipe.nn.card import read_card

    model = find_model("ground-gri")
    card = read_card(model)
    side = cutout_size_px(card, SCALE_ARCSEC)
    stamps = np.random.default_rng(0).normal(20, 60, (N_STAMP, len(card.bands), side, side)).astype(np.float32)
    np.save(folder / "stamps.npy", stamps)
    return model, stamps


def scoring(model: Path) -> Command:
    """Our side of a comparison of scores."""
    return [sys.executable, str(SCRIPTS / "lenspipe_score.py"), str(model), "stamps.npy", "ours.npy"]


def same_scores(folder: Path) -> dict[str, Any]:
    """That both sides scored, and the same."""
    ours, theirs = np.load(folder / "ours.npy"), np.load(folder / "theirs.npy")
    assert len(ours) == len(theirs) == N_STAMP, (len(ours), len(theirs))
    difference = float(np.abs(ours - theirs).max())
    assert difference < 1e-4, difference
    return {"stamps": N_STAMP, "largest_difference_of_scores": difference}


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

    models = lens.lenstronomy_models()

    def theirs() -> list[Any]:
        return [model.image(**kwargs) for model, kwargs in models]

    seconds = rounds_s({"lenspipe": lens.ours, "peer": theirs}, 15)
    best = {f"{side}_cpu_s": round(min(ones), 5) for side, ones in seconds.items()}
    ratio = min(seconds["peer"]) / min(seconds["lenspipe"])
    return {**best, "ratio": round(ratio, 2), "peer_version": lenstronomy.__version__}


def slsim_lens(folder: Path, tiles: Path, envs: Path, rounds: int) -> dict[str, Any]:
    """The same lens by SLSim, which takes five rays by five per pixel where we take four by four."""
    light = {"center_x": 0, "center_y": 0, "vel_disp": 250, "stellar_mass": 1e11}
    deflector = light | {"z": 0.5, "theta_E": lens.MACRO["theta_e_arcsec"], "angular_size": 0.9, "n_sersic": 4.0}
    source = lens.SOURCE_PLACE | {"z": 2.0, "angular_size": 0.25, "n_sersic": 1.3, "ellipse": SOURCE_ELLIPSE}
    given = {
        "lens": deflector | {"mass_ellipse": ELLIPSE, "light_ellipse": ELLIPSE} | magnitudes(lens.LENS_MAG),
        "source": source | magnitudes(lens.SOURCE_MAG),
        "psf": {b: gaussian_kernel(f, lens.SCALE).tolist() for b, f in zip("gri", lens.SEEING, strict=True)},
        "zero_point_mag": 31.4,
    }
    return lens_by(envs, "slsim", given, folder)


def caustics_lens(folder: Path, tiles: Path, envs: Path, rounds: int) -> dict[str, Any]:
    """The same lens by caustics, which is made for GPUs, on a core."""
    given = {
        "lens": {"ellipse": ELLIPSE, "angular_size": 0.9, "n_sersic": 4.0, "center": [0, 0]},
        "source": {"angular_size": 0.25, "n_sersic": 1.3, "ellipse": SOURCE_ELLIPSE, "center": [0.25, 0.1]},
        "mass_ellipse": ELLIPSE,
        "theta_e_arcsec": lens.MACRO["theta_e_arcsec"],
        "fwhm_arcsec": lens.SEEING,
        "lens_flux": njy_of_magnitude(lens.LENS_MAG).tolist(),
        "source_flux": njy_of_magnitude(lens.SOURCE_MAG).tolist(),
    }
    return lens_by(envs, "caustics", given, folder)


ELLIPSE = (lens.MACRO["angle_rad"], lens.MACRO["axis_ratio"])
SOURCE_ELLIPSE = (0.2, 0.8)


def magnitudes(values: Sequence[float]) -> dict[str, float]:
    """Of g, r and i, as SLSim names them."""
    return {f"mag_{band}": value for band, value in zip("gri", values, strict=True)}


def lens_by(envs: Path, name: str, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fastest of some images in memory on both sides, which must agree to a hundredth of the flux."""
    shear = (lens.MACRO["shear_angle_rad"], lens.MACRO["shear"])
    same = {"shear": shear, "pixel_scale_arcsec": lens.SCALE, "size_px": lens.SIZE_PX}
    (folder / "lens.json").write_text(json.dumps(given | same))
    python = python_of(envs, name)
    words = [python, "-W", "ignore", str(SCRIPTS / f"{name}_lens.py"), "lens.json", "theirs.npy"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=alone())
    if done.returncode:
        raise RuntimeError(done.stderr[-600:])
    mine, theirs = lens.ours(), np.load(folder / "theirs.npy")
    difference = float((np.abs(mine - theirs).sum(axis=(1, 2)) / mine.sum(axis=(1, 2))).max())
    assert difference < 0.01, difference
    peer_s, ours_s = float(done.stdout.split()[-1]), min(rounds_s({"lenspipe": lens.ours}, 15)["lenspipe"])
    return {
        "lenspipe_cpu_s": round(ours_s, 5),
        "peer_cpu_s": round(peer_s, 5),
        "ratio": round(peer_s / ours_s, 2),
        "relative_difference": round(difference, 4),
        "peer_version": said([python, "-c", version_of(name)]),
    }


def alone() -> dict[str, str]:
    """Environment without our modules."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


TASKS: dict[str, tuple[str, Callable[[Path, Path, Path, int], dict[str, Any]]]] = {
    "tile to a measured four-band catalogue": ("source-extractor, dual-image mode", catalogue),
    "10,000 cutouts of given positions": ("Cutana", cutouts),
    "20,000 stamps scored by the same network": ("plain PyTorch loop", scores),
    "20,000 stamps scored by the same network, prepared for the peer": ("hyrax infer", hyrax_infer),
    "a HATS catalogue of 200,000 rows": ("hats-import", written),
    "a simulated three-band lens": ("lenstronomy SimAPI", simulation),
    "the same, from its parameters": ("SLSim", slsim_lens),
    "the same, on a core": ("caustics", caustics_lens),
}
NOT_COMPARED = {
    "SLSim's populations": "only its images are compared",
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
