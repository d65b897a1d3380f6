"""Background, detection and photometry of a 5200 px tile on one core: lenspipe against the source-extractor command."""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np
from astropy.io import fits
from scipy.spatial import cKDTree

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.image.sky import subtract_sky
from lenspipe.scan.config import DetectConfig
from lenspipe.scan.measure import measure_window
from lenspipe.survey.read import Pixels
from lenspipe.survey.shards import Box

REPEATS = 5
NJY_PER_MAGGY = 10**12.56
PARAMETERS = (
    "NUMBER X_IMAGE Y_IMAGE FLUX_AUTO FLUXERR_AUTO MAG_AUTO MAGERR_AUTO A_IMAGE B_IMAGE THETA_IMAGE "
    "FLUX_RADIUS KRON_RADIUS FLAGS ISOAREA_IMAGE"
)
PYRAMID = "CONV NORM\n1 2 1\n2 4 2\n1 2 1\n"


def ours(image: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds and positions; the image is in memory, as it is after a shard is read."""
    pixels = Pixels(("r",), image[None].copy(), (None,), np.zeros((1, *image.shape), bool))
    box = Box(0, 0, image.shape[1], image.shape[0])
    with Clock() as clock:
        flat = subtract_sky(pixels.image, pixels.mask, bands=pixels.bands, mesh_px=64, filter_mesh=3)
        measured = measure_window(flat, pixels, DetectConfig(), core=box, window=box).core
    return clock.cpu_s, np.c_[measured.sources.x_px, measured.sources.y_px]


def theirs(file: Path, folder: Path) -> tuple[float, np.ndarray]:
    """CPU seconds and positions of `source-extractor` with the same thresholds; it reads FITS and writes a table."""
    (folder / "p.param").write_text("\n".join(PARAMETERS.split()))
    (folder / "p.conv").write_text(PYRAMID)
    arguments = {
        "CATALOG_NAME": "out.fits",
        "CATALOG_TYPE": "FITS_1.0",
        "PARAMETERS_NAME": "p.param",
        "FILTER_NAME": "p.conv",
        "DETECT_THRESH": "1.5",
        "ANALYSIS_THRESH": "1.5",
        "DETECT_MINAREA": "5",
        "DEBLEND_NTHRESH": "32",
        "DEBLEND_MINCONT": "0.005",
        "BACK_SIZE": "64",
        "BACK_FILTERSIZE": "3",
        "PHOT_FLUXFRAC": "0.5",
        "MAG_ZEROPOINT": "31.4",
        "MEMORY_PIXSTACK": "3000000",
        "VERBOSE_TYPE": "QUIET",
        "NTHREADS": "1",
    }
    options = [word for key, value in arguments.items() for word in (f"-{key}", value)]
    before = os.times()
    subprocess.run(["source-extractor", str(file), "-c", "/dev/null", *options], cwd=folder, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    table = fits.getdata(folder / "out.fits", 1)
    return spent, np.c_[table["X_IMAGE"] - 1, table["Y_IMAGE"] - 1]


@click.command()
@click.argument("tile", type=click.Path(exists=True))
@record.keep_option
def main(tile: str, keep: bool) -> None:
    """Measure on TILE, an image in maggies: r.fits of the KiDS tile in every record."""
    image = np.ascontiguousarray(np.tile(fits.getdata(tile, 1) * NJY_PER_MAGGY, (2, 2)).astype("f4"))
    folder = Path(tempfile.mkdtemp(prefix="detection-speed-"))
    fits.writeto(folder / "mosaic.fits", image)
    ours(image), theirs(folder / "mosaic.fits", folder)
    pairs = [(ours(image), theirs(folder / "mosaic.fits", folder)) for _ in range(REPEATS)]
    mine, other = pairs[0][0][1], pairs[0][1][1]
    apart, _ = cKDTree(mine).query(other)
    ratios = [a[0] / b[0] for a, b in pairs]
    version = subprocess.run(["source-extractor", "--version"], capture_output=True, text=True).stdout.strip()
    result = {
        "pixels": list(image.shape),
        "lenspipe_cpu_s": [round(a[0], 2) for a, _ in pairs],
        "source_extractor_cpu_s": [round(b[0], 2) for _, b in pairs],
        "ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(r, 3) for r in ratios],
        "lenspipe_sources": len(mine),
        "source_extractor_sources": len(other),
        "of_theirs_found_by_ours_within_1px": round(float((apart < 1).mean()), 3),
        "version": version,
        "note": "CPU seconds, paired; source-extractor's include reading a plain FITS file and writing its table",
    }
    aims = [
        record.at_most("CPU over source-extractor's", result["ratio_median"], 1.0),
        record.at_least("of its sources found", result["of_theirs_found_by_ours_within_1px"], 0.9),
    ]
    record.write("detection_speed", result, aims, keep=keep)


if __name__ == "__main__":
    main()
