"""Who holds the lease of a folder: only who reads its own token back, and only as long as it renews it."""

import json
import os

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lenspipe.errors import ConfigError, StoreError
from lenspipe.store import lease
from lenspipe.store.lease import Lease, leased
from lenspipe.store.objects import listed, remove, write_bytes
from lenspipe.store.place import place_at

OTHER = json.dumps({"token": "y", "host": "elsewhere", "process": 1, "began": "1"}).encode()


class Heedless(MemoryFileSystem):
    """A store that overwrites, whatever it is asked."""

    protocol = "heedless"
    store, pseudo_dirs = {}, [""]

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value)


fsspec.register_implementation("heedless", Heedless, clobber=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(lease, "_SETTLE_S", 0.01)


@pytest.mark.parametrize("known", [set(), {"heedless"}])
def test_a_store_that_overwrites_in_spite_of_create_gives_the_lease_to_one(monkeypatch, known):
    monkeypatch.setattr(lease, "_CONDITIONAL", known)
    url = f"heedless://box/{len(known)}"
    with leased(url) as first:
        with pytest.raises(ConfigError, match="another process is working"):
            Lease(url).take()
        first.demand()
        holder = Lease._holder
        asked = []
        monkeypatch.setattr(Lease, "_holder", lambda self: holder(self) if asked else asked.append(1))  # a race
        assert Lease(url)._make()
        with pytest.raises(StoreError, match="has taken the folder"):
            first.demand()


@pytest.mark.parametrize("there", [OTHER, None])
def test_a_writer_that_lost_its_lease_puts_and_removes_nothing_more(there):
    url = f"memory://lost/{there is None}"
    write_bytes(f"{url}/old.parquet", b"1")
    with pytest.raises(StoreError, match="has taken the folder"), place_at(url, writes=True) as folder:
        (folder / "run.json").write_text("{}")
        (folder / "old.parquet").unlink()
        remove(url, [".lock"])
        if there:
            write_bytes(f"{url}/.lock", there)
    assert set(listed(url)) - {".lock"} == {"old.parquet"}


def test_the_lease_is_asked_for_again_before_records_and_before_removals(monkeypatch):
    url, allowed = "memory://again", [1]
    write_bytes(f"{url}/old.parquet", b"1")

    def demand(self):
        if not allowed:
            raise StoreError("lost")
        allowed.pop()

    monkeypatch.setattr(Lease, "demand", demand)
    for n, there in ((1, {"old.parquet", "a.parquet"}), (2, {"old.parquet", "a.parquet", "run.json"})):
        allowed[:] = [1] * n
        with pytest.raises(StoreError, match="lost"), place_at(url, writes=True) as folder:
            for name in ("run.json", "a.parquet"):
                (folder / name).write_text("1")
            (folder / "old.parquet").unlink()
        assert set(listed(url)) == there


def test_a_lease_that_is_gone_or_was_not_renewed_in_time_is_lost(monkeypatch):
    monkeypatch.setattr(lease, "LEASE_S", 0.08)
    with leased("memory://gone") as mine:
        remove("memory://gone", [".lock"])
        for _ in range(100):
            if mine.lost:
                break
            mine._ended.wait(0.01)
        assert mine.lost and not listed("memory://gone")
    monkeypatch.setattr(Lease, "_renew", lambda self: None)
    with leased("memory://late") as mine:
        mine.demand()
        mine._renewed -= 1
        with pytest.raises(StoreError, match="away too long"):
            mine.demand()


def test_the_dead_are_known_by_process_number_only_in_the_same_space_of_numbers(monkeypatch):
    me = {"token": "x", "host": lease._host(), "process": os.getpid(), "began": "an earlier one of this number"}
    monkeypatch.setattr(Lease, "_age_s", lambda self, holder: 0.0)
    mine = Lease("memory://dead")
    assert os.readlink("/proc/self/ns/pid") in lease._host() and mine._died(me)
    assert not mine._died({**me, "host": me["host"].replace("pid:[", "pid:[9")})
    assert not mine._died({**me, "began": None})
    monkeypatch.setattr(lease, "_began", lambda process: None)
    assert not mine._died(me)
    monkeypatch.setattr(Lease, "_age_s", lambda self, holder: lease.LEASE_S + 1)
    assert mine._died(me)
