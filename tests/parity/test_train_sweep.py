"""A sweep by Ray Tune: ranks, crashes, chance, and going on after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import psutil
import pytest
import torch
from heard import Heard
from pictures import drawn
from safetensors.torch import load_file
from toy_stamps import make_stamps

from lenspipe.errors import ConfigError
from lenspipe.evaluate.audit import largest_changes
from lenspipe.learn.sweep.run import sweep
from lenspipe.learn.sweep.space import SweepSpace
from lenspipe.nn.checkpoint import load_model
from lenspipe.runner import here

BASE = {
    "sampling": {"batch_size": 16, "steps_per_epoch": 8},
    "optim": {"epochs": 2, "learning_rate": 0.02, "ema_decay": 0.8},
    "augment": {"affine_fraction": 0.0, "gap_fraction": 0.0},
}
SCRIPT = """
import json, sys
from functools import partial
from lenspipe.distributed.session import on_ray, prepare_environment
prepare_environment()
from lenspipe.distributed.sweep import sweep_ray
from lenspipe.evaluate.audit import largest_changes
from lenspipe.learn.sweep.run import sweep
from lenspipe.learn.sweep.space import SweepSpace
sweep(
    sys.argv[1],
    SweepSpace.model_validate(json.loads(sys.argv[2])),
    sys.argv[3],
    audit=largest_changes,
    runner=on_ray(lambda n_cpu: partial(sweep_ray, max_concurrent=1)),
)
"""


def space(**tables) -> SweepSpace:
    models = [{"family": "small-cnn", "settings": {"width": [3, 4]}}]
    return SweepSpace.model_validate({"base": BASE, "model": models} | tables)


def one_at_a_time():
    from lenspipe.distributed.sweep import sweep_ray

    return here(partial(sweep_ray, max_concurrent=1))


def kill_a_trial(killed: list[int]) -> None:
    """The first process of Tune that comes, as the kernel ends one when memory is short."""
    end = time.monotonic() + 120
    while not killed and time.monotonic() < end:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith("ray::ImplicitFunc"):  # one that ends has no words
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.05)


@pytest.mark.usefixtures("ray_local")
def test_killed_and_resumed_all_trials_are_ranked_and_a_crashed_one_is_a_row(tmp_path):
    """The killed driver leaves its trials behind on a cluster that lives on; the resumed one gets their CPUs."""
    import ray

    data, out = make_stamps(tmp_path / "stamps"), tmp_path / "out"
    models = [*space().model_dump()["model"], {"family": "lensflow", "settings": {"nonsense": 1}}]
    asked = space(model=models)
    command = [sys.executable, "-c", SCRIPT, str(data), json.dumps(asked.model_dump(mode="json")), str(out)]
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        end = time.monotonic() + 300
        while not list(out.glob("trials/*/result.json")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    (first,) = out.glob("trials/*/result.json")
    written = (first.parent / "model" / "weights.safetensors").stat().st_mtime_ns
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        sweep(data, asked, out)
    heard, killed = Heard(), list[int]()
    killer = threading.Thread(target=kill_a_trial, args=(killed,))
    killer.start()
    with drawn():
        rows = sweep(
            data, asked, out, runner=one_at_a_time(), audit=largest_changes, resume=True, progress=heard
        ).to_pylist()
    killer.join()
    assert killed, "a process that is lost costs no trial"
    assert (heard.total, heard.done) == (2, 2)
    assert (first.parent / "model" / "weights.safetensors").stat().st_mtime_ns == written
    assert [row["rank"] for row in rows] == [1, 2, None]
    assert rows[0]["metric"] >= rows[1]["metric"] > 0.8
    assert rows[0]["metric_low"] < rows[0]["metric"] <= rows[0]["metric_high"]
    assert rows[2]["status"] == "error"
    assert "settings that the family does not have" in rows[2]["error"]
    assert min(rows[0]["parameters"], rows[0]["multiply_adds"]) > 0
    assert rows[0]["audit_turns_90"] > 0  # an ordinary network is not equivariant
    _, card = load_model(out / "best")
    assert card.name == rows[0]["trial"]
    assert (out / "index.html").stat().st_size > 20_000
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]  # nothing of either run is left
    plain = sweep(data, asked, tmp_path / "plain", audit=largest_changes).to_pylist()
    timed = {"seconds", "stamps_per_s", "checkpoint"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in rows] == [
        {k: v for k, v in row.items() if k not in timed} for row in plain
    ]
    for row in rows[:2]:  # one of them was trained in a process that had another trial before
        ours, its = (
            load_file(folder / "trials" / row["trial"] / "model" / "weights.safetensors")
            for folder in (tmp_path / "plain", out)
        )
        assert all(torch.equal(ours[name], its[name]) for name in ours)


@pytest.mark.usefixtures("ray_local")
def test_ctrl_c_during_a_sweep_with_ray_is_ours_to_answer():
    from ray.tune.tune import _setup_signal_catching

    before, other = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
    try:
        _setup_signal_catching()  # as Tune does when a sweep begins
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGUSR1, other)


def test_a_sweep_in_which_no_trial_can_begin_ends_with_what_to_do(monkeypatch):
    from lenspipe.distributed import search

    monkeypatch.setattr(search.ray, "available_resources", lambda: {"CPU": 0.0})
    monkeypatch.setattr(search.ray, "cluster_resources", lambda: {"CPU": 2.0})
    waiting, running = SimpleNamespace(status="PENDING"), SimpleNamespace(status="RUNNING")
    shown = search.Shown(lambda: None, stall_s=0.02)
    for trials in ([waiting, running], [], [waiting]):
        shown.on_step_end(0, trials)
    time.sleep(0.03)
    shown.on_step_end(1, [running, waiting])
    time.sleep(0.03)
    with pytest.raises(ConfigError, match=r"go on by --resume \[waited_s=0, free_cpus=0.0, cpus=2.0"):
        shown.on_step_end(2, [waiting])


def test_optuna_goes_on_with_what_was_cut_off(tmp_path):
    from lenspipe.learn.sweep.search import StudySearch

    models = [{"family": "small-cnn", "settings": {"width": {"low": 2, "high": 9, "integer": True}}}]
    asked = space(model=models, search="optuna", samples=3)
    first = StudySearch(asked, tmp_path / "journal", seed=1)
    assert first.n_trial == 3
    done, cut = first.ask("a"), first.ask("b")
    first.tell("a", 0.7)
    again = StudySearch(asked, tmp_path / "journal", seed=1)
    assert again.n_trial == 2
    assert again.ask("c").name == cut.name
    assert 2 <= done.settings.model["width"] <= 9
