"""Blends of many sizes, as scarlet's: one ``.npz`` each with pixels, inverse variance and peaks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.readers.walk import files_matching
from lenspipe.stamps.spec import ImageSpec
from lenspipe.toml import Table
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

FILE = re.compile(r"(?P<name>.+)\.npz")


class BlendsOptions(Table):
    """Options of the reader."""

    bands: tuple[str, ...]
    """Bands in the order of the first axis."""
    pixel_scale_arcsec: float
    """Pixel scale; the archives do not tell it."""
    zero_point_ab: float
    """AB zero-point of the pixels."""
    size_px: int = 65
    """Side of a stamp; what lies beyond the blend is masked."""
    peaks: Literal["brightest", "all"] = "brightest"
    """Peaks around which stamps are cut: the brightest of a blend in the sum of bands, or all of them."""
    label: str = ""
    """Class of every stamp; null where empty."""


def read_blends(folder: Path, options: BlendsOptions) -> StampStream:
    """
    Stamps in nJy around the peaks of blends; arrays ``images`` and ``weights`` (band, y, x), ``peaks`` (n, 2) as x, y.

    Pixels of weight 0 and those beyond the blend are masked. The host is the blend: stamps of one share pixels.

    Raises
    ------
    ConfigError
        No ``.npz`` below the folder.
    """
    files = [here / match.group() for here, match in files_matching(folder, FILE)]
    if not files:
        raise ConfigError("no .npz files below this folder", folder=str(folder))
    spec = ImageSpec(options.bands, options.size_px, options.pixel_scale_arcsec)
    factor = np.float32(10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - options.zero_point_ab)))
    broken: dict[Path, DataError] = {}
    n_peak: dict[Path, int] = {}
    for file in files:
        try:
            n_peak[file] = len(_open(file, options)[2])
        except DataError as error:
            broken[file] = error
    wanted = {file: 1 if file in broken or options.peaks == "brightest" else n_peak[file] for file in files}

    def read(item: _Item) -> LabelledStamp:
        file, number = item.file, item.number
        if file in broken:
            raise broken[file]
        pixels, lost, peaks = _open(file, options)
        name = file.relative_to(folder).with_suffix("").as_posix()
        order = np.argsort(-_brightness(pixels, lost, peaks), kind="stable")
        x, y = peaks[order[number]]
        side = 2 * (options.size_px // 2) + 1  # an even stamp lies half a pixel towards the origin
        cut, _ = extract_cutouts(pixels * factor, lost, np.array([x]), np.array([y]), size_px=side, fill=np.nan)
        return LabelledStamp(
            name if options.peaks == "brightest" else f"{name}-{number}",
            {"image": cut[0, :, : options.size_px, : options.size_px]},
            options.label or None,
            name,
            {"n_peak": len(peaks)},
        )

    extra = [pa.field("n_peak", pa.int32(), metadata={"unit": "1", "description": "peaks of the blend"})]
    items = [_Item(file, number) for file in files for number in range(wanted[file])]
    return stream_stamps("blends", {"image": spec}, extra, items, read, n=len(items))


@dataclass(frozen=True)
class _Item:
    file: Path
    number: int
    """Of the peak, the brightest is 0."""

    def __str__(self) -> str:
        return self.file.name


def _open(file: Path, options: BlendsOptions) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Pixels, where they are lost, and peaks as x, y."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            pixels, weights = (np.asarray(archive[key], np.float32) for key in ("images", "weights"))
            peaks = np.asarray(archive["peaks"], np.float64)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(f"not an archive of images, weights and peaks ({error})", file=file.name) from error
    if pixels.ndim != 3 or pixels.shape != weights.shape or len(pixels) != len(options.bands):
        raise DataError(
            "images and weights must be (band, y, x), one plane per band that is named",
            file=file.name,
            got=f"{pixels.shape}, {weights.shape}",
            bands=",".join(options.bands),
        )
    inside = peaks.ndim == 2 and peaks.shape[1] == 2 and len(peaks) > 0
    if not inside or (peaks < 0).any() or (peaks[:, ::-1] >= pixels.shape[1:]).any():
        raise DataError("peaks must be (n, 2), x and y within the image", file=file.name, got=str(peaks.shape))
    return pixels, ~(weights > 0) | ~np.isfinite(pixels), peaks


def _brightness(
    pixels: NDArray[np.float32], lost: NDArray[np.bool_], peaks: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum of bands in the 3 x 3 pixels around each peak, lost ones as 0."""
    whole = np.pad(np.where(lost, 0, pixels).sum(axis=0, dtype=np.float64), 1)
    x, y = np.minimum(np.floor(peaks + 0.5).astype(int), np.array(pixels.shape[:0:-1]) - 1).T
    return sum((whole[y + dy, x + dx] for dy in range(3) for dx in range(3)), start=np.zeros(len(peaks)))
