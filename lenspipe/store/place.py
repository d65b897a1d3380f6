"""
A folder of a store that commands work in as in one of this machine: a copy here, taken at first and put back after.

What is made while the work goes on and must outlive a crash (the parts of a scan, by workers on any node) is committed
to the store itself: `location` says where.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lenspipe.errors import ConfigError, DataError, StoreError
from lenspipe.store.lease import LOCK, Lease, leased
from lenspipe.store.objects import Version, listed, patiently, remove
from lenspipe.store.urls import demand_no_secrets, joined, url_filesystem

PREFIX = "lenspipe-store-"
TRANSFERS = 8
"""Files that are copied at a time."""
_RECORDS = {"run.json", "provenance.json", "metrics.json", "card.json", "dataset.json"}
"""Written last where they are, so that what has one is whole."""
_LEFT = re.compile(r"(^|/)versions/\d+/")
"""Earlier states of a catalogue that was brought there whole: left where they are, not taken."""
_names: dict[str, str] = {}
"""URL of each folder that stands for one, as long as the process lives: for what is said and recorded."""
_open: dict[str, Place] = {}


class Place:
    """A folder of a store and its copy here; made by `place_at`."""

    def __init__(self, url: str, folder: Path, lease: Lease | None) -> None:
        self.url, self.folder, self._lease = url.rstrip("/"), folder, lease
        self._theirs: dict[str, Version] = {}
        self._ours: dict[str, tuple[int, int]] = {}

    def pull(self, below: str = "") -> None:
        """Take what is new or other in the store, below a name in it."""
        found = listed(joined(self.url, below)) if below else listed(self.url)
        found = {f"{below}/{name}" if below else name: version for name, version in found.items()}
        found = {n: version for n, version in found.items() if not _is_lock(n) and not _LEFT.search(n)}
        wanted = [n for n, version in found.items() if self._theirs.get(n) != version]
        with concurrent.futures.ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(self._get, wanted))
        self._theirs |= {name: found[name] for name in wanted}
        self._ours |= {name: _state(self.folder / name) for name in wanted}

    def push(self) -> None:
        """
        Put what is new or other here, and remove what is gone, in the store; what says that all is whole comes last.

        Raises
        ------
        StoreError
            The store fails, or another process has the folder.
        """
        self._demand()
        there = {name: _state(self.folder / name) for name in _files(self.folder)}
        changed = [name for name, state in there.items() if self._ours.get(name) != state]
        changed.sort(key=lambda name: there[name][1])  # as they were written
        last = [name for name in changed if name.rpartition("/")[2] in _RECORDS]
        with concurrent.futures.ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(self._put, [name for name in changed if name not in last]))
        if last:
            self._demand()
        for name in last:
            self._put(name)
        gone = [name for name in self._ours if name not in there]
        if gone:
            self._demand()
        remove(self.url, gone)
        for name in gone:
            self._theirs.pop(name, None)
        self._ours = there

    def rename(self, name: str, new: str) -> None:
        """Give a file another name here and there."""
        (self.folder / name).rename(self.folder / new)
        self.push()

    def _demand(self) -> None:
        if self._lease is not None:
            self._lease.demand()

    def _get(self, name: str) -> None:
        target = self.folder / name
        if not target.resolve().is_relative_to(self.folder.resolve()):
            raise DataError("an object's name leads out of its folder", url=joined(self.url, name))
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name[:200]}.{os.getpid():08x}.tmp")
        filesystem, path = url_filesystem(joined(self.url, name))
        patiently(lambda: filesystem.get_file(path, str(scratch)), joined(self.url, name))
        os.replace(scratch, target)

    def _put(self, name: str) -> None:
        put_file(self.folder / name, joined(self.url, name))


@contextlib.contextmanager
def new_object(target: str) -> Iterator[Path]:
    """A file of this machine that becomes an object, as a whole or not at all, when the body ends without an error."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as scratch:
        temporary = Path(scratch) / target.rpartition("/")[2]
        yield temporary
        put_file(temporary, target)


def put_file(file: Path, url: str) -> None:
    """Put a file as an object, which is there as a whole or not at all."""
    filesystem, path = url_filesystem(url)
    patiently(lambda: filesystem.put_file(str(file), path), url)


@contextlib.contextmanager
def place_at(url: str, *, writes: bool) -> Iterator[Path]:
    """
    A folder here that stands for one in a store.

    Parameters
    ----------
    url : str
    writes : bool
        Whether it is written to: others are kept out, and what it holds in the end is put into the store, also where
        the work ended in an error, as it would be found on a disk.

    Raises
    ------
    ConfigError
        Another process writes there; with ``writes`` not set, there is nothing.
    StoreError
        What was made cannot be put into the store. Where the work had ended, it is kept in the folder that is named.
    """
    demand_no_secrets(url)
    scratch = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    folder = scratch / (url.rstrip("/").rpartition("/")[2] or "folder")
    _names[str(folder)] = url.rstrip("/")
    kept = False
    try:
        with leased(url) if writes else contextlib.nullcontext() as lease:
            place = Place(url, folder, lease)
            place.pull()
            if not writes and not folder.exists():
                raise ConfigError("there is nothing at this URL", url=url)
            _open[str(folder)] = place
            whole = False
            try:
                yield folder
                whole = True
            finally:
                del _open[str(folder)]
                if writes:
                    try:
                        place.push()
                    except StoreError as error:
                        if not whole or not folder.exists():
                            raise
                        kept = True
                        del _names[str(folder)]  # from here on it stands for itself
                        raise StoreError(
                            f"{error.message}; what was made is kept here until you copy or remove it",
                            **error.facts,
                            folder=str(folder),
                        ) from error
    finally:
        if not kept:
            shutil.rmtree(scratch, ignore_errors=True)


def place_of(folder: Path) -> Place | None:
    """The place whose folder this is; None of a folder of this machine."""
    return _open.get(str(folder))


def any_open() -> bool:
    """Whether a folder of this machine stands for one in a store now."""
    return bool(_open)


def location(path: Path) -> Path | str:
    """Where a path really is: in a place, its URL, which every node can read and write."""
    for folder, place in _open.items():
        if path == Path(folder) or Path(folder) in path.parents:
            return joined(place.url, *path.relative_to(folder).parts)
    return path


def shown(text: str) -> str:
    """What is said or recorded of paths, with URLs for the folders that stand for them."""
    for folder, url in _names.items():
        text = text.replace(folder, url)
    return text


def _is_lock(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last == LOCK or last.startswith(f"{LOCK}.") or (last.startswith(".") and last.endswith((LOCK, ".tmp")))


def _files(folder: Path) -> list[str]:
    found = []
    for root, _, names in os.walk(folder):
        inside = Path(root).relative_to(folder)
        found += [(inside / name).as_posix() for name in names]
    return [name for name in found if not _is_lock(name)]


def _state(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns
