"""A manifest of tiles: a CSV or Parquet table with columns tile, band, image and, optionally, weight and mask."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from lenspipe.errors import ConfigError
from lenspipe.survey.files import is_url
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.tile import BadTile, BandFiles, Plane, Tile, _clean, _tile

REQUIRED, OPTIONAL = ("tile", "band", "image"), ("weight", "mask")
_AS_TEXT = pa.csv.ConvertOptions(column_types={name: pa.string() for name in (*REQUIRED, *OPTIONAL)})
"""A tile named 0012 is not 12."""


def is_manifest(path: str) -> bool:
    """Whether a request names a manifest rather than images."""
    return path.endswith((".csv", ".parquet"))


def read_manifest(path: str, layout: SurveyLayout) -> list[Tile | BadTile]:
    """
    Tiles of a manifest; relative file names are relative to the manifest's folder.

    HDUs of image, weight and mask are those of the layout's first file rule. Empty weights and masks are none.

    Raises
    ------
    ConfigError
        The table cannot be read, has no rows, or lacks a required column (the columns found are named).
    """
    try:
        table = pa.csv.read_csv(path, convert_options=_AS_TEXT) if path.endswith(".csv") else pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"cannot read the manifest: {error}", file=path) from error
    missing = [c for c in REQUIRED if c not in table.column_names]
    if missing or not table.num_rows:
        raise ConfigError(
            "a manifest needs columns tile, band, image (weight and mask if there are any) and at least one row",
            file=path,
            missing=", ".join(missing),
            columns=", ".join(table.column_names),
            rows=table.num_rows,
        )
    rule, folder = layout.files[0], os.path.dirname(os.path.abspath(path))
    groups: dict[str, list[BandFiles]] = {}
    for row in table.select([c for c in (*REQUIRED, *OPTIONAL) if c in table.column_names]).to_pylist():
        image = _resolve(str(row["image"]), folder)
        planes = {
            "weight": _plane(row.get("weight"), rule.weight_hdu, folder, image),
            "mask": _plane(row.get("mask"), rule.mask_hdu, folder, image),
        }
        band = layout.band_names.get(str(row["band"]), str(row["band"]))
        files = BandFiles(band, Plane(image, rule.image_hdu), **planes, pixel_scale_arcsec=rule.pixel_scale_arcsec)
        groups.setdefault(_clean(str(row["tile"])), []).append(files)
    return [_tile(name, list(members)) for name, members in sorted(groups.items())]


def _plane(name: object, hdu: int | str | None, folder: str, image: str) -> Plane | None:
    if not name:
        return None
    file = _resolve(str(name), folder)
    return Plane(file, hdu if file == image else None)


def _resolve(name: str, folder: str) -> str:
    return name if is_url(name) else os.path.abspath(os.path.join(folder, name))
