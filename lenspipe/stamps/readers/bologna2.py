"""Bologna Lens Challenge 2: VIS and J Y H stamps with a CSV of what was simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.catalog import Catalog, read_catalog
from lenspipe.stamps.readers.planes import native
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.spec import ImageSpec
from lenspipe.survey.files import open_fits
from lenspipe.toml import Table
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

NIR_BANDS = ("J", "Y", "H")


class Bologna2Options(Table):
    """Options of the reader."""

    catalogue: str = ""
    """CSV of the challenge, relative to the folder; the only CSV of the folder where empty."""
    zero_point_ab: float | None = None
    """AB zero-point of the pixels. The challenge states none: without it the unit is ``challenge flux``."""


def read_bologna2(folder: Path, options: Bologna2Options) -> StampStream:
    """
    Stamps of the second challenge: ``image_vis`` 200 px at 0.1" and ``image_nir`` J Y H 66 px at 0.3".

    Files are ``[Public/]EUC_{VIS,J,Y,H}/...-<ID>.fits``. A lens is what the challenge calls one:
    ``n_source_im > 0``, ``mag_eff > 1.6`` and ``n_pix_source > 20``. All columns of the catalogue are kept; without
    a catalogue (the blind set) labels are null.

    Raises
    ------
    ConfigError
        No stamps, several catalogues to choose from, or a catalogue without the columns that define a lens.
    """
    public = folder / "Public" if (folder / "Public").is_dir() else folder
    names = {band: _names_by_id(public / f"EUC_{band}") for band in ("VIS", *NIR_BANDS)}
    numbers = sorted(names["VIS"], key=int)
    if not numbers:
        raise ConfigError("no Bologna 2 stamps: EUC_VIS, EUC_J, EUC_Y and EUC_H are missing", folder=str(folder))
    scale, unit = 1.0, "challenge flux"
    if options.zero_point_ab is not None:
        scale, unit = 10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - options.zero_point_ab)), "nJy"
    images = {"image_vis": ImageSpec(("VIS",), 200, 0.1, unit), "image_nir": ImageSpec(NIR_BANDS, 66, 0.3, unit)}
    catalogue = _catalog(folder, options)

    def plane(band: str, number: str) -> np.ndarray:
        if number not in names[band]:
            raise DataError("the stamp has no file in this band", stamp=number, band=band)
        with open_fits(str(public / f"EUC_{band}" / names[band][number])) as hdus:
            return native(hdus[0].data) * np.float32(scale)

    def read(number: str) -> LabelledStamp:
        row = catalogue.row(number) if catalogue else None
        if catalogue and row is None:
            raise DataError("the stamp is not in the catalogue", stamp=number)
        pixels = {"image_vis": plane("VIS", number)[None], "image_nir": np.stack([plane(b, number) for b in NIR_BANDS])}
        name = f"bologna2/{number}"
        label = None if row is None else ("lens" if row.pop("_is_lens") else "nonlens")
        return LabelledStamp(name, pixels, label, name, row or {})

    extra = catalogue.fields(leave_out=("ID", "_is_lens")) if catalogue else []
    return stream_stamps("bologna2", images, extra, numbers, read, n=len(numbers))


def is_lens(table: pa.Table) -> pa.ChunkedArray:
    """The challenge's definition of a lens, one boolean a row of its catalogue."""
    images, magnified = pc.greater(table["n_source_im"], 0), pc.greater(table["mag_eff"], 1.6)
    return pc.and_(pc.and_(images, magnified), pc.greater(table["n_pix_source"], 20))


def _names_by_id(folder: Path) -> dict[str, str]:
    files = folder.glob("*.fits") if folder.is_dir() else []
    return {path.stem.rsplit("-", 1)[-1]: path.name for path in files}


def _catalog(folder: Path, options: Bologna2Options) -> Catalog | None:
    files = [folder / options.catalogue] if options.catalogue else sorted(folder.glob("*.csv"))
    if len(files) > 1:
        raise ConfigError("several catalogues: name one", option="catalogue", found=",".join(f.name for f in files))
    if not files:
        return None
    found = read_catalog(files[0], "ID")
    if missing := {"n_source_im", "mag_eff", "n_pix_source"} - set(found.table.schema.names):
        raise ConfigError(
            "the catalogue cannot tell what a lens is", file=str(files[0]), missing=",".join(sorted(missing))
        )
    return Catalog(found.table.append_column("_is_lens", is_lens(found.table)), found.row_of)
