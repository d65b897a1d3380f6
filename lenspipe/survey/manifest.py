"""A manifest of tiles: a CSV or Parquet table with columns tile, band, image and, optionally, weight and mask."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from lenspipe.errors import ConfigError
from lenspipe.store.urls import demand_no_secrets, is_url, local_path, url_filesystem
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.tile import BadTile, BandFiles, Plane, Tile, tiles_of

REQUIRED, OPTIONAL = ("tile", "band", "image"), ("weight", "mask")
_AS_TEXT = pa.csv.ConvertOptions(column_types={name: pa.string() for name in (*REQUIRED, *OPTIONAL)})
"""A tile named 0012 is not 12."""


def is_manifest(path: str) -> bool:
    """Whether a request names a manifest rather than images."""
    return path.endswith((".csv", ".parquet"))


def read_manifest(path: str, layout: SurveyLayout) -> list[Tile | BadTile]:
    """
    Tiles of a manifest; relative file names are relative to the manifest's folder.

    HDUs of image, weight and mask are those of the layout's first file rule. Empty weights and masks are none; spaces
    around a value do not count.

    Raises
    ------
    ConfigError
        The table cannot be read, has no rows, lacks a required column (the columns found are named), or has a row
        without a value that it needs, or an image twice.
    """
    demand_no_secrets(path)
    table = _read(path)
    missing = [c for c in REQUIRED if c not in table.column_names]
    if missing or not table.num_rows:
        raise ConfigError(
            "a manifest needs columns tile, band, image (weight and mask if there are any) and at least one row",
            file=path,
            missing=", ".join(missing),
            columns=", ".join(table.column_names),
            rows=table.num_rows,
        )
    rule, folder = layout.files[0], _folder(path)
    groups: dict[str, list[BandFiles]] = {}
    seen: dict[tuple[str, str, str], int] = {}
    known = [c for c in (*REQUIRED, *OPTIONAL) if c in table.column_names]
    for n, row in enumerate(table.select(known).to_pylist(), 1):
        values = {key: "" if value is None else str(value).strip() for key, value in row.items()}
        empty = [key for key in REQUIRED if not values[key]]
        if empty:
            raise ConfigError(f"row {n} of the manifest has no {' and no '.join(empty)}", file=path, row=n)
        image = _resolve(values["image"], folder)
        band = layout.band_names.get(values["band"], values["band"])
        before = seen.setdefault((values["tile"], band, image), n)
        if before != n:
            raise ConfigError(
                f"rows {before} and {n} of the manifest are the same image of the same tile and band; remove one",
                file=path,
                tile=values["tile"],
                band=band,
            )
        planes = {
            "weight": _plane(values.get("weight"), rule.weight_hdu, folder, image),
            "mask": _plane(values.get("mask"), rule.mask_hdu, folder, image),
        }
        files = BandFiles(band, Plane(image, rule.image_hdu), **planes, pixel_scale_arcsec=rule.pixel_scale_arcsec)
        groups.setdefault(values["tile"], []).append(files)
    return tiles_of(groups)


def _read(path: str) -> pa.Table:
    try:
        with _open(path) as stream:
            if path.endswith(".csv"):
                table = pa.csv.read_csv(stream, convert_options=_AS_TEXT)
                table.column_names  # noqa: B018  raises for names that are no UTF-8
                return table
            return pq.read_table(stream, page_checksum_verification=True)
    except ConfigError:
        raise
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the manifest: {error}", file=path) from error
    except Exception as error:
        if not is_url(path):
            raise
        raise ConfigError(f"cannot read the manifest ({type(error).__name__}: {error})", file=path) from error


def _open(path: str) -> Any:
    if not is_url(path):
        return open(path, "rb")
    filesystem, inside = url_filesystem(path)
    return filesystem.open(inside, "rb")


def _folder(path: str) -> str:
    return path.rsplit("/", 1)[0] if is_url(path) else os.path.dirname(os.path.abspath(path))


def _plane(name: str | None, hdu: int | str | None, folder: str, image: str) -> Plane | None:
    if not name:
        return None
    file = _resolve(name, folder)
    return Plane(file, hdu if file == image else None)


def _resolve(name: str, folder: str) -> str:
    demand_no_secrets(name)
    if is_url(name):
        return local_path(name) if name.startswith("file://") else name
    return f"{folder}/{name}" if is_url(folder) else os.path.abspath(os.path.join(folder, name))
