"""Write the page of a catalogue: data, sprite sheets, scripts."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.bands import colour_bands
from lenspipe.catalog import folder as names
from lenspipe.catalog.columns import KNOWN, bands_of
from lenspipe.catalog.gallery.likeness import Likeness, MapMethod, likeness_of
from lenspipe.catalog.gallery.queue import queued
from lenspipe.catalog.gallery.sprites import FLOOR, PER_SHEET, PER_SIDE, RANGE, encode, sheet
from lenspipe.catalog.gallery.stamps import cut_stamps
from lenspipe.catalog.read import best_rows
from lenspipe.catalog.records import catalog_record, run_of
from lenspipe.disk import demand_ours, locked_beside, replaced_folder
from lenspipe.errors import ConfigError
from lenspipe.image.contact import GAINS
from lenspipe.report.page import BASE_STYLE
from lenspipe.schema import anomaly_fields, ood_field
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.tile import Tile
from lenspipe.tables import demand_columns, read_parquet
from lenspipe.toml import validate

SOMETIMES = ("substructure_class", *(f.name for f in anomaly_fields()), ood_field().name)
"""Columns that are shown where a catalogue has them."""
PAGE, STYLE = Path(__file__).parent / "page", "style.css"
"""White balance: galaxies are red, so that equal gains show few colours."""


_WORDS = ("run_id", "candidate_id", "name", *KNOWN[:3], "tile")
_NUMBERS = (
    *("ra", "dec", "rank", "score", "probability", "prior", "n_detection", KNOWN[3], "half_light_radius_arcsec"),
    *("axis_ratio", "flags", "mask_fraction", "covered_fraction", "x_px", "y_px"),
    *(f"window_{edge}_px" for edge in ("x0", "y0", "x1", "y1")),
)
"""Columns of a catalogue that a page is made of, whoever wrote it."""


@dataclasses.dataclass(frozen=True)
class GalleryResult:
    """What a page holds."""

    index: Path
    n_row: int
    n_stamp: int
    reasons: dict[str, str]
    """Tile and reason, where stamps are missing."""


def write_gallery(
    catalogue: Path,
    *,
    count: int,
    stamp_px: int,
    stamp_arcsec: float,
    queue: int | None = None,
    grades: Sequence[str] = (),
    map_method: MapMethod = "auto",
    on_stamps: Callable[[int], None] = lambda n: None,
) -> GalleryResult:
    """
    Write ``gallery/index.html`` and what belongs to it into a catalogue folder; an older page is replaced.

    Parameters
    ----------
    catalogue : Path
        Folder of `write_catalog`.
    count : int
        The best so many rows; the others are not on the page.
    stamp_px : int
        Side of a stamp on the page, pixels.
    stamp_arcsec : float
        Side of a stamp on the sky.
    queue : int, optional
        Of the ``count`` rows only so many, those to look at next (`lenspipe.catalog.gallery.queue`), in that order.
    grades : sequence of path
        Files of the page from earlier rounds, for the queue.
    map_method : str
        How the map of a catalogue with vectors is made (`lenspipe.catalog.gallery.likeness`).
    on_stamps : callable
        Called with the number of stamps that were cut.

    Returns
    -------
    GalleryResult

    Raises
    ------
    ConfigError
        The folder holds no catalogue, or the sizes make no stamp.
    """
    if not (catalogue / names.PROVENANCE).exists():
        raise ConfigError("the folder holds no catalogue; make one by `lenspipe catalog`", catalogue=str(catalogue))
    if not (8 <= stamp_px <= 256 and 0 < stamp_arcsec <= 3600 and count > 0):
        raise ConfigError(
            "a page needs stamps of 8 to 256 pixels, a positive size on the sky and a count",
            stamp_px=stamp_px,
            stamp_arcsec=stamp_arcsec,
            count=count,
        )
    out = catalogue / names.GALLERY
    demand_ours(out, names.GALLERY_FILE.fullmatch)  # said before the stamps are cut
    with locked_beside(catalogue):
        record = catalog_record(catalogue / names.PROVENANCE)
        rows = best_rows(catalogue, count)
        demand_columns(rows, catalogue, words=_WORDS, numbers=[*_NUMBERS, *_magnitudes(rows.schema)])
        if queue is not None:
            rows = queued(rows, queue, grades)
        likeness = likeness_of(catalogue, rows, method=map_method)
        rows = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
        channels = colour_bands(bands_of(rows.schema))
        noise = _noise(read_parquet(catalogue / names.SHARDS), channels)
        codes = np.zeros((rows.num_rows, len(channels), stamp_px, stamp_px), np.uint8)
        has_stamp = np.zeros(rows.num_rows, bool)
        reasons: dict[str, str] = {}
        for run_id, tile, members in _tiles(catalogue, rows):
            run = run_of(record, run_id, catalogue)
            config = run["request"]["config"]
            for stamps in cut_stamps(
                members,
                tile,
                validate(run["request"]["survey"], SurveyLayout, origin=names.PROVENANCE),
                channels=channels,
                zero_point_ab=config["zero_point_ab"],
                stamp_px=stamp_px,
                stamp_arcsec=stamp_arcsec,
                **{key: config["background"][key] for key in ("mesh_px", "filter_mesh")},
            ):
                if stamps.surface_brightness is None:
                    reasons[tile.name] = str(stamps.reason)
                else:
                    codes[stamps.rows] = encode(stamps.surface_brightness, noise)
                    has_stamp[stamps.rows] = True
                on_stamps(len(stamps.rows))
        meta = {
            "catalogue": catalogue.name,
            "catalogue_id": record["runs"][0]["run_id"],
            "written": record["written"],
            "total_rows": record["counts"]["rows"],
            "lenspipe": record["lenspipe"],
            "stamp_arcsec": stamp_arcsec,
            "area_deg2": record["area"]["footprint_deg2"],
        }
        write_page(out, rows, codes, has_stamp, noise=noise, meta=meta, likeness=likeness)
        return GalleryResult(out / "index.html", rows.num_rows, int(has_stamp.sum()), reasons)


def write_page(
    out: Path,
    rows: pa.Table,
    codes: NDArray[np.uint8],
    has_stamp: NDArray[np.bool_],
    *,
    noise: NDArray[np.floating],
    meta: dict[str, Any],
    likeness: Likeness | None = None,
) -> None:
    """
    Write the folder of a page; one that is there is replaced as a whole.

    Parameters
    ----------
    out : Path
    rows : pa.Table
        Catalogue rows, best first.
    codes : array (n, channel, y, x), uint8
        Stamps (`lenspipe.catalog.gallery.sprites.encode`).
    has_stamp : array (n,), bool
    noise : array (channel,)
        Noise that the stamps were encoded with.
    meta : dict
        Facts of the catalogue: ``catalogue``, ``catalogue_id``, ``total_rows``, ``stamp_arcsec`` and others.
    likeness : Likeness, optional
        Of a catalogue with vectors.
    """
    bands = bands_of(rows.schema)
    channels = colour_bands(bands)
    gains = [g * float(s / noise[len(noise) // 2]) for g, s in zip(GAINS[len(channels)], noise, strict=True)]
    meta = {
        **meta,
        "channels": channels,
        "bands": bands,
        "stamp_px": codes.shape[-1],
        "per_side": PER_SIDE,
        "floor": FLOOR,
        "range": RANGE,
        "gains": gains,
        "likeness": likeness is not None,
    }
    with replaced_folder(out, replace=True, ours=names.GALLERY_FILE.fullmatch) as new:
        for file in PAGE.iterdir():
            shutil.copyfile(file, new / file.name)
        own = (PAGE / STYLE).read_text(encoding="utf-8")
        (new / STYLE).write_text(BASE_STYLE + own, encoding="utf-8")
        _write_script(new / "data.js", "LENSPIPE.load", {"meta": meta, "columns": _columns(rows, bands, has_stamp)})
        if likeness is not None:
            _write_script(new / "likeness.js", "LENSPIPE.likeness", likeness.to_json())
        (new / "sheets").mkdir()
        for number, start in enumerate(range(0, rows.num_rows, PER_SHEET)):
            picture = sheet(codes[start : start + PER_SHEET])
            _write_script(new / "sheets" / f"sheet-{number:04d}.js", "LENSPIPE.sheet", number, picture)


def _magnitudes(schema: pa.Schema) -> list[str]:
    return [f"{name}_{band}" for band in bands_of(schema) for name in ("mag", "mag_err")]


def _tiles(catalogue: Path, rows: pa.Table) -> list[tuple[str, Tile, pa.Table]]:
    known = read_parquet(catalogue / names.TILES)
    demand_columns(known, catalogue / names.TILES, words=("run_id", "tile", "files"))
    found = []
    for item in known.to_pylist():
        mine = pc.and_(pc.equal(rows["run_id"], item["run_id"]), pc.equal(rows["tile"], item["tile"]))
        members = rows.filter(mine)
        if members.num_rows:
            found.append((item["run_id"], Tile.from_json(item["files"]), members))
    return found


def _noise(shards: pa.Table, channels: tuple[str, ...]) -> NDArray[np.float64]:
    """Median sky noise of each channel, nJy / arcsec^2; 1 where nothing was measured and nothing will be shown."""
    numbers = ("pixel_scale_arcsec", *(f"sky_rms_{band}_njy" for band in channels))
    demand_columns(shards, names.SHARDS, numbers=numbers)
    scale = shards["pixel_scale_arcsec"].to_numpy()
    noise = []
    for band in channels:
        values = shards[f"sky_rms_{band}_njy"].to_numpy() / scale**2
        values = values[np.isfinite(values)]
        noise.append(float(np.median(values)) if len(values) else 1.0)
    return np.array(noise)


def _columns(rows: pa.Table, bands: tuple[str, ...], has_stamp: NDArray[np.bool_]) -> dict[str, Any]:
    shown = [
        "run_id",
        "candidate_id",
        "name",
        "ra",
        "dec",
        "rank",
        "score",
        "probability",
        "prior",
        "n_detection",
        *KNOWN,
        "tile",
        *(f"mag_{band}" for band in bands),
        *(f"mag_err_{band}" for band in bands),
        "half_light_radius_arcsec",
        "axis_ratio",
        "flags",
        "mask_fraction",
        "covered_fraction",
    ]
    shown += [name for name in (*SOMETIMES, "queue") if name in rows.column_names]
    columns = {name: [_finite(value) for value in rows[name].to_pylist()] for name in shown}
    return {**columns, "has_stamp": has_stamp.astype(int).tolist()}


def _finite(value: Any) -> Any:
    """Ten digits are enough to look at; NaN, which JSON does not know, and an empty word are null."""
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return None if value == "" else value


def _write_script(path: Path, call: str, *values: Any) -> None:
    text = ",".join(json.dumps(v, separators=(",", ":"), allow_nan=False) for v in values)
    path.write_text(f"{call}({text});\n", encoding="utf-8")
