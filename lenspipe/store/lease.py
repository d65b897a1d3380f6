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


class Lease:
    """
    One process's right to write below a URL, renewed by a thread while it lives; made by `leased`.

    It is a conditional put where the store has one (S3, Google Cloud Storage, memory), so that of two processes one
    gets it. Elsewhere the later of two writers within a second wins, and the other one sees that.
    """

    def __init__(self, url: str) -> None:
        self._url, self._token = url, uuid.uuid4().hex
        self._ended = threading.Event()
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
            if holder.get("token") == self._token:  # the answer to the put was lost on its way
                threading.Thread(target=self._renew, daemon=True).start()
                return
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
        if not self.lost:
            holder = self._holder()
            if holder is not None and holder.get("token") == self._token:
                remove(self._url, [LOCK])

    def demand(self) -> None:
        """Raise `StoreError` where another process has it."""
        if self.lost:
            raise StoreError("another process has taken the folder, for this one was away too long", url=self._url)

    def _make(self) -> bool:
        place, content = joined(self._url, LOCK), self._content()
        try:
            patiently(lambda: write_bytes(place, content, new=True), place)
            return True
        except FileExistsError:
            return False
        except (NotImplementedError, TypeError, ValueError):  # the store has no conditional put
            if self._holder() is not None:
                return False
            write_bytes(place, content)
            time.sleep(_SETTLE_S)
            holder = self._holder()
            return holder is not None and holder.get("token") == self._token

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
        if holder.get("host") == _host() and isinstance(holder.get("process"), int):
            return _began(holder["process"]) != holder.get("began")
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
            with contextlib.suppress(Exception):  # the next time, or it is lost
                holder = self._holder()
                if holder is not None and holder.get("token") != self._token:
                    self.lost = True
                    return
                if not self._ended.is_set():
                    write_bytes(joined(self._url, LOCK), self._content())


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
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return socket.gethostname()


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
