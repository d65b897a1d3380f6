"""LSST Strong Lensing Data Challenge 2025 (slchallenge.cbpf.br): one FITS table a stamp and band."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.planes import native
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.readers.walk import files_matching
from lenspipe.stamps.spec import ImageSpec
from lenspipe.survey.files import open_fits
from lenspipe.toml import Table
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

BANDS = ("g", "r", "i", "z", "y")
SIZE_PX, PIXEL_SCALE_ARCSEC = 41, 0.2
SETS = {f"{origin}_{kind}es": (origin, kind) for origin in ("slsim", "hsc") for kind in ("lens", "nonlens")}
FILE = re.compile(r"(?P<stem>.+)_g\.fits")
ORIGIN = pa.field("origin", pa.string(), metadata={"description": "slsim or hsc; null for the blind set"})


class Lsst2025Options(Table):
    """Options of the reader."""

    zero_point_ab: float | None = None
    """AB zero-point of the pixels. The files state none: without it the unit is ``challenge flux``."""
    bands: tuple[str, ...] = BANDS
    """Bands to read, of g r i z y."""


def read_lsst2025(folder: Path, options: Lsst2025Options) -> StampStream:
    """
    Stamps of 41 px at 0.2" in g r i z y: SLSim in DP0 and degraded HSC, lenses and non-lenses.

    Folders ``{slsim,hsc}_{lenses,nonlenses}``, each as unpacked (the archive holds a second folder of the same name),
    with files ``D1_L_00047336_g.fits``: one table row of an object name and 1681 pixels. Files in other folders are
    the blind set: their label is null. The column ``origin`` tells slsim from hsc. The two broken files of the
    published set are dropped and named. The ``parameters.fits`` tables are not read.

    Raises
    ------
    ConfigError
        No stamps of the challenge in this folder.
    """
    found = [(here, match["stem"]) for here, match in files_matching(folder, FILE)]
    if not found:
        raise ConfigError("no stamps named <set>_<number>_g.fits in this folder", folder=str(folder))
    scale, unit = 1.0, "challenge flux"
    if options.zero_point_ab is not None:
        scale, unit = 10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - options.zero_point_ab)), "nJy"
    spec = ImageSpec(options.bands, SIZE_PX, PIXEL_SCALE_ARCSEC, unit)

    def read(item: tuple[Path, str]) -> LabelledStamp:
        here, stem = item
        rows = [_row(here / f"{stem}_{band}.fits") for band in options.bands]
        objects = {name for name, _ in rows}
        if len(objects) != 1:
            raise DataError(
                "the bands of a stamp name different objects", stamp=stem, objects=",".join(sorted(objects))
            )
        origin, label = next((SETS[part] for part in reversed(here.parts) if part in SETS), (None, None))
        name = f"lsst2025/{here.name}/{stem}"
        host = f"lsst2025/{origin or here.name}/{objects.pop() or stem}"
        pixels = np.stack([pixels for _, pixels in rows]) * np.float32(scale)
        return LabelledStamp(name, {"image": pixels}, label, host, {"origin": origin})

    return stream_stamps("lsst2025", {"image": spec}, [ORIGIN], found, read, n=len(found))


def _row(file: Path) -> tuple[str, NDArray[np.float32]]:
    with open_fits(str(file)) as hdus:
        row = hdus[1].data[0]
        values = [row[i] for i in range(len(row))]
    name = next((v.strip() for v in values if isinstance(v, str)), "")
    pixels = next((native(v) for v in values if not isinstance(v, str) and np.size(v) == SIZE_PX**2), None)
    if pixels is None:
        raise DataError("the file has no image of 41 x 41 pixels", file=file.name)
    return name, pixels.reshape(SIZE_PX, SIZE_PX)
