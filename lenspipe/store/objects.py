"""Single objects of a store: read, listed, written, removed, with patience for a store that fails for a while."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lenspipe.errors import ForbiddenError, StoreError
from lenspipe.store.urls import is_remote, joined, said, url_filesystem

T = TypeVar("T")
PATIENCE = "LENSPIPE_STORE_PATIENCE_S"
"""Environment variable: how long a store may fail before work is given up, seconds."""
PATIENCE_S = 120.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 10.0
_FINAL = (
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError),
    *(ImportError, TypeError, ValueError, KeyError, AttributeError, StoreError),
)
"""What waiting does not mend."""
_FINAL_WORDS = ("ParamValidation", "NoSuchBucket")
_CREDENTIALS = (
    *("Credential", "RefreshError", "InvalidToken", "ExpiredToken", "TokenRefreshRequired", "InvalidAccessKeyId"),
    *(
        "SignatureDoesNotMatch",
        "RequestTimeTooSkewed",
        "TokenRetrieval",
        "SSOToken",
        "NotSignedUp",
        "ClientAuthentication",
    ),
    *("401, message", "Access Key Id you provided", "provided token"),
)
"""In what is said of credentials that are absent, expired or not known: of all objects, not of one."""
_FORBIDDEN = (403, 451)
_PASSING = (408, 421, 423, 425, 429)
"""What web servers answer for a while; their other answers from 400 to 499 do not change by asking again."""
MERGE_BYTES = 32 << 10
"""Two ranges with less than this between them are one request, which takes as long as this many bytes or more."""
RANGES_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Version:
    """Tells one content of an object from another, as far as its store does."""

    size: int
    tag: str
    """ETag, generation or time of change."""


def patience_s() -> float:
    """How long a store may fail before work is given up, seconds."""
    return float(os.environ.get(PATIENCE, PATIENCE_S))


def patiently(work: Callable[[], T], url: str) -> T:
    """
    Carry out what a store may refuse for a while: server errors, timeouts, a network that is away.

    The store's package has tries of its own; this waits beyond them, up to `PATIENCE_S` in all.

    Raises
    ------
    StoreError
        The store fails for longer, or takes no credentials; `ForbiddenError` where it knows them, and refuses. What
        else waiting does not mend (no such object) is raised as it is.
    """
    begun, wait = time.monotonic(), _FIRST_WAIT_S
    while True:
        try:
            return work()
        except Exception as error:
            if is_remote(url) and (refusal := _refusal(error, url)) is not None:
                raise refusal from error
            if isinstance(error, _FINAL) or any(w in f"{type(error).__name__} {error}" for w in _FINAL_WORDS):
                raise
            waited = time.monotonic() - begun
            if waited + wait > patience_s():
                raise StoreError(
                    "the store fails; what was committed is kept: give the same command again when it answers, with "
                    f"--resume where there is one ({said(error)})",
                    url=url,
                    waited_s=round(waited, 1),
                ) from error
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, _LONGEST_WAIT_S)


def _refusal(error: BaseException, url: str) -> StoreError | None:
    """What to say of an error about permissions; None of others."""
    if isinstance(error, StoreError):
        return None
    at: BaseException | None = error
    while at is not None:  # the store's package translates the server's code away, and keeps it as the cause
        if not isinstance(at, FileNotFoundError) and any(w in f"{type(at).__name__} {at}" for w in _CREDENTIALS):
            return StoreError(
                "the store takes no credentials of this process: they are missing, expired or not known to it; "
                "set or renew them (for S3: AWS_PROFILE, AWS_ACCESS_KEY_ID or `aws sso login`), look at the clock, and "
                f"give the same command again, with --resume where there is one ({said(at)})",
                url=url,
            )
        at = at.__cause__ or at.__context__
    status = getattr(error, "status", None)  # of a web server
    if isinstance(error, PermissionError) or status in _FORBIDDEN:
        return ForbiddenError(
            "the store forbids it: ask its owner for the permission to list, read and write there, or take other "
            f"credentials ({said(error)})",
            url=url,
        )
    if isinstance(status, int) and 400 <= status < 500 and status not in _PASSING:
        return StoreError(f"the server refuses what was asked of it ({said(error)})", url=url)
    return None


def version_of(url: str) -> Version:
    """Size and version of an object, asked of the store; raises `FileNotFoundError` where there is none."""
    filesystem, path = url_filesystem(url)

    def ask() -> Version:
        filesystem.invalidate_cache(path)
        try:
            facts = filesystem.info(path)
        except PermissionError:  # the answer to HEAD has no body that would say why; that to GET has
            filesystem.cat_file(path, start=0, end=1)
            raise
        if facts.get("type") == "directory" or facts.get("size") is None:
            raise FileNotFoundError(f"{url} is not an object with a size")
        return _version(facts)

    return patiently(ask, url)


_TAGS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "updated", "created")


def _version(facts: dict[str, Any]) -> Version:
    return Version(int(facts["size"]), next((str(facts[name]) for name in _TAGS if facts.get(name)), ""))


def read_bytes(url: str) -> bytes:
    """All of an object."""
    filesystem, path = url_filesystem(url)
    return bytes(patiently(lambda: filesystem.cat_file(path), url))


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """
    Pieces of an object, several requests at a time.

    Raises
    ------
    OSError
        The store gives another number of bytes than a range has: it serves no parts of objects, or it has changed.
    """
    filesystem, path = url_filesystem(url)
    found: list[bytes] = []
    for first in range(0, len(ranges), RANGES_AT_ONCE):
        some = ranges[first : first + RANGES_AT_ONCE]
        starts, ends = [start for start, _ in some], [end for _, end in some]

        def ask(starts: list[int] = starts, ends: list[int] = ends) -> list[bytes]:
            return list(filesystem.cat_ranges([path] * len(starts), starts, ends, on_error="raise"))

        found += patiently(ask, url)
    for piece, (start, end) in zip(found, ranges, strict=True):
        if len(piece) != end - start:
            raise OSError(f"the store gave {len(piece)} bytes of {end - start}: it has changed, or serves no ranges")
    return found


def write_bytes(url: str, data: bytes, *, new: bool = False) -> None:
    """
    Put an object: it is there as a whole or not at all, without a rename.

    Parameters
    ----------
    url : str
    data : bytes
    new : bool
        Only where there is none (a conditional put); the caller deals with a store that has no such thing.

    Raises
    ------
    FileExistsError
        With ``new``: there is one.
    """
    filesystem, path = url_filesystem(url)
    if new:
        filesystem.pipe_file(path, data, mode="create")
    else:
        patiently(lambda: filesystem.pipe_file(path, data), url)


def listed(url: str) -> dict[str, Version]:
    """Objects below a URL by their name there; empty where there are none."""
    filesystem, path = url_filesystem(url)

    def ask() -> dict[str, Any]:
        filesystem.invalidate_cache()
        try:
            return dict(filesystem.find(path, detail=True))
        except FileNotFoundError:
            return {}

    root = path.strip("/")
    found = {}
    for name, facts in patiently(ask, url).items():
        inside = name.strip("/").removeprefix(root).strip("/")
        if inside and facts.get("type") != "directory":
            found[inside] = _version(facts)
    return found


def remove(url: str, names: Sequence[str]) -> None:
    """Remove objects below a URL; those that are not there count as removed."""
    for name in names:
        filesystem, path = url_filesystem(joined(url, name))

        def ask(filesystem: Any = filesystem, path: str = path) -> None:
            try:
                filesystem.rm_file(path)
            except FileNotFoundError:
                return

        patiently(ask, url)
