import os

import click
import pytest

from lenspipe.cli import run_command
from lenspipe.cli.options import WorkersType
from lenspipe.cli.simulate import command
from lenspipe.distributed import session
from lenspipe.errors import ConfigError
from lenspipe.runner import Workers

TIMED_OUT = "The current node timed out during startup.\nThis could happen because the GCS has become overloaded."


@pytest.fixture
def ray_that_does_not_start(monkeypatch):
    """As on an overloaded machine: Ray raises a bare Exception after 30 s."""
    session.prepare_environment()
    import ray

    def fail(**settings):
        raise Exception(TIMED_OUT)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)


def test_a_ray_that_does_not_start_is_one_line_that_says_what_to_do(ray_that_does_not_start, tmp_path, capsys):
    ask = ["--recipe", "ground-gri", "--count", "1", "--out", str(tmp_path / "s"), "--runner", "ray"]
    with pytest.raises(SystemExit) as ended:
        run_command(command, ask)
    assert ended.value.code == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("lenspipe: ConfigError: Ray did not start on this machine")
    assert "--runner local" in line
    assert "timed out during startup. This could happen" in line


def test_a_cluster_that_does_not_answer_is_named(ray_that_does_not_start, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(ConfigError, match=r"unset RAY_ADDRESS .* \[address='head:6379'"), session.ray_session():
        pass


@pytest.fixture
def cluster_of(monkeypatch):
    """A cluster with so many CPUs that runs already."""
    session.prepare_environment()
    import ray

    def cpus(n):
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(n)} if n else {})

    return cpus


@pytest.mark.parametrize(
    ("cpus", "asked", "used"),
    [(4, None, 4), (4, 3, 3), (4, Workers(0, 64), 64), (0, Workers(0, 64), 64), (4, Workers(4, 4), 4)],
)
def test_a_range_of_workers_counts_on_nodes_that_come_later(cluster_of, cpus, asked, used):
    cluster_of(cpus)
    with session.ray_session(n_worker=asked) as n:
        assert n == used


@pytest.mark.parametrize(
    ("cpus", "asked", "message"),
    [
        (4, 5, r"more workers.*workers=5, cpus=4"),
        (4, Workers(5, 64), r"more workers.*workers=5, cpus=4"),
        (0, None, r"no CPU now.*--workers 0:N"),
    ],
)
def test_workers_that_are_not_there_and_not_said_to_come_are_refused(cluster_of, cpus, asked, message):
    cluster_of(cpus)
    with pytest.raises(ConfigError, match=message), session.ray_session(n_worker=asked):
        pass


def test_workers_are_a_number_or_a_range():
    of = WorkersType().convert
    assert of("8", None, None) == 8
    assert of("0:64", None, None) == of(":64", None, None) == Workers(0, 64)
    for wrong in ("0", "-1", "4:2", "0:0", "many", "1:2:3", "3:"):
        with pytest.raises(click.BadParameter):
            of(wrong, None, None)


def test_what_is_below_python_is_silent_while_ray_starts_and_heard_before_and_after(capfd):
    os.write(2, b"before ")
    with session._silent_descriptor(2):
        os.write(2, b"noise ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"
