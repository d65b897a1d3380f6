"""A tile from its files to denoised FITS files: one a band, with WCS, unit, flags and history."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe import __version__
from lenspipe.errors import ModelError, TileError
from lenspipe.infer.denoise import FLAG_BOUND, FLAG_BRIGHT, FLAG_MASKED, Denoiser, denoise_tile
from lenspipe.nn.card import verdict
from lenspipe.rundir import atomic_path
from lenspipe.scan.context import ScanContext
from lenspipe.scan.read import facts_of, flatten, read_shard, task_of
from lenspipe.survey.read import TileFacts
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import Tile


@dataclass(frozen=True)
class DenoisedTile:
    """What came of a tile."""

    files: tuple[Path, ...]
    n_px: int
    seconds: float
    """Of the network and its windows; reading and writing are not counted."""
    masked_fraction: float
    bright_fraction: float
    bound_fraction: float


def outside_training(denoiser: Denoiser, ratio: float) -> bool:
    """Whether the exposure ratio is not one of those that the model was trained with; 1 changes nothing and is fine."""
    low, high = denoiser.exposure_ratios
    return ratio != 1 and not low <= ratio <= high


def file_of(folder: Path, tile: str, band: str) -> Path:
    """Where a band of a tile goes."""
    return folder / f"{tile}_{band}.fits"


def denoise_files(
    tile: Tile, context: ScanContext, denoiser: Denoiser, folder: Path, *, ratio: float, window_px: int
) -> DenoisedTile:
    """
    Denoise the model's bands of a tile and write them.

    The whole tile is held in memory: about 40 bytes per pixel and band. The sky and its noise are measured as a scan
    does; the sky is put back. Masked pixels come out as NaN: what they hold is never seen nor smeared.

    Raises
    ------
    TileError
        The tile cannot be read, or its bands or pixel scale do not fit the model.
    """
    facts = facts_of(tile, context)
    bands = tuple(band.band for band in tile.bands)
    try:
        order = denoiser.order(bands, facts.pixel_scale_arcsec)
    except ModelError as error:
        raise TileError(error.message, tile=tile.name, file=tile.file) from error
    height, width = facts.shape
    read = read_shard(task_of(tile, Box(0, 0, width, height)), context, facts=facts)
    measured = read.pixels.image[order].copy()
    flat = flatten(read, context)
    begun = time.perf_counter()
    sky_free, rms, mask = flat.image[order], np.stack([flat.rms[b] for b in order]), flat.mask[order]
    image, flags = denoise_tile(denoiser, sky_free, rms, mask, ratio=ratio, window_px=window_px)
    seconds = time.perf_counter() - begun
    image += measured - sky_free
    image[mask] = np.nan
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for k, b in enumerate(order):
        path = file_of(folder, tile.name, bands[b])
        _write(path, image[k], flags[k], bands[b], tile, facts, denoiser, ratio)
        files.append(path)
    part = [float(((flags & bit) != 0).mean()) for bit in (FLAG_MASKED, FLAG_BRIGHT, FLAG_BOUND)]
    return DenoisedTile(tuple(files), image.size, seconds, *part)


def _write(
    path: Path,
    image: NDArray[np.float32],
    flags: NDArray[np.uint8],
    band: str,
    tile: Tile,
    facts: TileFacts,
    denoiser: Denoiser,
    ratio: float,
) -> None:
    header = facts.wcs.to_header(relax=True)
    header["BUNIT"] = ("nJy", "flux a pixel")
    header["FILTER"] = band
    header["DNMODEL"] = (denoiser.card.name, "denoiser")
    header["DNDIGEST"] = (denoiser.digest, "of its weights and card")
    header["DNRATIO"] = (ratio, "exposure time of this image over the input's")
    header["DNEXTRAP"] = (outside_training(denoiser, ratio), "ratio outside the training")
    header["DNGATE"] = (verdict(denoiser.card), "verdict of the gate")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    header.add_history(f"lenspipe {__version__} denoise {now}: {denoiser.card.name}, exposure ratio {ratio:g}")
    source = next(b.image.file for b in tile.bands if b.band == band)
    header.add_history(f"from {Path(source).name}")
    header.add_history("masked pixels are NaN; noise is no longer independent from pixel to pixel")
    plane = fits.ImageHDU(flags, facts.wcs.to_header(relax=True), name="FLAGS")
    for number, (bit, what) in enumerate(
        [(FLAG_MASKED, "masked"), (FLAG_BRIGHT, "brighter than training"), (FLAG_BOUND, "changed by the bound")]
    ):
        plane.header[f"FLAG{number}"] = (bit, what)
    with atomic_path(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, header, name="IMAGE"), plane]).writeto(
            temporary, overwrite=True, checksum=True
        )
