"""
What checking FITS checksums adds to a scan without scores, in CPU seconds of one core, and per GB of pixels.

    python -m benchmarks.checksum_cost TILE

TILE is an image of a survey, of which three files are made that hold the same pixels: plain with DATASUM, compressed
without loss with ZDATASUM alone, and compressed with both. Each is measured as one shard, its checksums being checked
as ``none``, ``damage`` (the default) and ``any``; every round reads a file of its own, as a scan reads each file once.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from astropy.io import fits

from benchmarks import record
from benchmarks.timing import rounds_s
from lenspipe.image.sky import subtract_sky
from lenspipe.scan.config import DetectConfig
from lenspipe.scan.measure import measure_window
from lenspipe.survey.files import find_files
from lenspipe.survey.layout import read_layout
from lenspipe.survey.read import read_facts, read_window
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import Tile, group_tiles

ROUNDS = 9
CHECKS = ("none", "damage", "any")
AIM = 0.05


def files_of(tile: Path, folder: Path) -> dict[str, Path]:
    """The three files."""
    with fits.open(tile) as hdus:
        image = next(np.asarray(hdu.data, np.float32) for hdu in hdus if hdu.data is not None)
        header = next(hdu.header for hdu in hdus if hdu.data is not None).copy()
    header["BUNIT"] = "nJy"
    plain = fits.PrimaryHDU(image, header)
    plain.add_checksum()
    made = {"plain": fits.HDUList([plain])}
    for name in ("lossless", "lossless, both"):
        packed = fits.CompImageHDU(image, plain.header, compression_type="GZIP_2", quantize_level=0)
        made[name] = fits.HDUList([fits.PrimaryHDU(), packed])
    paths = {}
    for name, hdus in made.items():
        paths[name] = folder / f"{name.replace(', ', '_')}_r.fits"
        hdus.writeto(paths[name])
        with fits.open(paths[name], mode="update", disable_image_compression=True) as written:
            if name != "plain":
                written[1].header["ZDATASUM"] = plain.header["DATASUM"]
                written[1].header["ZHECKSUM"] = plain.header["CHECKSUM"]
            if name == "lossless, both":
                written[1].add_checksum()
    return paths


def scan_of(path: Path, checks: str, numbers: itertools.count[int]) -> Callable[[], int]:
    """Open, read, subtract the sky, detect and measure: all that a shard without a model does."""
    layout = read_layout("generic").model_copy(update={"checksums": checks})

    def call() -> int:
        new = path.with_name(f"{next(numbers)}_r.fits")
        new.hardlink_to(path)
        try:
            (tile,) = group_tiles(find_files([str(new)]), layout)
            assert isinstance(tile, Tile), tile
            facts = read_facts(tile, layout, assumed_zero_point_ab=None)
            box = Box(0, 0, facts.shape[1], facts.shape[0])
            pixels = read_window(tile, facts, layout, box)
            flat = subtract_sky(pixels.image, pixels.mask, bands=pixels.bands, mesh_px=64, filter_mesh=3)
            return len(measure_window(flat, pixels, DetectConfig(), core=box, window=box).core.sources.x_px)
        finally:
            new.unlink()

    return call


@click.command()
@click.argument("tile", type=click.Path(exists=True, path_type=Path))
@record.keep_option
def main(tile: Path, keep: bool) -> None:
    """Measure on TILE: r.fits of the KiDS tile in the record."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        paths = files_of(tile, Path(folder))
        calls = {(name, checks): scan_of(path, checks, numbers) for name, path in paths.items() for checks in CHECKS}
        n_source = {key: call() for key, call in calls.items()}
        assert len(set(n_source.values())) == 1, n_source
        seconds = rounds_s({f"{name}: {checks}": call for (name, checks), call in calls.items()}, ROUNDS)
        size_gb = 4e-9 * np.prod(fits.getdata(paths["plain"]).shape)
        result: dict[str, Any] = {"sources": n_source["plain", "none"], "pixels_gb": round(size_gb, 4), "files": {}}
        for name, path in paths.items():
            without = seconds[f"{name}: none"]
            result["files"][name] = {"bytes": path.stat().st_size, "none_cpu_s": [round(s, 3) for s in without]}
            for checks in CHECKS[1:]:
                more = [a - b for a, b in zip(seconds[f"{name}: {checks}"], without, strict=True)]
                added = statistics.median(more)
                result["files"][name][checks] = {
                    "added_cpu_s": round(added, 3),
                    "added_part": round(added / statistics.median(without), 3),
                    "cpu_s_per_gb": round(added / size_gb, 2),
                }
    parts = {name: facts["damage"]["added_part"] for name, facts in result["files"].items()}
    aims = [
        record.at_most(f"part that the default adds to a scan without scores, {k}", v, AIM) for k, v in parts.items()
    ]
    record.write("checksum_cost", result, aims, keep=keep)


if __name__ == "__main__":
    main()
