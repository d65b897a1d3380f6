"""A catalogue folder: the names of what it holds."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from lenspipe.readme import README

HATS, FLAT, FITS, FOOTPRINT = "hats", "candidates.parquet", "candidates.fits", "footprint.moc.fits"
VECTORS, INDEX = "hats_embedding", "hats_embedding_index"
COLLECTION, MARGIN, ID_INDEX, THUMBNAIL = "collection.properties", "hats_margin", "hats_index", "data_thumbnail.parquet"
SHARDS, KNOWN_LENSES, TILES = "shards.parquet", "known_lenses.parquet", "tiles.parquet"
REMOVED, VERSIONS = "removed.parquet", "versions"
PROVENANCE, GALLERY, GALLERY_LOCK = "provenance.json", "gallery", ".gallery.lock"

GALLERY_FILE = re.compile(
    r"README\.md|(alike|app|data|exports|facts|graders|grades|likeness|map|stamps)\.js|style\.css|index\.html|sheets/sheet-\d+(-(\d+|residual))?\.js"
)
INDEX_FILE = re.compile(r"graph\.usearch|index\.json")
_TREE = r"Norder=\d+/Dir=\d+/Npix=\d+\.parquet"
_DATASET = rf"dataset/(_metadata|_common_metadata|{_TREE})"
_BESIDE = rf"(hats\.)?properties|partition_info\.csv|(skymap|point_map)\.fits|{re.escape(THUMBNAIL)}"
_HATS = rf"({HATS}|{VECTORS}|{MARGIN})/({_BESIDE}|{_DATASET})"
_ID_INDEX = rf"{ID_INDEX}/((hats\.)?properties|dataset/(_metadata|_common_metadata|index/part\.\d+\.\d+\.parquet))"
_FILES = "|".join(
    map(re.escape, (FLAT, FITS, FOOTPRINT, SHARDS, KNOWN_LENSES, TILES, PROVENANCE, COLLECTION, REMOVED, README))
)
VERSION_FILE = re.compile(rf"({_FILES}|{HATS}|{VECTORS})\Z")
"""Entries of the folder that make a version of a catalogue."""
CATALOG_FILE = re.compile(
    rf"({VERSIONS}/\d+/)?({_FILES}|{_HATS})|{_ID_INDEX}|{GALLERY}/({GALLERY_FILE.pattern})|{INDEX}/({INDEX_FILE.pattern})|{re.escape(GALLERY_LOCK)}"
)
"""Paths in the folder that we write; what else it holds is another's."""


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file that will not be changed; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
