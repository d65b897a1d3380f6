"""Write the page of a catalogue: data, sprite sheets, scripts."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.bands import by_wavelength, colour_bands
from lenspipe.catalog import folder as names
from lenspipe.catalog.columns import KNOWN, bands_of
from lenspipe.catalog.gallery.likeness import Likeness, MapMethod, likeness_of
from lenspipe.catalog.gallery.queue import queued
from lenspipe.catalog.gallery.sprites import FLOOR, NO_DATA, PER_SHEET, PER_SIDE, RANGE, encode, sheet
from lenspipe.catalog.gallery.stamps import Stamps, cut_stamps
from lenspipe.catalog.gallery.viewers import viewers_of
from lenspipe.catalog.read import best_rows
from lenspipe.catalog.records import catalog_record, lasting_id, run_of
from lenspipe.disk import demand_ours, locked_beside, replaced_folder
from lenspipe.errors import ConfigError
from lenspipe.image.contact import GAINS
from lenspipe.image.residual import elliptical_residual
from lenspipe.readme import write_readme
from lenspipe.report.page import BASE_STYLE
from lenspipe.schema import anomaly_fields, ood_field
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.tile import Tile
from lenspipe.tables import demand_columns, read_parquet
from lenspipe.toml import validate

SOMETIMES = ("substructure_class", *(f.name for f in anomaly_fields()), ood_field().name)
"""Columns that are shown where a catalogue has them."""
PAGE, STYLE = Path(__file__).parent / "page", "style.css"
PER_GROUP = 3
"""Bands in one picture of a sheet; the colours are the first."""
RESIDUAL = "residual"
_WORDS = ("run_id", "candidate_id", "name", *KNOWN[:3], "tile")
_NUMBERS = (
    *("ra", "dec", "rank", "score", "probability", "prior", "n_detection", KNOWN[3], "half_light_radius_arcsec"),
    *("axis_ratio", "angle_deg", "flags", "mask_fraction", "covered_fraction", "x_px", "y_px"),
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
        layouts = {
            run["run_id"]: validate(run["request"]["survey"], SurveyLayout, origin=names.PROVENANCE)
            for run in record["runs"]
        }
        planes, n_colour = planes_of(rows.schema), len(colour_bands(bands_of(rows.schema)))
        noise = _noise(read_parquet(catalogue / names.SHARDS), planes)
        pictures = Pictures.empty(rows.num_rows, len(planes), n_colour, stamp_px)
        reasons: dict[str, str] = {}
        for run_id, tile, members in _tiles(catalogue, rows):
            run = run_of(record, run_id, catalogue)
            config = run["request"]["config"]
            for stamps in cut_stamps(
                members,
                tile,
                layouts[run["run_id"]],
                channels=planes,
                zero_point_ab=config["zero_point_ab"],
                stamp_px=stamp_px,
                stamp_arcsec=stamp_arcsec,
                **{key: config["background"][key] for key in ("mesh_px", "filter_mesh")},
            ):
                if stamps.surface_brightness is None:
                    reasons[tile.name] = str(stamps.reason)
                else:
                    pictures.codes[stamps.rows] = encode(stamps.surface_brightness, noise, stamps.covered)
                    pictures.residual[stamps.rows] = _residual_codes(stamps, members, noise[:n_colour])
                    pictures.has_stamp[stamps.rows] = True
                    pictures.compass_deg[:, stamps.rows] = stamps.compass_deg
                on_stamps(len(stamps.rows))
        meta = {
            "catalogue": _title(catalogue),
            "catalogue_id": lasting_id(record),
            "written": record["written"],
            "total_rows": record["counts"]["rows"],
            "lenspipe": record["lenspipe"],
            "stamp_arcsec": stamp_arcsec,
            "area_deg2": record["area"]["footprint_deg2"],
            "viewers": viewers_of(layouts.values()),
        }
        write_page(out, rows, pictures, noise=noise, meta=meta, likeness=likeness)
        return GalleryResult(out / "index.html", rows.num_rows, int(pictures.has_stamp.sum()), reasons)


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """The stamps of a page's rows."""

    codes: NDArray[np.uint8]
    """(n, plane, y, x), as `lenspipe.catalog.gallery.sprites.encode` gives them; planes as `planes_of`."""
    residual: NDArray[np.uint8]
    """(n, channel, y, x), `elliptical_residual` of the bands of the colours, in the same codes."""
    has_stamp: NDArray[np.bool_]
    """(n,)"""
    compass_deg: NDArray[np.float64]
    """(2, n) directions of north and east from +x towards +y, NaN where they are not known."""

    @classmethod
    def empty(cls, n: int, n_plane: int, n_channel: int, stamp_px: int) -> Pictures:
        """Of ``n`` rows without a picture."""
        codes, residual = (np.full((n, k, stamp_px, stamp_px), NO_DATA) for k in (n_plane, n_channel))
        return cls(codes, residual, np.zeros(n, bool), np.full((2, n), np.nan))


def planes_of(schema: pa.Schema) -> tuple[str, ...]:
    """Bands whose stamps a page of these rows holds: those of the colours first, then the others by wavelength."""
    bands = bands_of(schema)
    channels = colour_bands(bands)
    return *channels, *sorted(set(bands) - set(channels), key=by_wavelength)


def write_page(
    out: Path,
    rows: pa.Table,
    pictures: Pictures,
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
    pictures : Pictures
        Of these rows.
    noise : array (plane,)
        Noise that the stamps were encoded with.
    meta : dict
        Facts of the catalogue: ``catalogue``, ``catalogue_id``, ``total_rows``, ``stamp_arcsec`` and others.
    likeness : Likeness, optional
        Of a catalogue with vectors.
    """
    bands, planes = bands_of(rows.schema), planes_of(rows.schema)
    channels = colour_bands(bands)
    middle = noise[len(channels) // 2]
    gains = [g * float(s / middle) for g, s in zip(GAINS[len(channels)], noise, strict=False)]
    meta = {
        "viewers": viewers_of(()),
        **meta,
        "channels": channels,
        "planes": planes,
        "bands": bands,
        "stamp_px": pictures.codes.shape[-1],
        "per_side": PER_SIDE,
        "floor": FLOOR,
        "range": RANGE,
        "gains": gains,
        "likeness": likeness is not None,
    }
    columns = _columns(rows, bands, pictures)
    with replaced_folder(out, replace=True, ours=names.GALLERY_FILE.fullmatch) as new:
        for file in PAGE.iterdir():
            shutil.copyfile(file, new / file.name)
        own = (PAGE / STYLE).read_text(encoding="utf-8")
        (new / STYLE).write_text(BASE_STYLE + own, encoding="utf-8")
        _write_script(new / "data.js", "LENSPIPE.load", {"meta": meta, "columns": columns})
        if likeness is not None:
            _write_script(new / "likeness.js", "LENSPIPE.likeness", likeness.to_json())
        write_readme(new, "gallery")
        (new / "sheets").mkdir()
        groups: dict[int | str, NDArray[np.uint8]] = {
            group: pictures.codes[:, first : first + PER_GROUP]
            for group, first in enumerate(range(0, len(planes), PER_GROUP))
        }
        for group, codes in {**groups, RESIDUAL: pictures.residual}.items():
            for number, start in enumerate(range(0, rows.num_rows, PER_SHEET)):
                file = new / "sheets" / f"sheet-{number:04d}{f'-{group}' if group else ''}.js"
                _write_script(file, "LENSPIPE.sheet", number, group, *sheet(codes[start : start + PER_SHEET]))


def _residual_codes(stamps: Stamps, members: pa.Table, noise: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Residuals of a shard's stamps, in the bands of the colours, of which ``noise`` is."""
    assert stamps.surface_brightness is not None and stamps.covered is not None
    shown, covered = stamps.surface_brightness[:, : len(noise)], stamps.covered[:, : len(noise)]
    place = pc.index_in(pa.array(stamps.rows), members["row"].combine_chunks())
    shapes = (members[name].take(place).to_numpy(zero_copy_only=False) for name in ("axis_ratio", "angle_deg"))
    each = zip(shown, covered, *shapes, strict=True)
    left = [elliptical_residual(s, c, axis_ratio=q, angle_deg=a) for s, c, q, a in each]
    return encode(np.stack(left), noise, covered)


def _title(catalogue: Path) -> str:
    """Name of a catalogue; of one that lies in a run, the run's."""
    return catalogue.parent.name if (catalogue.parent / "run.json").exists() else catalogue.name


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


def _noise(shards: pa.Table, channels: Sequence[str]) -> NDArray[np.float64]:
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


def _columns(rows: pa.Table, bands: tuple[str, ...], pictures: Pictures) -> dict[str, Any]:
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
        "angle_deg",
        "flags",
        "mask_fraction",
        "covered_fraction",
    ]
    shown += [name for name in (*SOMETIMES, "queue") if name in rows.column_names]
    columns = {name: [_finite(value) for value in rows[name].to_pylist()] for name in shown}
    if (spread := _spread(rows)) is not None:
        columns["score_spread"] = [_finite(value) for value in spread.tolist()]
    for name, angle in zip(("north_deg", "east_deg"), pictures.compass_deg.round(1).tolist(), strict=True):
        columns[name] = [_finite(value) for value in angle]
    return {**columns, "has_stamp": pictures.has_stamp.astype(int).tolist()}


def _spread(rows: pa.Table) -> NDArray[np.float64] | None:
    """Standard deviation of the scores of a committee's members ``(n,)``; None where no committee scored."""
    each = [name for name in rows.column_names if re.fullmatch(r"score_\w+", name)]
    if "members" not in rows.column_names or len(each) < 2:
        return None
    return np.asarray(np.std([rows[name].to_numpy(zero_copy_only=False).astype(float) for name in each], axis=0))


def _finite(value: Any) -> Any:
    """Ten digits are enough to look at; NaN, which JSON does not know, and an empty word are null."""
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return None if value == "" else value


def _write_script(path: Path, call: str, *values: Any) -> None:
    text = ",".join(json.dumps(v, separators=(",", ":"), allow_nan=False) for v in values)
    path.write_text(f"{call}({text});\n", encoding="utf-8")
