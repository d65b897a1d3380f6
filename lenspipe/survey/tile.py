"""Tiles: which files hold which band of which piece of sky."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from lenspipe.bands import by_wavelength
from lenspipe.errors import ConfigError, DataError, TileError
from lenspipe.store.urls import is_url
from lenspipe.survey.files import SUFFIX, glob_files, read_header
from lenspipe.survey.layout import FileRule, Hdu, SurveyLayout

UNKNOWN_BAND = "unknown"
"""Band of an image whose name and header do not tell it."""


@dataclasses.dataclass(frozen=True)
class Plane:
    """One two-dimensional image in a FITS file."""

    file: str
    hdu: Hdu | None = None
    """None: the first HDU with a two-dimensional image."""


@dataclasses.dataclass(frozen=True)
class BandFiles:
    """Image, weight and mask of one band of a tile."""

    band: str
    image: Plane
    weight: Plane | None = None
    mask: Plane | None = None
    pixel_scale_arcsec: float | None = None
    """Pixel scale that the layout states for this file."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """A named piece of sky with its bands."""

    name: str
    bands: tuple[BandFiles, ...]

    @property
    def file(self) -> str:
        """The file that messages name first."""
        return self.bands[0].image.file

    def to_json(self) -> str:
        """Compact JSON, the inverse of `from_json`."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Tile:
        """Rebuild a tile from `to_json`; raises `DataError` where the text is not that."""
        try:
            raw = json.loads(text)
            bands = []
            for band in raw["bands"]:
                planes = {key: band[key] and Plane(**band[key]) for key in ("image", "weight", "mask")}
                bands.append(BandFiles(**{**band, **planes}))
            return cls(name=raw["name"], bands=tuple(bands))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError("what a table says of the files of a tile is damaged", said=str(text)[:200]) from error


@dataclasses.dataclass(frozen=True)
class BadTile:
    """A tile that cannot even be planned; it becomes a failure row."""

    name: str
    file: str
    error: TileError


def group_tiles(files: Iterable[str], layout: SurveyLayout) -> list[Tile | BadTile]:
    """
    Group image files into tiles by the layout's rules; tiles and their bands come out sorted.

    Files that no rule matches, and the weight and mask files of others, are passed over (see `left_out`). A tile
    name that occurs in several folders gets the folder's name in front.

    Raises
    ------
    ConfigError
        No file matches any rule of the layout, or a tile name is not one (empty).
    """
    files = sorted(set(files))
    matched = [(file, *found) for file in files for found in _matches(file, layout)]
    siblings = {
        plane.file
        for file, _, _, bands in matched
        for plane in (bands.weight, bands.mask)
        if plane and plane.file != file
    }
    matched = [item for item in matched if item[0] not in siblings]
    if not matched:
        raise ConfigError(
            f"no file is named as survey {layout.name!r} names its images; see its patterns in docs/surveys.md",
            survey=layout.name,
            files=len(files),
            first=files[0] if files else None,
        )
    # Only where two folders hold the same band of a name are they two tiles: surveys also sort bands into folders.
    folders: dict[str, dict[str, set[str]]] = {}
    for file, name, _, bands in matched:
        folders.setdefault(name, {}).setdefault(bands.band, set()).add(str(PurePosixPath(file).parent))
    several = {name for name, by_band in folders.items() if any(len(where) > 1 for where in by_band.values())}
    groups: dict[str, list[BandFiles | TileError]] = {}
    for file, name, error, bands in matched:
        parent = PurePosixPath(file).parent
        unique = f"{parent.name}.{name}" if name in several and parent.name != name else name
        groups.setdefault(unique, []).append(error or bands)
    return tiles_of(groups)


_LONGEST_NAME = 150
"""Characters; shards and files are named after tiles, and file names end at 255 bytes."""


def tiles_of(groups: Mapping[str, Sequence[BandFiles | TileError]]) -> list[Tile | BadTile]:
    """
    Tiles of named groups of bands, sorted; characters that are not for file names become ``_``.

    Of names that differ in such characters alone, and of those that are too long for a file name, each gets six digits
    that are its own.
    """
    clean: dict[str, list[str]] = {}
    for name in groups:
        clean.setdefault(_clean(name), []).append(name)
    tiles = []
    for short, names in clean.items():
        for name in names:
            digits = hashlib.sha256(name.encode()).hexdigest()[:6]
            own = short if len(names) == 1 else f"{short}-{digits}"
            if len(own) > _LONGEST_NAME:
                own = f"{short[:_LONGEST_NAME]}-{digits}"
            tiles.append(_tile(own, list(groups[name])))
    return sorted(tiles, key=lambda tile: tile.name)


def left_out(files: Iterable[str], tiles: Sequence[Tile | BadTile], layout: SurveyLayout) -> list[str]:
    """One line for each reason why FITS files that were found are in no tile, with their number and the first."""
    used = {tile.file for tile in tiles}
    used |= {
        plane.file
        for tile in tiles
        if isinstance(tile, Tile)
        for band in tile.bands
        for plane in (band.image, band.weight, band.mask)
        if plane
    }
    bad = {tile.name for tile in tiles if isinstance(tile, BadTile)}
    reasons: dict[str, list[str]] = {}
    for file in sorted(set(files) - used):
        found = [hit for rule in layout.files for name in _names(file) if (hit := re.search(rule.pattern, name))]
        if not found:
            reasons.setdefault(f"not named as survey {layout.name!r} names its images", []).append(file)
        elif bad and any(hit["tile"] in name for hit in found for name in bad):
            continue  # the failure names its tile
        else:
            bands = " ".join(layout.bands)
            reasons.setdefault(f"in a band that survey {layout.name!r} does not have ({bands})", []).append(file)
    lines = [f"{len(names)} FITS files are left out, {why}: {names[0]}" for why, names in reasons.items()]
    for role in ("weight", "mask"):
        bare = [
            band.image.file
            for tile in tiles
            if isinstance(tile, Tile)
            for band in tile.bands
            if getattr(band, role) is None and _names_a_sibling(band.image.file, layout, role)
        ]
        if bare:
            lines.append(f"{len(bare)} images have no {role} file beside them, and are read without: {bare[0]}")
    return lines


def _names_a_sibling(file: str, layout: SurveyLayout, role: str) -> bool:
    if role == "weight" and layout.weight_kind is None:
        return False
    rules = (r for r in layout.files for name in _names(file) if re.search(r.pattern, name))
    rule = next(rules, None)
    return rule is not None and getattr(rule, f"{role}_file") is not None


def demand_bands(tiles: Iterable[Tile | BadTile], bands: tuple[str, ...]) -> Iterator[Tile | BadTile]:
    """Replace each tile that lacks one of ``bands`` by a `BadTile` that names the band."""
    for tile in tiles:
        if isinstance(tile, Tile):
            have = [b.band for b in tile.bands]
            missing = [band for band in bands if band not in have]
            if missing:
                error = TileError(
                    f"the tile has no image in band {', '.join(missing)}, which other tiles have; add the file, "
                    "or set every_tile_has_every_band = false in the survey's layout",
                    tile=tile.name,
                    bands="".join(f"{b} " for b in have).strip(),
                )
                yield BadTile(tile.name, tile.file, error)
                continue
        yield tile


def bands_of(tiles: Iterable[Tile | BadTile], layout: SurveyLayout) -> tuple[str, ...]:
    """
    Bands that any tile has, in the layout's order, others after them from blue to red.

    Raises
    ------
    ConfigError
        Two bands differ by case only: their columns could not be told apart by DuckDB, SQL or TOPCAT.
    """
    count = Counter(b.band for tile in tiles if isinstance(tile, Tile) for b in tile.bands)
    found = set(count)
    for band in sorted(found):
        other = next((b for b in sorted(found) if b != band and b.lower() == band.lower()), None)
        if other is not None:
            raise ConfigError(
                f"bands {band!r} and {other!r} differ by case only, and so would their columns; call one of them "
                f"otherwise in the survey's layout ([band_names] {other} = '{other}1'), or scan them in separate runs",
                **{f"tiles_{b}": count[b] for b in (band, other)},
            )
    ordered = [band for band in layout.bands if band in found]
    return (*ordered, *sorted(found - set(ordered), key=by_wavelength))


def _tile(name: str, members: list[BandFiles | TileError]) -> Tile | BadTile:
    for member in members:
        if isinstance(member, TileError):
            return BadTile(name, str(member.facts.get("file")), member)
    bands = sorted((m for m in members if isinstance(m, BandFiles)), key=lambda b: by_wavelength(b.band))
    for one, two in itertools.pairwise(bands):
        if one.band == two.band:
            error = TileError(
                "two files claim the same band of the same tile; scan them in separate runs or rename one",
                tile=name,
                band=one.band,
                file=one.image.file,
                other=two.image.file,
            )
            return BadTile(name, one.image.file, error)
    return Tile(name, tuple(bands))


def _matches(file: str, layout: SurveyLayout) -> list[tuple[str, TileError | None, BandFiles]]:
    matches: list[tuple[str, TileError | None, BandFiles]] = []
    for rule in layout.files:
        found = next((hit for name in _names(file) if (hit := re.search(rule.pattern, name))), None)
        if found is None or (matches and rule.band is None):
            continue
        error, band = None, rule.band or found.groupdict().get("band")
        if band is None:
            try:
                band = band_from_header(file, rule, layout)
            except TileError as failure:
                error, band = failure, UNKNOWN_BAND
        band = layout.band_names.get(band, band)
        if layout.bands and band not in layout.bands and error is None:
            continue
        weight = _sibling(file, found, rule.weight_file, rule.weight_hdu, layout.weight_kind is not None)
        mask = _sibling(file, found, rule.mask_file, rule.mask_hdu, True)
        files = BandFiles(band, Plane(file, rule.image_hdu), weight, mask, rule.pixel_scale_arcsec)
        matches.append((found["tile"], error, files))
        if rule.band is None:
            break
    return matches


def _sibling(file: str, found: re.Match[str], template: str | None, hdu: Hdu | None, used: bool) -> Plane | None:
    if not used or (template is None and hdu is None):
        return None
    if template is None:
        return Plane(file, hdu)
    folder = file.rsplit("/", 1)[0]
    *pieces, last = (found.expand(piece) for piece in template.split("*"))
    if not is_url(file) and not last and len(pieces) == 1 and pieces[0].endswith(".fits"):
        # Asked by name: a glob lists the whole folder for every one of its files.
        hits = [name for end in ("", ".fz", ".gz", ".bz2") if os.path.exists(name := f"{folder}/{pieces[0]}{end}")]
    else:
        hits = glob_files(f"{glob.escape(folder)}/{'*'.join(glob.escape(piece) for piece in (*pieces, last))}")
    if not hits and not is_url(file) and SUFFIX.search(file).group().isupper():  # type: ignore[union-attr]
        like = re.compile(".*".join(re.escape(piece) for piece in (*pieces, last)), re.IGNORECASE)
        hits = sorted(f"{folder}/{entry}" for entry in os.listdir(folder) if like.fullmatch(entry))
    return Plane(hits[0], hdu) if hits else None


def _names(file: str) -> Iterator[str]:
    """How a layout may know a file: with its suffix in small letters, as ``.fits``, and without a packing of late."""
    end = SUFFIX.search(file)
    if end is None:
        yield file
        return
    stem, suffix = file[: end.start()], end.group().lower()
    yield stem + suffix
    _, _, *packing = suffix.split(".")
    packing = [p for p in packing if p not in ("bz2", "xz")]
    if (usual := ".".join([stem, "fits", *packing])) != stem + suffix:
        yield usual


def band_from_header(file: str, rule: FileRule, layout: SurveyLayout) -> str:
    """
    Band that the header names, first word without the instrument's suffix (``g.MP9401`` is ``g``).

    Returns `UNKNOWN_BAND` where no keyword of the layout is there; raises `TileError` for an unreadable file.
    """
    header = read_header(file, rule.image_hdu, unpacked_gb_max=layout.unpacked_gb_max)
    for key in layout.band_keywords:
        value = str(header.get(key, "")).strip()
        value = layout.band_names.get(value, value)
        if value:
            return value.split()[0].split(".")[0]
    return UNKNOWN_BAND


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+,-]", "_", name)
