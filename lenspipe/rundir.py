"""A run folder: one writer at a time, files that appear whole or not at all, the request that it answers."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lenspipe.errors import ConfigError

REQUEST, SAMPLE = "request.json", "sample"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """
    A temporary path beside ``path`` that takes its place when the body ends without an error.

    The file is flushed to the disk before it is renamed, so that a crash leaves the old file or the new one.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def open_run(folder: Path, request: dict[str, Any], *, resume: bool, command: str) -> Iterator[bool]:
    """
    Take hold of a run folder for one request, and keep other processes out until the body ends.

    A new, missing or empty folder is claimed by writing ``request.json``. A folder that holds a run is opened
    only with ``resume`` and only for the same request. The lock goes with the process, however it dies.

    Yields
    ------
    bool
        Whether the folder held this run before.

    Raises
    ------
    ConfigError
        The folder holds another run, or files that are no run, or is in use by a process that lives.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the run folder: {error.strerror}", out=str(folder)) from error
    with _lock(folder):
        path = folder / REQUEST
        known = path.exists()
        if known and not resume:
            raise ConfigError(
                f"the folder holds a run already; add --resume to finish it, or choose another {command}",
                out=str(folder),
            )
        if known:
            before = read_json(path)
            changed = sorted(k for k in {*before, *request} if before.get(k) != request.get(k))
            if changed:
                key = changed[0]
                raise ConfigError(
                    f"the folder holds a run of another request; resume with the same {', '.join(changed)}, "
                    f"or choose another {command}",
                    out=str(folder),
                    had=json.dumps(before.get(key))[:200],
                    got=json.dumps(request.get(key))[:200],
                )
        else:
            foreign = [p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name != SAMPLE]
            if foreign:
                raise ConfigError(
                    f"the folder is not empty and holds no run; choose another {command}",
                    out=str(folder),
                    holds=foreign[0],
                )
            write_json(path, request)
        yield known


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[IO[str]]:
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "another process is working in this run folder; wait for it to end", out=str(folder)
            ) from None
        yield stream


def versions() -> dict[str, str]:
    """Versions of lenspipe, Python and the packages that a result depends on."""
    names = ("lenspipe", "numpy", "astropy", "sep", "photutils", "pyarrow", "torch", "timm", "ray", "lenstronomy")
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if "lenspipe" not in found:  # run from an unpacked source tree, as a submitted job does
        from lenspipe import __version__

        found["lenspipe"] = __version__
    return found


def utc_now() -> str:
    """Time in ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
