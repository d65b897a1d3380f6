"""
How long does it take to cut 10,000 stamps of 64 px out of one tile, from the shell's prompt to the files?

`python -m benchmarks.cut_speed` writes `results/cut_speed.json`. A tile of one band is made (2600 x 2600 px, compressed
as KiDS's are); the command `lenspipe stamps cut` is run as a process, with and without the sky, into Parquet and npy;
beside it a short script with `astropy.nddata.Cutout2D`, to the same npy. Processor seconds of whole processes are
counted, the fastest of several rounds, so other work on the machine disturbs little; on an idle machine they are wall
seconds.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from benchmarks import record

SIDE_PX, N, SIZE_PX, ROUNDS, AIM_S = 2600, 10_000, 64, 3, 3.5
LIKE_FOR_LIKE = """
import sys
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
file, positions, size, out = sys.argv[1:]
ra, dec = np.loadtxt(positions, delimiter=",", skiprows=1, unpack=True)
with fits.open(file) as hdus:
    image, wcs = np.asarray(hdus[1].data), WCS(hdus[1].header)
sky = SkyCoord(ra, dec, unit="deg")
cuts = [Cutout2D(image, one, int(size), wcs=wcs, mode="partial", fill_value=0).data for one in sky]
np.save(out, np.stack(cuts))
"""


def make(folder: Path) -> None:
    """A tile of noise, and positions on it."""
    rng = np.random.default_rng(5)
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"], header["CRVAL1"], header["CRVAL2"] = "RA---TAN", "DEC--TAN", 180.0, 0.5
    header["CRPIX1"] = header["CRPIX2"] = (SIDE_PX + 1) / 2
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -0.2 / 3600, 0.0, 0.0, 0.2 / 3600
    header["BUNIT"] = "nJy"
    image = rng.normal(0, 10, (SIDE_PX, SIDE_PX)).astype(np.float32)
    fits.CompImageHDU(image, header, compression_type="RICE_1").writeto(folder / "tile_i.fits")
    at = rng.uniform(SIZE_PX, SIDE_PX - SIZE_PX, (2, N))
    ra, dec = WCS(header).all_pix2world(*at, 0)
    np.savetxt(folder / "list.csv", np.c_[ra, dec], fmt="%.8f", delimiter=",", header="ra,dec", comments="")


def cpu_s(command: list[str]) -> float:
    """Processor seconds of a process and what it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@click.command()
@record.keep_option
def main(keep: bool) -> None:
    """Time whole processes, taking turns."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "out"
        make(folder)
        common = [sys.executable, "-m", "lenspipe", "stamps", "cut", str(folder / "tile_i.fits"), "--survey", "generic"]
        common += [
            "--positions",
            str(folder / "list.csv"),
            "--size",
            str(SIZE_PX),
            "--split",
            "none",
            "--out",
            str(out),
        ]
        commands = {
            f"{form}_sky_{sky}": [*common, "--format", form, "--sky", sky]
            for form in ("npy", "parquet")
            for sky in ("keep", "subtract")
        }
        reference = [sys.executable, "-c", LIKE_FOR_LIKE, str(folder / "tile_i.fits"), str(folder / "list.csv")]
        commands["astropy_cutout2d_npy"] = [*reference, str(SIZE_PX), str(folder / "reference.npy")]
        for _ in range(ROUNDS):
            for label, command in commands.items():
                shutil.rmtree(out, ignore_errors=True)
                found.setdefault(label, []).append(cpu_s(command))
                if label == "npy_sky_keep":
                    shutil.copy(out / "part-000000.npy", folder / "ours.npy")
        ours, theirs = np.load(folder / "ours.npy")[:, 0], np.load(folder / "reference.npy")
        same = (ours == theirs).mean(axis=(1, 2)) == 1
        # of an even side Cutout2D takes another pixel of the four in the middle for most positions
        assert same.mean() > 0.2, same.mean()
    best = {label: round(min(seconds), 2) for label, seconds in found.items()}
    result = {"stamps": N, "size_px": SIZE_PX, "bands": 1, "cpu_s_of_whole_process": best}
    result["astropy_over_npy_sky_keep"] = round(best["astropy_cutout2d_npy"] / best["npy_sky_keep"], 2)
    what = "processor seconds of the whole process, sky subtracted"
    aims = [
        record.at_most(f"{what}, npy", best["npy_sky_subtract"], AIM_S),
        record.at_most(f"{what}, Parquet", best["parquet_sky_subtract"], AIM_S + 1),
    ]
    record.write("cut_speed", result, aims, keep=keep)


if __name__ == "__main__":
    main()
