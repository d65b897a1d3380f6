"""What the measurements share: a timer, a watcher of memory, a form of an aim, a command line; all use them."""

from __future__ import annotations

import ast
import gc
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from benchmarks import record
from benchmarks.memory import PeakMemory, each_mib, own_mib, pss_mib, rss_mib, tree, uss_mib
from benchmarks.timing import Clock, fastest_s, median_s, rounds_s

BENCHMARKS = Path(record.__file__).parent
TOOLS = {
    "record.py",
    "timing.py",
    "memory.py",
    "one_thread.py",
    "writers.py",
    "forks.py",
    "fuzzed_commands.py",
    "victims.py",
}
LIBRARIES = {"data.py", "hosts.py", "page.py", "ground.py", "space.py", "ideal.py", "smooth.py", "cells.py"}
"""Files of studies that are no scripts."""
PEERS = BENCHMARKS / "peer_scripts"
"""What `benchmarks.peers` runs in the environments of other packages, where lenspipe is not."""
SCRIPTS = [
    p
    for p in sorted(BENCHMARKS.rglob("*.py"))
    if p.name not in {"__init__.py", *TOOLS, *LIBRARIES} and p.parent != PEERS
]


@pytest.fixture
def environment() -> Iterator[None]:
    """What a script sets for itself and its children is not left to other tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_every_script_is_a_module_with_a_command(script: Path, environment: None) -> None:
    name = ".".join(["benchmarks", *script.relative_to(BENCHMARKS).with_suffix("").parts])
    module = importlib.import_module(name)
    (command,) = {
        one for one in vars(module).values() if isinstance(one, click.Command) and one.callback.__module__ == name
    }
    shown = CliRunner().invoke(command, ["--help"])
    assert shown.exit_code == 0 and command.help
    assert f"python -m {name}" in (module.__doc__ or "") or "studies" not in script.relative_to(BENCHMARKS).parts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_no_script_has_a_timer_a_watcher_or_arguments_of_its_own(script: Path) -> None:
    tree_ = ast.parse(script.read_text())
    used = {
        f"{n.value.id}.{n.attr}"
        for n in ast.walk(tree_)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
    }
    assert not used & {
        "sys.argv",
        "time.perf_counter",
        "time.process_time",
        "threading.Thread",
        "argparse.ArgumentParser",
    }


def test_a_clock_counts_waiting_as_wall_time_and_work_as_processor_time() -> None:
    with Clock() as waited:
        time.sleep(0.05)
    assert waited.wall_s >= 0.05 > waited.cpu_s
    stopped = waited.wall_s
    time.sleep(0.01)
    assert waited.wall_s == stopped
    with Clock() as worked:
        while worked.cpu_s < 0.02:
            pass
    assert worked.cpu_s >= 0.02


def test_rounds_take_turns_and_the_first_is_not_counted() -> None:
    calls: list[str] = []
    found = rounds_s({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3}
    first: list[int] = []

    def slow_at_first() -> None:
        if not first:
            first.append(1)
            sum(range(3_000_000))

    assert fastest_s(slow_at_first, 2) <= median_s(slow_at_first, 3) + 0.01 < 0.02


def test_a_peak_is_seen_after_it_has_gone() -> None:
    me = psutil.Process()
    gc.collect()  # what other tests left must not go while this one looks
    before = rss_mib(me)
    with PeakMemory(lambda: rss_mib(me), every_s=0.002) as memory:
        block = np.ones(256 << 17)  # 256 MiB
        limit = time.monotonic() + 60  # a busy machine may not look for a while
        while memory.peak_mib - before < 100 and time.monotonic() < limit:
            time.sleep(0.01)
        del block
    assert memory.peak_mib - before > 100
    assert uss_mib(me) <= pss_mib(me) <= rss_mib(me) + 1
    assert own_mib(me) <= rss_mib(me)


def test_processes_that_have_ended_are_left_out() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    running = tree(child.pid)
    assert [p.pid for p in running] == [child.pid]
    child.kill()
    child.wait()
    assert each_mib(rss_mib, running) == []
    assert tree(child.pid) == []


def test_an_aim_is_kept_with_the_record_and_a_missed_one_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    record.write("good", {"x": 1}, [record.at_most("ratio", 1.0, 1.0), record.at_least("speed", 3.0, 2.0)])
    kept = json.loads((tmp_path / "results/good.json").read_text())
    assert kept["aims"][0] == {"what": "ratio", "value": 1.0, "at_most": 1.0, "reached": True}
    assert {"benchmark", "date", "commit", "machine", "result"} < set(kept)
    with pytest.raises(SystemExit) as ended:
        record.write("bad", {"x": 1}, [record.at_least("speed", float(np.float32(1.5)), 2.0)], keep=False)
    assert ended.value.code == 1
    assert 'missed: {"what": "speed"' in capsys.readouterr().err
    assert not (tmp_path / "results/bad.json").exists()


def test_a_value_that_is_not_a_number_reaches_no_aim() -> None:
    assert not record.at_most("ratio", np.nan, 1.0).reached
    assert not record.at_least("ratio", np.nan, 1.0).reached
