"""What is done to a disk that others write to as well: locks, scratch, folders that are replaced as a whole."""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from lenspipe.errors import ConfigError

LOCK = ".lock"
_MARK = b"lenspipe\n"
"""What a lock file of ours holds; one that holds anything else is left where it is."""
_SCRATCH = re.compile(r"\.(?P<name>.+)\.(?:[0-9a-f]{8}|[0-9a-f]{32})\.tmp", re.DOTALL)
_NAME_BYTES = 200
"""A file name has 255 bytes at most; that of a scratch file keeps so many of the name that it is for."""
_held: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("held", default=frozenset())

Ours = Callable[[str], object]
"""Whether a path inside a folder, with slashes, is one that we write."""


def scratch_beside(path: Path) -> Path:
    """A path beside ``path`` that nobody uses, known by its name as scratch of ``path``."""
    return path.with_name(f".{_shortened(path.name)}.{uuid.uuid4().hex[:8]}.tmp")


def _shortened(name: str) -> str:
    return name.encode(errors="surrogateescape")[:_NAME_BYTES].decode(errors="ignore")


def is_scratch(name: str, of: str | None = None) -> bool:
    """Whether a file name is that of scratch: of any file, or of the one that is named."""
    match = _SCRATCH.fullmatch(name)
    return match is not None and (of is None or match["name"] == _shortened(of))


def remove_scratch(folder: Path, of: str | None = None) -> None:
    """
    Remove what a killed writer left in a folder that the caller has locked; a link goes, not what it points to.

    Parameters
    ----------
    folder : Path
        May be missing.
    of : str, optional
        Only scratch of the file or folder of this name.
    """
    if folder.is_dir():
        for path in folder.iterdir():
            if is_scratch(path.name, of):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


def cache_folder() -> Path:
    """
    Folder of what is made once and used again.

    ``LENSPIPE_CACHE``, else ``XDG_CACHE_HOME/lenspipe``, else ``~/.cache/lenspipe``.

    Where none of them can be written, a folder of the user in the system's temporary folder.
    """
    own = os.environ.get("LENSPIPE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(OSError, RuntimeError):
        folder = Path(own) if own else (Path(base) if base else Path.home() / ".cache") / "lenspipe"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    folder = Path(tempfile.gettempdir()) / f"lenspipe-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """
    Keep other processes out of a folder, made where it is missing; scratch of killed ones is removed from it.

    Raises
    ------
    ConfigError
        A process that lives works in the folder, or it cannot be locked.
    """
    there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the run folder: {error.strerror}", out=str(folder)) from error
    try:
        with _lock(folder / LOCK, what=folder):
            remove_scratch(folder)
            yield
    finally:
        if not there:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing was written


@contextlib.contextmanager
def locked_beside(path: Path) -> Iterator[None]:
    """
    As `locked`, of a file, or of a folder that is to be replaced: the lock lies beside it.

    The parent folder is made where it is missing.
    """
    path = Path(os.path.abspath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder of the output: {error.strerror}", out=str(path)) from error
    with _lock(path.with_name(f".{_shortened(path.name)}{LOCK}"), what=path):
        remove_scratch(path.parent, path.name)
        yield


@contextlib.contextmanager
def _lock(file: Path, *, what: Path) -> Iterator[None]:
    """
    Hold a lock file that goes with the process, however it dies, and that is removed at the end.

    It may be taken again by who holds it. It is opened without following a link, and never truncated.
    """
    key = os.path.abspath(file)
    if key in _held.get():
        yield
        return
    handle = _open_lock(file, what)
    token = _held.set(_held.get() | {key})
    try:
        yield
    finally:
        _held.reset(token)
        with contextlib.suppress(OSError):  # removed while it is held, so that it is nobody else's
            if os.pread(handle, len(_MARK) + 1, 0) == _MARK:
                os.unlink(file)
        os.close(handle)


def _open_lock(file: Path, what: Path) -> int:
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            why = "a link is in the way" if file.is_symlink() else error.strerror
            raise ConfigError(f"cannot write in the folder: {why}", file=str(file)) from error
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigError("cannot write in the folder: its lock is not a file", file=str(file))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    "another process is working in this folder; wait for it to end", out=str(what)
                ) from None
            except OSError as error:
                raise ConfigError(
                    f"the file system has no locks ({error.strerror}); choose another output", file=str(file)
                ) from error
            if _is_still(handle, file):  # else who held it has removed it since
                if not os.fstat(handle).st_size:
                    _mark(handle, file)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_still(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(file))
    except FileNotFoundError:
        return False


def _mark(handle: int, file: Path) -> None:
    """Say in an empty lock whose it is; raises `OSError` where the disk is full, and leaves nothing then."""
    try:
        os.pwrite(handle, _MARK, 0)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(file)
        raise


def foreign_in(folder: Path, ours: Ours) -> str | None:
    """The first path in a folder that is not ours, or a link; None where there is none."""
    for root, folders, files in os.walk(folder):
        for name in sorted([*files, *(f for f in folders if os.path.islink(os.path.join(root, f)))]):
            path = os.path.join(root, name)
            inside = os.path.relpath(path, folder).replace(os.sep, "/")
            if not is_scratch(name) and (os.path.islink(path) or not ours(inside)):
                return inside
    return None


def demand_ours(folder: Path, ours: Ours) -> None:
    """Raise `ConfigError` where a folder that is to be replaced is a link or holds something that is not ours."""
    if folder.is_symlink():
        raise ConfigError("a link is in the way; remove it, or name what it points to", folder=str(folder))
    if folder.exists() and not folder.is_dir():
        raise ConfigError("a file is in the way; move it", file=str(folder))
    if (other := foreign_in(folder, ours)) is not None:
        raise ConfigError(
            "the folder would be replaced and holds a file that lenspipe did not write; move that away",
            folder=str(folder),
            file=other,
        )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """
    A scratch folder that becomes ``folder``, missing or empty until then, when the body ends without an error.

    Raises
    ------
    ConfigError
        The folder holds something, or another process makes it.
    """
    folder = Path(os.path.abspath(folder))
    with locked_beside(folder):
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise ConfigError("the output exists: choose another folder or remove it first", out=str(folder))
        scratch = scratch_beside(folder)
        scratch.mkdir()
        try:
            yield scratch
            os.replace(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def replaced_folder(folder: Path, *, replace: bool, ours: Ours) -> Iterator[Path]:
    """
    A scratch folder beside ``folder`` that takes its place when the body ends without an error.

    An error, such as a full disk, leaves the old folder untouched, also one between the two renames. A process that
    dies there leaves the old folder under its ``.old`` name; `put_back` (which this calls) gives it its name again.

    Parameters
    ----------
    folder : Path
    replace : bool
        Whether it may be there.
    ours : callable
        What may be deleted with the old folder.

    Raises
    ------
    ConfigError
        The folder exists and ``replace`` is not set; it is a link, or holds what is not ours; another process
        writes it.
    """
    folder = Path(os.path.abspath(folder))
    with locked_beside(folder):
        set_aside = put_back(folder, ours=ours)
        if folder.exists() and not replace:
            raise ConfigError("the folder exists; choose another --out, or add to it by --append", out=str(folder))
        demand_ours(folder, ours)
        scratch = scratch_beside(folder)
        scratch.mkdir()
        try:
            yield scratch
            demand_ours(folder, ours)
            if folder.exists():
                os.replace(folder, set_aside)
            try:
                os.replace(scratch, folder)
            except OSError:
                put_back(folder, ours=ours)
                raise
            shutil.rmtree(set_aside, ignore_errors=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def put_back(folder: Path, *, ours: Ours) -> Path:
    """
    Give a folder its name again that a writer which died had set aside; returns the name under which that would be.

    Raises
    ------
    ConfigError
        It would have to be deleted, and holds what is not ours.
    """
    set_aside = folder.with_name(f".{_shortened(folder.name)}.old")
    if os.path.lexists(set_aside):
        if folder.exists():
            demand_ours(set_aside, ours)
            shutil.rmtree(set_aside)
        else:
            os.replace(set_aside, folder)
    return set_aside
