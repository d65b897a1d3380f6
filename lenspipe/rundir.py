"""A run folder: one writer at a time, files that appear whole or not at all, the request that it answers."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lenspipe.disk import LOCK, locked, scratch_beside
from lenspipe.errors import ConfigError, LenspipeError
from lenspipe.readme import README, Kind, write_readme

REQUEST, SAMPLE = "request.json", "sample"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """
    A temporary path beside ``path`` that takes its place when the body ends without an error.

    The file is flushed to the disk before it is renamed, so that a crash leaves the old file or the new one.
    """
    temporary = scratch_beside(path)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, ensure_ascii: bool = True) -> None:
    """Write JSON atomically, keys in the order given."""
    text = json.dumps(value, indent=2, ensure_ascii=ensure_ascii, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """
    Read JSON.

    Raises
    ------
    ConfigError
        The file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"the file is damaged and no JSON ({error}); take it from a copy, or remove it and give the command that "
            "wrote it again",
            file=str(path),
        ) from error


@contextlib.contextmanager
def open_run(
    folder: Path,
    request: dict[str, Any],
    *,
    resume: bool,
    command: str,
    own: Sequence[str] = (),
    has_work: Callable[[], bool] = lambda: True,
    spare: Callable[[], Any] = lambda: None,
    readme: Kind | None = None,
) -> Iterator[bool]:
    """
    Take hold of a run folder for one request, and keep other processes out until the body ends.

    A new, missing or empty folder is claimed by writing ``request.json``. A folder that holds a run is opened
    only with ``resume`` and only for the same request; a run without any work in it is in nobody's way, and another
    takes its place. A body that is refused (`LenspipeError`) before there is any work leaves the folder as it
    was. The lock goes with the process, however it dies.

    Parameters
    ----------
    folder : Path
    request : dict
        What must be the same for a run to be resumed; JSON.
    resume : bool
    command : str
        Option that names the folder.
    own : sequence of str
        Files and folders that a run makes in ``folder``, beside ``request.json``.
    has_work : callable
        Whether the folder holds something that took work to make.
    spare : callable
        Gives the request where ``request.json`` is damaged, from another file that holds it; None where there is none.
    readme : str, optional
        Kind of the folder, whose ``README.md`` says what its files are.

    Yields
    ------
    bool
        Whether the folder held this run before.

    Raises
    ------
    ConfigError
        The folder holds another run, or files that are no run, or is in use by a process that lives.
    """
    request = json.loads(json.dumps(request))
    own = (README, *own)
    with locked(folder):
        _mend(folder / REQUEST, spare)
        known = _claim(folder, request, resume=resume, command=command, own=own, has_work=has_work)
        try:
            if readme is not None:
                write_readme(folder, readme)
            yield known
        except LenspipeError:
            if not known and not has_work():
                _remove(folder, (REQUEST, *own))
            raise


def _mend(path: Path, spare: Callable[[], Any]) -> None:
    """Write ``request.json`` anew where it is damaged and another file holds what it said."""
    if path.exists():
        try:
            read_json(path)
        except ConfigError:
            request = spare()
            if request is None:
                raise
            write_json(path, request)


def _claim(
    folder: Path,
    request: dict[str, Any],
    *,
    resume: bool,
    command: str,
    own: Sequence[str],
    has_work: Callable[[], bool],
) -> bool:
    """Write ``request.json``, or find this request in it; whether the folder held this run before."""
    path = folder / REQUEST
    if path.exists():
        changed = differences(read_json(path), request)
        if has_work():
            if not resume:
                raise ConfigError(
                    f"the folder holds a run already; add --resume to finish it, or choose another {command}",
                    out=str(folder),
                )
            if changed:
                keys = dict.fromkeys(name.split(".")[0] for name, _, _ in changed)
                raise ConfigError(
                    f"the folder holds a run of another request; resume with the same {', '.join(keys)}, "
                    f"or choose another {command}: {_said(changed)}",
                    out=str(folder),
                )
            return True
        if resume and not changed:
            return True
        _remove(folder, (REQUEST, *own))
    foreign = [p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name != SAMPLE]
    if foreign:
        raise ConfigError(
            f"the folder is not empty and holds no run; choose another {command}", out=str(folder), holds=foreign[0]
        )
    write_json(path, request)
    return False


def differences(before: Any, now: Any, name: str = "") -> list[tuple[str, str, str]]:
    """
    Where two JSON values differ: dotted name, value before, value now.

    Lists of one length are compared item by item; a name that one of the two lacks is ``not set`` there.

    Examples
    --------
    >>> differences({"config": {"mag_max": 24.0}, "tiles": ["a"]}, {"config": {"mag_max": 23.0}, "tiles": ["a"]})
    [('config.mag_max', '24.0', '23.0')]
    """
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        pairs = [(key, before.get(key, _NOT_SET), now.get(key, _NOT_SET)) for key in keys]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(str(k), *pair) for k, pair in enumerate(zip(before, now, strict=True))]
    else:
        return [(name, _shown(before), _shown(now))]
    return [row for key, a, b in pairs for row in differences(a, b, f"{name}.{key}" if name else key)]


_NOT_SET = object()
_SHOWN_CHARACTERS, _SHOWN_DIFFERENCES = 120, 6


def _shown(value: Any) -> str:
    if value is _NOT_SET:
        return "not set"
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    count = f"{len(value)} items " if isinstance(value, list | dict) else ""
    return f"{count}{text[:_SHOWN_CHARACTERS]}..."


def _said(changed: list[tuple[str, str, str]]) -> str:
    said = [f"{name} was {before} and is {now}" for name, before, now in changed[:_SHOWN_DIFFERENCES]]
    more = len(changed) - len(said)
    return ", ".join([*said, *([f"and {more} more differ"] if more else [])])


@contextlib.contextmanager
def undone_on_error(folder: Path) -> Iterator[None]:
    """Make a folder; where the body ends in an error, what it has added is removed, and the folder if it is new."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        _remove(folder, [path.name for path in folder.iterdir() if path.name not in (there or ())])
        if there is None:
            _remove_if_empty(folder)
        raise


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder in which nothing is left but the lock."""
    if {path.name for path in folder.iterdir()} <= {LOCK}:
        (folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def versions() -> dict[str, str]:
    """Versions of lenspipe, Python and the packages that a result depends on."""
    return dict(_versions())


@functools.cache  # they are read from ten files
def _versions() -> dict[str, str]:
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
