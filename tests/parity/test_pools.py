"""What a job asks of a cluster, beside what it has and can grow to: a job that can never run is refused at once."""

import pytest

from lenspipe.distributed.pools import (
    WORKER_BYTES,
    Machines,
    Pool,
    capped,
    demand_possible,
    lines,
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
