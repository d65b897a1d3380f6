# The short form of benchmarks/kill_resume.py: a driver that is killed and resumed gives the rows of one that was not.

import os
from functools import partial

import pytest
from forked import Forked
from killing import KillPoint, command, kill_at, leftovers, resume, started, tables
from sky import write_tile

from lenspipe.cli import run_command
from lenspipe.cli.scan import command as scan

LOCAL = [
    KillPoint("plan", 0, 0.0, "local"),
    KillPoint("score", 1, 0.0, "local"),
    KillPoint("commit", 2, 0.0, "local"),
    KillPoint("finalize", 0, 0.0, "local"),
]
RAY = KillPoint("commit", 1, 0.0, "ray")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed") / "tiles"
    write_tile(folder, "a", shape=(512, 512), n_source=60)
    write_tile(folder, "b", shape=(256, 256), n_source=15, seed=1)
    (folder / "b_r.fits").write_bytes((folder / "b_r.fits").read_bytes()[:100_000])
    return folder


@pytest.fixture(scope="module")
def whole(tiles, tiny_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    here(command(tiles, out, tiny_model, "local"))
    assert tables(out)[1].num_rows >= 16
    return tables(out)


def here(words):
    """The command in this process: it ends with code 3, as one tile is damaged."""
    with pytest.raises(SystemExit) as ended:
        run_command(scan, words[4:])
    assert ended.value.code == 3


def in_a_copy(words):
    """A process that has imported everything; one that imports it itself is killed with Ray, below."""
    return Forked(lambda: run_command(scan, words[4:]))


def check(out, whole):
    for got, want in zip(tables(out), whole, strict=True):
        assert got.equals(want)
    assert leftovers(out) == []


def test_a_scan_that_is_killed_at_each_of_its_stages_in_turn_has_the_rows_of_an_uninterrupted_one(
    tiles, tiny_model, whole, tmp_path
):
    out = tmp_path / "run"
    for number, point in enumerate(LOCAL):
        assert kill_at(point, tiles, out, tiny_model, more=["--resume"] if number else [], start=in_a_copy)
    here(command(tiles, out, tiny_model, "local", "--resume"))
    check(out, whole)


@pytest.mark.usefixtures("ray_local")
def test_a_scan_with_ray_that_is_killed_leaves_a_cluster_on_which_it_is_resumed(tiles, tiny_model, whole, tmp_path):
    import ray

    out, env = tmp_path / "run", os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    assert kill_at(RAY, tiles, out, tiny_model, start=partial(started, env=env))
    assert resume(tiles, out, tiny_model, "ray", env=env) == 3
    check(out, whole)
