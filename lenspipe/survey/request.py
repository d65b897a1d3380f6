"""The tiles that a command is asked for: files, folders, globs, URLs and manifests."""

from __future__ import annotations

from collections.abc import Sequence

from lenspipe.errors import ConfigError
from lenspipe.survey.files import find_files
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.manifest import is_manifest, read_manifest
from lenspipe.survey.tile import BadTile, Tile, group_tiles


def requested_tiles(requests: Sequence[str], layout: SurveyLayout) -> list[Tile | BadTile]:
    """
    Tiles that are asked for, those of manifests first.

    Raises
    ------
    ConfigError
        Nothing is found, or nothing that the layout knows; two requests name one tile.
    """
    tiles: list[Tile | BadTile] = []
    images = [t for t in requests if not is_manifest(t)]
    for manifest in (t for t in requests if is_manifest(t)):
        tiles += read_manifest(manifest, layout)
    if images:
        tiles += group_tiles(find_files(images), layout)
    names = [tile.name for tile in tiles]
    twice = next((n for n in names if names.count(n) > 1), None) if len(set(names)) < len(names) else None
    if twice:
        raise ConfigError("a tile is named by two requests; name it once", tile=twice)
    return tiles
