"""Bologna Lens Challenge 1 (Metcalf et al. 2019, A&A 625, A119): folders of FITS stamps, masked pixels are 100."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.catalog import Catalog, read_catalog
from lenspipe.stamps.readers.planes import MAGGIE_NJY, native
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.readers.walk import files_matching
from lenspipe.stamps.spec import ImageSpec
from lenspipe.survey.files import open_fits
from lenspipe.toml import Table

MASKED = 100.0
"""Value of a masked pixel; real pixels are around 1e-12 maggies."""
FILE = re.compile(r"image(?P<prefix>SDSS_(?P<letter>[UGRI])|EUC_VIS)-(?P<id>\d+)\.fits")
GROUND = ImageSpec(("u", "g", "r", "i"), 101, 0.2)
SPACE = ImageSpec(("VIS",), 101, 0.1)
CLASSES = {"lens": "lens", "lenses": "lens", "nolens": "nonlens", "nolenses": "nonlens", "nonlens": "nonlens"}
PREFIX = {"u": "SDSS_U", "g": "SDSS_G", "r": "SDSS_R", "i": "SDSS_I", "VIS": "EUC_VIS"}


class Bologna1Options(Table):
    """Options of the reader."""

    catalogue: str = ""
    """CSV with ID and is_lens, relative to the folder; where empty, ``classifications.csv`` if there is one,
    else folders named lens and nolens give the class."""


def read_bologna1(folder: Path, options: Bologna1Options) -> StampStream:
    """
    Stamps of the ground (u g r i, 0.2") or the space set (VIS, 0.1") in nJy.

    Bands are taken from the file names (``imageSDSS_R-100002.fits``), not from the numbers of the ``Band`` folders,
    and stored in order of wavelength. Pixels are maggies, as KiDS publishes them. Masked pixels (100) become 0 and
    count in ``mask_fraction_<band>``; a band that is masked whole has 1 there.

    Raises
    ------
    ConfigError
        No stamps of the challenge in this folder, or ground and space mixed.
    """
    folders, found = _find(folder)
    sets = {band == "VIS" for _, band in folders}
    if len(sets) != 1:
        what = "both ground and space stamps: convert one folder at a time" if sets else "no Bologna 1 stamps"
        raise ConfigError(
            f"{what} (imageSDSS_R-<ID>.fits in Band folders, or imageEUC_VIS-<ID>.fits)", folder=str(folder)
        )
    spec = SPACE if sets == {True} else GROUND
    catalogue = _catalog(folder, options)
    kind = "space" if spec is SPACE else "ground"

    def read(item: tuple[Path, str]) -> LabelledStamp:
        top, number = item
        planes = [_plane(folders, top, band, number) for band in spec.bands]
        row = catalogue.row(number) if catalogue else None
        if catalogue and row is None:
            raise DataError("the stamp is not in the catalogue", stamp=number)
        label = ("lens" if row["is_lens"] else "nonlens") if row else _class_of(top, folder)
        name = f"bologna1-{kind}/{number}"
        return LabelledStamp(name, {"image": np.stack(planes)}, label, name, row or {})

    extra = catalogue.fields(leave_out=("ID", "is_lens")) if catalogue else []
    return stream_stamps("bologna1", {"image": spec}, extra, found, read, n=len(found))


def _find(folder: Path) -> tuple[dict[tuple[Path, str], Path], list[tuple[Path, str]]]:
    """Return the folder of each ``(set, band)``, and ``(set, ID)`` of each stamp by its r or VIS file."""
    folders: dict[tuple[Path, str], Path] = {}
    stamps: list[tuple[Path, str]] = []
    for here, match in files_matching(folder, FILE):
        band = match["letter"].lower() if match["letter"] else "VIS"
        top = here.parent if here.name.startswith("Band") else here
        folders[top, band] = here
        if band in ("r", "VIS"):
            stamps.append((top, match["id"]))
    return folders, stamps


def _catalog(folder: Path, options: Bologna1Options) -> Catalog | None:
    if options.catalogue:
        return read_catalog(folder / options.catalogue, "ID")
    default = folder / "classifications.csv"
    return read_catalog(default, "ID") if default.exists() else None


def _class_of(top: Path, folder: Path) -> str | None:
    for part in reversed(top.relative_to(folder.parent).parts):
        if part.lower() in CLASSES:
            return CLASSES[part.lower()]
    return None


def _plane(folders: dict[tuple[Path, str], Path], top: Path, band: str, number: str) -> np.ndarray:
    if (top, band) not in folders:
        raise DataError("the stamp has no file in this band", stamp=number, band=band)
    file = str(folders[top, band] / f"image{PREFIX[band]}-{number}.fits")
    with open_fits(file) as hdus:
        pixels = native(hdus[0].data)
    return np.where(pixels == MASKED, np.nan, pixels * MAGGIE_NJY)
