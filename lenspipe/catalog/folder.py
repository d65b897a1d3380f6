"""A catalogue folder: written beside the old one and put in its place when it is whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from lenspipe.errors import ConfigError

HATS, FLAT, FITS, FOOTPRINT = "hats", "candidates.parquet", "candidates.fits", "footprint.moc.fits"
SHARDS, KNOWN_LENSES, TILES = "shards.parquet", "known_lenses.parquet", "tiles.parquet"
PROVENANCE, GALLERY = "provenance.json", "gallery"


@contextlib.contextmanager
def replaced_folder(folder: Path, *, replace: bool) -> Iterator[Path]:
    """
    A scratch folder beside ``folder`` that takes its place when the body ends without an error.

    An error, such as a full disk, leaves the old folder untouched. A process that dies between the two renames
    leaves the old folder under its ``.old`` name; the next call puts it back.

    Raises
    ------
    ConfigError
        The folder exists and ``replace`` is not set.
    """
    set_aside = folder.with_name(f".{folder.name}.old")
    if set_aside.exists():
        if folder.exists():
            shutil.rmtree(set_aside)
        else:
            os.replace(set_aside, folder)
    if folder.exists() and not replace:
        raise ConfigError("the folder exists; choose another --out, or add to it by --append", out=str(folder))
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if folder.exists():
            os.replace(folder, set_aside)
        os.replace(scratch, folder)
        shutil.rmtree(set_aside, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
