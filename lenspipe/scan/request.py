"""What the user asks a scan for, and the tiles that it means."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lenspipe.errors import ConfigError, TileError
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext
from lenspipe.scan.read import facts_of, read_shard, task_of
from lenspipe.scan.search import search
from lenspipe.store.urls import is_url
from lenspipe.survey.files import find_files, packed_otherwise
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.manifest import is_manifest
from lenspipe.survey.request import requested_tiles
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import BadTile, Tile, bands_of, demand_bands, left_out


@dataclasses.dataclass(frozen=True)
class ScanRequest:
    """What the user asked for."""

    tiles: tuple[str, ...]
    layout: SurveyLayout
    config: ScanConfig
    limit: int | None

    def to_json(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {
            "tiles": list(self.tiles),
            "survey": self.layout.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
            "limit": self.limit,
        }


def find_tiles(
    request: ScanRequest, bands: tuple[str, ...] | None = None
) -> tuple[list[Tile | BadTile], tuple[str, ...]]:
    """
    Tiles of a request and the bands of the run: ``bands`` where a run has them already, else all that are found.

    Raises
    ------
    ConfigError
        Nothing is found, or nothing that the survey's layout knows.
    """
    tiles = requested_tiles(request.tiles, request.layout)
    tiles = tiles[: request.limit]
    bands = bands or bands_of(tiles, request.layout)
    if request.layout.every_tile_has_every_band:
        tiles = list(demand_bands(tiles, bands))
    return tiles, bands


def overlooked(request: ScanRequest, tiles: Sequence[Tile | BadTile]) -> list[str]:
    """Lines on files that a request names and no tile holds; nothing where tiles were left out by ``--limit``."""
    images = [t for t in request.tiles if not is_manifest(t) and not is_url(t)]
    lines = []
    if packed := packed_otherwise(images):
        lines.append(f"{len(packed)} files are packed in a way that is not read, and left out: {packed[0]}")
    if request.limit is None and images:
        lines += left_out(find_files(images), tiles, request.layout)
    return lines


def check_bands(config: ScanConfig, bands: tuple[str, ...]) -> None:
    """Raise `ConfigError` where a setting names a band that no tile has."""
    named = {
        "detect.image": {config.detect.image} - {"sum"},
        "select.band": {config.select.band} - {"auto"},
        "select.colour": {band for key in config.select.colour for band in key.split("-")},
    }
    for key, wanted in named.items():
        if missing := sorted(wanted - set(bands)):
            raise ConfigError(f"{key} names a band that no tile has", band=missing[0], bands=" ".join(bands))


def expected_candidates(
    tiles: Sequence[Tile | BadTile], request: ScanRequest, *, n_test: int, test_px: int
) -> Iterator[tuple[Tile, int, int]]:
    """For up to ``n_test`` tiles: the tile, candidates in its middle window of ``test_px``, pixels of that window."""
    good = [t for t in tiles if isinstance(t, Tile)]
    context = ScanContext(request.config, request.layout, (), Path())
    for tile in good[:: max(1, len(good) // n_test)][:n_test]:
        with contextlib.suppress(TileError):
            facts = facts_of(tile, context)
            height, width = facts.shape
            x0, y0 = max(0, (width - test_px) // 2), max(0, (height - test_px) // 2)
            window = Box(x0, y0, min(width, x0 + test_px), min(height, y0 + test_px))
            found = search(read_shard(task_of(tile, window), context, facts=facts), context)
            yield tile, len(found.candidates.sources), window.n_px
