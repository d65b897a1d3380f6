"""Earlier states of a catalogue: each change leaves the one before it in ``versions``, and it can be gone back to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lenspipe.catalog import folder as names
from lenspipe.catalog.records import catalog_record
from lenspipe.errors import ConfigError
from lenspipe.readme import README, is_ours
from lenspipe.store.place import location
from lenspipe.store.urls import is_remote

MADE_AGAIN = (names.FLAT, names.FITS, names.MARGIN, names.ID_INDEX, names.COLLECTION, names.INDEX)
"""What a version does not hold, because it follows from the rest."""
KEPT = 10
"""Versions of a catalogue, the newest, that are kept."""
_NOT_OF_A_VERSION = (*MADE_AGAIN, names.VERSIONS, names.GALLERY, names.GALLERY_LOCK)


def version_numbers(catalogue: Path) -> list[int]:
    """Numbers of the versions that a catalogue keeps, from the oldest."""
    folder = catalogue / names.VERSIONS
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def keep_version(out: Path, new: Path) -> None:
    """
    Give the folder that is to replace a catalogue its last versions, and the catalogue as it is as the next one.

    Files get a second name (hard link) where the file system has any: a version costs what changed after it. In an
    object store each would be a whole copy, so that none is kept there. Somebody's own README is of no version.
    """
    if is_remote(location(out)):
        return
    there = version_numbers(out)
    for number in there[-KEPT + 1 :]:
        link_tree(out / names.VERSIONS / str(number), new / names.VERSIONS / str(number))
    number = max(there, default=0) + 1
    target = new / names.VERSIONS / str(number)
    target.mkdir(parents=True)
    for entry in sorted(out.iterdir()):
        own = names.VERSION_FILE.match(entry.name) and (entry.name != README or is_ours(entry))
        if own and entry.name not in _NOT_OF_A_VERSION and not entry.is_symlink():
            link_tree(entry, target / entry.name)


def link_tree(source: Path, target: Path) -> None:
    """A file or folder under a second name, files as hard links; what can be made again of a tree is left out."""
    if source.is_dir():
        for root, _, files in os.walk(source):
            here = target / os.path.relpath(root, source)
            here.mkdir(parents=True, exist_ok=True)
            for name in files:
                if name != names.THUMBNAIL:
                    names.link_or_copy(Path(root) / name, here / name)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        names.link_or_copy(source, target)


def version_folder(catalogue: Path, number: int) -> Path:
    """
    Folder of a version.

    Raises
    ------
    ConfigError
        There is none of this number.
    """
    if is_remote(location(catalogue)):
        raise ConfigError("a catalogue in an object store keeps no versions", version=number, out=str(catalogue))
    known = version_numbers(catalogue)
    if number not in known:
        said = " ".join(map(str, known)) or "none"
        raise ConfigError("the catalogue keeps no such version", version=number, versions=said, out=str(catalogue))
    return catalogue / names.VERSIONS / str(number)


def described(catalogue: Path) -> list[dict[str, Any]]:
    """Number, date, runs and rows of every version, and last of the catalogue as it is (number None)."""
    folders = [(number, catalogue / names.VERSIONS / str(number)) for number in version_numbers(catalogue)]
    found = []
    for number, folder in [*folders, (None, catalogue)]:
        record = catalog_record(folder / names.PROVENANCE)
        runs = [run["run_id"] for run in record["runs"]]
        removed = (record.get("removed") or {}).get("rows", 0)
        rows = record["counts"]["rows"]
        found.append({"version": number, "written": record["written"], "runs": runs, "rows": rows, "removed": removed})
    return found
