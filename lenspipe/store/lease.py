"""A folder of a store that one process at a time writes to: a lease, an object made only where there is none."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lenspipe.errors import ConfigError, StoreError
from lenspipe.store.objects import patiently, read_bytes, remove, write_bytes
from lenspipe.store.urls import joined, url_filesystem

LOCK = ".lock"
LEASE_S = 60.0
"""A lease that was not renewed for so long is that of a process which died."""
RENEWALS = 4
"""In that time."""
_SETTLE_S = 1.0
_CONDITIONAL = {"s3", "s3a", "gs", "gcs", "memory"}
"""Protocols whose packages are known to heed ``mode="create"``; others take the word and overwrite."""


class Lease:
    """
    One process's right to write below a URL, renewed by a thread while it lives; made by `leased`.

    It is a conditional put where the store has one (S3, Google Cloud Storage, memory), so that of two processes one
    gets it. Elsewhere the later of two writers within a second wins, and the other one sees that. Either way it has
    what it put only where it reads it back.
    """

    def __init__(self, url: str) -> None:
        self._url, self._token = url, uuid.uuid4().hex
        self._ended, self._busy = threading.Event(), threading.Lock()
        self._renewed = 0.0
        """When it was last put, as `time.monotonic` says before the put."""
        self.lost = False
        """Whether another process has it now: this one was away for longer than `LEASE_S`."""

    def take(self) -> None:
        """Get it, or raise `ConfigError`; that of a process which died is removed first."""
        for _ in range(3):
            if self._make():
                threading.Thread(target=self._renew, daemon=True).start()
                return
            holder = self._holder()
            if holder is None:
                continue
            if not self._died(holder):
                break
            remove(self._url, [LOCK])
        raise ConfigError(
            "another process is working in this folder; wait for it to end (one that was killed on another machine "
            f"holds it for {LEASE_S:g} s more)",
            out=self._url,
            host=str((holder or {}).get("host")),
            process=str((holder or {}).get("process")),
        )

    def give_back(self) -> None:
        """Let others have it."""
        self._ended.set()
        with self._busy:  # a renewal underway would make it again
            if not self.lost and self._is_ours():
                remove(self._url, [LOCK])

    def demand(self) -> None:
        """
        Ask the store whether this process has it; one that was just woken is given the time of a renewal.

        Raises
        ------
        StoreError
            Another process has it, nobody has, or it was not renewed for `LEASE_S`, so that another may be taking it.
        """
        until = time.monotonic() + LEASE_S / RENEWALS
        while self._stale() and not self.lost and time.monotonic() < until:
            time.sleep(LEASE_S / RENEWALS / 20)
        if self.lost or self._stale() or not self._is_ours():
            self.lost = True
            raise StoreError(
                "another process has taken the folder or may have, for this one was away too long; give the same "
                "command again, with --resume where there is one",
                url=self._url,
            )

    def _stale(self) -> bool:
        return time.monotonic() - self._renewed > LEASE_S

    def _is_ours(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.get("token") == self._token

    def _put(self, *, new: bool) -> None:
        place, content, now = joined(self._url, LOCK), self._content(), time.monotonic()
        if new:
            patiently(lambda: write_bytes(place, content, new=True), place)
        else:
            write_bytes(place, content)
        self._renewed = now

    def _make(self) -> bool:
        """Put it where there is none; whether what is read back is ours."""
        if self._holder() is not None:
            return False
        try:
            if not _conditional(self._url):
                raise NotImplementedError
            self._put(new=True)
        except FileExistsError:  # of another, or ours, and the answer to the put was lost on its way
            self._renewed = time.monotonic()
        except (NotImplementedError, TypeError, ValueError):  # the store has no conditional put
            self._put(new=False)
            time.sleep(_SETTLE_S)
        return self._is_ours()

    def _content(self) -> bytes:
        me = {"token": self._token, "host": _host(), "process": os.getpid(), "began": _began(os.getpid())}
        return json.dumps({**me, "renewed": time.time()}).encode()

    def _holder(self) -> dict[str, Any] | None:
        try:
            found = json.loads(read_bytes(joined(self._url, LOCK)))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _died(self, holder: dict[str, Any]) -> bool:
        process = holder.get("process")
        if holder.get("host") == _host() and isinstance(process, int) and holder.get("began") and _began(os.getpid()):
            return _began(process) != holder.get("began")
        return self._age_s(holder) > LEASE_S

    def _age_s(self, holder: dict[str, Any]) -> float:
        """Time since the lease was renewed, by the clock of the store where it tells one."""
        probe = f"{LOCK}.{self._token}"
        write_bytes(joined(self._url, probe), b"")
        try:
            now, then = _changed(joined(self._url, probe)), _changed(joined(self._url, LOCK))
        except FileNotFoundError:
            return 0.0
        finally:
            remove(self._url, [probe])
        if now is None or then is None:
            return time.time() - float(holder.get("renewed") or 0)
        return now - then

    def _renew(self) -> None:
        while not self._ended.wait(LEASE_S / RENEWALS):
            with self._busy, contextlib.suppress(Exception):  # the next time, or it is lost
                if self._ended.is_set():
                    return
                if not self._is_ours():  # of another, or one that took it for dead is about to make its own
                    self.lost = True
                    return
                self._put(new=False)


@contextlib.contextmanager
def leased(url: str) -> Iterator[Lease]:
    """
    Keep other processes out of a folder of a store.

    Raises
    ------
    ConfigError
        A process that lives, or died a moment ago on another machine, works there.
    """
    lease = Lease(url)
    lease.take()
    try:
        yield lease
    finally:
        with contextlib.suppress(StoreError):  # it runs out by itself
            lease.give_back()


def _host() -> str:
    """Name and boot of the machine, and the space of process numbers: containers may share all but the latter."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):
        known += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(known)


def _conditional(url: str) -> bool:
    protocol = url_filesystem(url)[0].protocol
    return bool(_CONDITIONAL.intersection([protocol] if isinstance(protocol, str) else protocol))


def _began(process: int) -> str | None:
    """When a process of this machine began, in its clock's ticks; None where there is none of this number."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    return None


def _changed(url: str) -> float | None:
    filesystem, path = url_filesystem(url)
    filesystem.invalidate_cache(path)
    facts = filesystem.info(path)
    for name in ("LastModified", "updated", "mtime", "created"):
        value = facts.get(name)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.datetime.fromisoformat(value)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
