"""What a job asks of a cluster, beside what it has and can grow to: a job that can never run is refused at once."""

from types import SimpleNamespace

import pytest

from lenspipe.distributed.actors import Told
from lenspipe.distributed.pools import (
    GROWS_TO,
    NO_PROGRESS_S,
    WORKER_BYTES,
    Machines,
    Pool,
    capped,
    demand_possible,
    fewer,
    fitted,
    lines,
    memory_share,
    parse_machines,
    preflight,
    worker_bytes,
)
from lenspipe.errors import ConfigError
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext
from lenspipe.survey.layout import read_layout

HEAD = Machines({"CPU": 0, "memory": 8e9}, 1)
CPU, GPU = {"CPU": 16, "memory": 64e9}, {"CPU": 8, "GPU": 2, "memory": 64e9}
READERS = Pool("readers", {"CPU": 1, "memory": 2e9}, 1, 40)
SCORERS = Pool("scorers", {"CPU": 0.5, "GPU": 0.5, "memory": 2e9}, 1, 8)


def asked(*pools, now=(HEAD,), later=None, grows=False):
    rows = preflight(pools, now, later)
    demand_possible(rows, now, later, grows=grows)
    return [(row.now, row.later) for row in rows]


def test_pools_fit_by_the_scarcest_of_what_they_take_now_and_grown():
    later = [Machines(CPU, 4), Machines(GPU, 3)]
    assert asked(READERS, SCORERS, now=[HEAD, Machines(CPU, 1)], later=later) == [(16, 4 * 16 + 3 * 8), (0, 12)]
    assert asked(READERS, SCORERS, later=[Machines(GPU, None)]) == [(0, None), (0, None)]
    assert asked(Pool("readers", {"CPU": 1, "memory": 30e9}, 1, 9), later=[Machines(CPU, 4)]) == [(0, 8)]


@pytest.mark.parametrize(
    ("pools", "more", "message"),
    [
        ([SCORERS], {"later": [Machines(CPU, 9)]}, r"no machine .* one of the scorers.*each='0.5 CPU, 0.5 GPU"),
        ([Pool("readers", {"CPU": 1, "memory": 9e10}, 1, 4)], {"later": [Machines(CPU, 9)]}, r"larger machines"),
        ([Pool("scorers", SCORERS.each, 9, 9)], {"later": [Machines(GPU, 2)]}, r"asked=9.*can_hold=8"),
        ([READERS], {}, "no machine of the cluster"),
        ([SCORERS], {"now": [Machines(CPU, 4)]}, "no machine of the cluster"),
        ([READERS, SCORERS], {"now": [Machines({"CPU": 1, "GPU": 1, "memory": 9e9}, 1)]}, "together need more CPUs"),
    ],
)
def test_what_can_never_run_is_refused(pools, more, message):
    with pytest.raises(ConfigError, match=message):
        asked(*pools, **more)


ONE_OF_EACH = [
    Pool("readers", {"CPU": 1, "memory": 6e9}, 1, 8),
    Pool("scorers", {"CPU": 1, "GPU": 1, "memory": 2e9}, 1, 1),
    Pool("committers", {"CPU": 0.1}, 1, 1),
]


def machine(cpu, memory, gpu=0, count=1):
    return Machines({"CPU": cpu, "memory": memory, **({"GPU": gpu} if gpu else {})}, count)


@pytest.mark.parametrize(
    ("machines", "share"),
    [
        ([machine(4, 8e9, gpu=1)], 1.0),
        ([machine(4, 4e9, gpu=1)], 0.5),
        ([machine(4, 2e9, gpu=1), machine(1, 6e9)], 1.0),  # the reader on the one, the others beside the GPU
        ([machine(1.05, 2e9, gpu=1), machine(1.05, 6e9)], None),  # no room for the committer, though the sums do
        ([machine(1.1, 2e9, gpu=1), machine(1, 3e9)], 0.5),
        ([machine(1, 9e9), machine(0.1, 1e9, count=None), machine(1, 1e9, gpu=1)], 0.5),
        ([machine(4, 9e9)], None),  # no GPU
        ([Machines({"CPU": 4, "GPU": 1}, 1)], 1.0),  # nobody says what memory it has
        ([machine(1, 1e9, count=500), machine(1, 6e9, count=None), machine(1.1, 2e9, gpu=2)], 1.0),
    ],
)
def test_one_process_of_each_pool_is_held_together_machine_by_machine_memory_included(machines, share):
    assert memory_share(ONE_OF_EACH, machines) == share
    pools = fitted(ONE_OF_EACH, (), machines, grows=False)
    if share is None:
        with pytest.raises(ConfigError, match=r"no machine of the cluster|no machines hold one of each together"):
            asked(*pools, later=machines)
        return
    asked(*pools, later=machines)
    if share < 1:
        assert memory_share(pools, machines) == 1.0, "memory is an estimate, and is scaled down"
        with pytest.raises(ConfigError, match="hold one of"):
            asked(*ONE_OF_EACH, later=machines)


def test_memory_that_lies_on_a_machine_without_room_for_the_process_is_not_counted():
    machines = [machine(4, 6e9, gpu=1), machine(0.1, 9e9)]
    with pytest.raises(ConfigError, match=r"no machines hold one of each together.*readers 1 CPU, 5.6 GiB; scorers"):
        asked(*ONE_OF_EACH, later=machines)
    asked(*fitted(ONE_OF_EACH, (), machines, grows=False), later=machines)


def test_memory_is_scaled_for_all_pools_alike_and_not_where_larger_machines_come():
    small = [machine(4, 4e9, gpu=1)]
    pools = fitted(ONE_OF_EACH, small, None, grows=False)
    # the reader alone may have the machine's 4 GB; beside the scorer's 2 GB both have two thirds of that
    assert [pool.each.get("memory") for pool in pools] == [pytest.approx(8e9 / 3), pytest.approx(4e9 / 3), None]
    large = [machine(4, 64e9, gpu=1)]
    assert fitted(ONE_OF_EACH, small, large, grows=False) == ONE_OF_EACH
    unknown = fitted(ONE_OF_EACH, small, None, grows=True)
    assert [pool.each.get("memory") for pool in unknown] == [4e9, 2e9, None], "as each fits alone"


def test_fewer_than_asked_for_is_one_line_and_enough_is_none():
    rows = preflight([READERS, SCORERS], [Machines(GPU, 1)], None)
    assert fewer(rows) == [
        "Fewer fit now than are asked for: 8 of 40 readers (each 1 CPU, 1.9 GiB), 4 of 8 scorers (each 0.5 CPU, "
        "0.5 GPU, 1.9 GiB)."
    ]
    assert fewer(preflight([Pool("scorers", SCORERS.each, 1, 4)], [Machines(GPU, 1)], None)) == []


def test_where_machines_may_come_of_which_nobody_says_anything_the_job_waits_for_them():
    assert asked(READERS, SCORERS, grows=True) == [(0, None), (0, None)]


def test_the_table_says_what_is_asked_what_is_there_and_what_can_come():
    rows = preflight([READERS, SCORERS], [HEAD], parse_machines("4xCPU=16,memory=64GiB xCPU=8,GPU=2,memory=64GiB"))
    table = lines(rows)
    assert table[1] == "readers      1 CPU, 1.9 GiB                  1 to 40  0          not bounded"
    assert table[2] == "scorers      0.5 CPU, 0.5 GPU, 1.9 GiB       1 to 8   0          not bounded"
    few = lines(preflight([SCORERS], [Machines(GPU, 1)], [Machines(GPU, 3)]))
    assert few[1] == "scorers      0.5 CPU, 0.5 GPU, 1.9 GiB       1 to 8   4          12"


def test_machines_are_read_from_words_and_refused_where_they_are_none():
    assert parse_machines("2xCPU=8,GPU=1,memory=4GiB xCPU=1") == [
        Machines({"CPU": 8.0, "GPU": 1.0, "memory": 4 * 2.0**30}, 2),
        Machines({"CPU": 1.0}, None),
    ]
    for wrong in ("CPU=1", "2xCPU", "2xdisk=4", "twoxCPU=1", "2xCPU=many"):
        with pytest.raises(ConfigError, match="LENSPIPE_GROWS_TO"):
            parse_machines(wrong)


def test_an_estimate_of_memory_keeps_no_work_from_a_machine_and_is_what_was_measured():
    assert capped(READERS.each, [Machines({"CPU": 2, "memory": 1e9}, 1)]) == {"CPU": 1, "memory": 1e9}
    assert capped(READERS.each, [Machines({"CPU": 2}, 1)]) == {"CPU": 1}
    assert worker_bytes(2432**2, 4) / 2**20 == pytest.approx(908, rel=0.06) and worker_bytes(0, 4) == WORKER_BYTES


def test_scorers_that_shall_share_a_gpu_are_refused_where_nothing_is_scored_on_one():
    from lenspipe.distributed.scan import Resources, gpus_for

    nothing = ScanContext(ScanConfig(), read_layout("generic"), ("r",), "attempts", ())
    assert gpus_for(nothing, Resources()) is None
    with pytest.raises(ConfigError, match=r"leave --scorers-per-gpu out.*scorers_per_gpu=2"):
        gpus_for(nothing, Resources(scorers_per_gpu=2))


@pytest.mark.parametrize(("own", "later"), [("1", 2), ("0", 960)])
def test_a_ray_of_our_own_does_not_grow_whatever_the_environment_promises(monkeypatch, own, later):
    from lenspipe.distributed import scan

    nodes = [{"Resources": {"CPU": 2.0, "node:1": 1.0}, "Alive": True}, {"Resources": {"CPU": 9.0}, "Alive": False}]
    monkeypatch.setattr(scan.ray, "nodes", lambda: nodes)
    monkeypatch.setenv("LENSPIPE_OWN_RAY", own)
    monkeypatch.setenv(GROWS_TO, "60xCPU=16")
    assert sum(kind.each["CPU"] * kind.count for kind in scan.machines_later()) == later
    monkeypatch.delenv(GROWS_TO)
    assert (scan.machines_later() is None) == (own == "0")


class Scan:
    """What `scan_ray` needs of a plan, and Ray's machines; no work is done."""

    def __init__(self, monkeypatch, window_px):
        from lenspipe.distributed import scan

        self.said, self.limit_s = [], None
        monkeypatch.setenv("LENSPIPE_OWN_RAY", "1")
        monkeypatch.setattr(scan.ray, "nodes", lambda: [{"Resources": {"CPU": 4.0, "memory": 2.5e9}, "Alive": True}])
        monkeypatch.setattr(scan, "in_actors", self.in_actors)
        window = SimpleNamespace(n_px=window_px)
        self.tasks = [SimpleNamespace(shard=SimpleNamespace(window=window))] * 100

    def in_actors(self, work, settings, calls, pool, on_part, *, no_progress_s):
        self.limit_s = no_progress_s
        return Told(len(calls), None, asked=0, began=0, died=0)

    def run(self):
        from lenspipe.distributed.scan import scan_ray

        nothing = ScanContext(ScanConfig(), read_layout("generic"), tuple("griz"), "attempts", ())
        scan_ray(self.tasks, nothing, "parts", session="s", n_worker=4, on_part=print, say=self.said.append)
        return self


def test_on_one_machine_too_it_is_said_that_fewer_workers_fit_than_are_asked_for(monkeypatch):
    assert Scan(monkeypatch, 2432**2).run().said == [
        "Fewer fit now than are asked for: 2 of 4 workers (each 1 CPU, 0.9 GiB)."
    ]
    assert Scan(monkeypatch, 100).run().said == []


def test_a_call_may_take_as_long_as_the_plan_lets_expect(monkeypatch):
    assert Scan(monkeypatch, 2432**2).run().limit_s == NO_PROGRESS_S
    slow = Scan(monkeypatch, 30_000**2).run()  # 4 shards of 4 bands: an hour and a half, within a factor of three
    assert slow.limit_s == pytest.approx(10 * 4 * 4 * 30_000**2 / 2.5e6)
