"""
Copies here of folders in object stores that are only read: models, data sets of stamps.

A copy lies in lenspipe's cache under its URL and what the store said of it, so that every node that needs it makes its
own once, and one that has changed is another.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import shutil
import urllib.parse
from pathlib import Path

from lenspipe.disk import cache_folder, scratch_beside
from lenspipe.errors import ConfigError
from lenspipe.store.objects import listed, patiently
from lenspipe.store.place import TRANSFERS
from lenspipe.store.urls import demand_no_secrets, is_remote, is_url, joined, local_path, url_filesystem

MARK = "copies"
_DIGITS = 16


def local_folder(path: str | Path) -> Path:
    """
    A folder here: of a path itself, of a URL its copy, of a copy that another node has made the one of this node.

    Raises
    ------
    ConfigError
        There is nothing at the URL, or it has changed since the other node copied it.
    """
    text = str(path)
    if is_remote(text):
        return copy_of(text)
    if is_url(text):
        return Path(local_path(text))
    found = Path(path)
    url = _url_of(found)
    if url is None or found.exists():
        return found
    copy = copy_of(url)
    if copy.parent.name != found.parent.name:
        raise ConfigError("what is at the URL has changed since the work began; begin anew", url=url)
    return copy


def copy_of(url: str) -> Path:
    """The copy of a folder at a URL, made where it is not there yet; raises `ConfigError` where there is nothing."""
    demand_no_secrets(url)
    url = url.rstrip("/")
    objects = listed(url)
    if not objects:
        raise ConfigError("there is nothing at this URL", url=url)
    facts = sorted((name, version.size, version.tag) for name, version in objects.items())
    digits = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:_DIGITS]
    protocol, _, rest = url.partition("://")
    pieces = [urllib.parse.quote(piece, safe="") for piece in (protocol, *rest.strip("/").split("/"))]
    if any(piece in (".", "..") for piece in pieces) or any(".." in name.split("/") for name in objects):
        raise ConfigError("the URL, or an object below it, leads out of its folder", url=url)
    folder = cache_folder() / MARK / Path(*pieces) / f"@{digits}" / pieces[-1]
    if not folder.exists():
        _fill(folder, url, list(objects))
    return folder


def _fill(folder: Path, url: str, names: list[str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_beside(folder)

    def take(name: str) -> None:
        target = scratch / name
        target.parent.mkdir(parents=True, exist_ok=True)
        filesystem, path = url_filesystem(joined(url, name))
        patiently(lambda: filesystem.get_file(path, str(target)), url)

    try:
        with concurrent.futures.ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(take, names))
        if not folder.exists():  # else another process was faster
            os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _url_of(folder: Path) -> str | None:
    """URL of which a folder is the copy; None of others."""
    parts = folder.parts
    place = next((k for k, part in enumerate(parts) if part.startswith("@") and len(part) == _DIGITS + 1), None)
    if place is None or MARK not in parts[:place]:
        return None
    begin = len(parts[:place]) - 1 - parts[:place][::-1].index(MARK) + 1
    protocol, *pieces = (urllib.parse.unquote(part) for part in parts[begin:place])
    return f"{protocol}://{'/'.join(pieces)}"
