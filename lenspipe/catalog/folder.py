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

    An error, such as a full disk, leaves the old folder untouched, also one between the two renames. A process that
    dies there leaves the old folder under its ``.old`` name; `put_back` (which this calls) gives it its name again.

    Raises
    ------
    ConfigError
        The folder exists and ``replace`` is not set.
    """
    folder = folder.resolve()  # of a link, what it points to is replaced
    set_aside = put_back(folder)
    if folder.exists() and not replace:
        raise ConfigError("the folder exists; choose another --out, or add to it by --append", out=str(folder))
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if folder.exists():
            os.replace(folder, set_aside)
        try:
            os.replace(scratch, folder)
        except OSError:
            put_back(folder)
            raise
        shutil.rmtree(set_aside, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def put_back(folder: Path) -> Path:
    """
    Give a folder its name again that a writer which died had set aside; returns the name under which that would be.
    """
    folder = folder.resolve()
    set_aside = folder.with_name(f".{folder.name}.old")
    if set_aside.exists():
        if folder.exists():
            shutil.rmtree(set_aside)
        else:
            os.replace(set_aside, folder)
    return set_aside


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file that will not be changed; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
