"""``--runner auto``: which runner it takes, and that it says why."""

import os

import pytest
from sky import write_tile

from lenspipe.cli import group, run_command
from lenspipe.distributed import choice
from lenspipe.runner import Workers


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(choice, "has_joined", lambda: False)
    monkeypatch.setattr(choice, "usable_cores", lambda: 8)


def test_a_plan_longer_than_rays_start_goes_to_ray_and_a_shorter_one_does_not(alone):
    even = choice.RAY_START_S * 8 / 7  # both take the same time
    assert choice.choose(even * 1.01)[0] and not choice.choose(even * 0.99)[0]
    assert not choice.choose(1e6, workers=1)[0]
    assert choice.choose(None)[0]  # nobody knows how long, and there are several cores
    assert choice.choose(1.0, workers=Workers(0, 64))[0]


def test_a_cluster_that_is_named_is_used_for_the_shortest_plan(alone, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert choice.choose(0.1, workers=1) == (True, "With Ray on the cluster of RAY_ADDRESS.")


def test_only_the_runner_that_is_chosen_is_started(alone):
    started = []

    def ray():
        def start(plain_s=None):
            started.append(plain_s)
            return choice.here("ray")()

        return start

    said = []
    start = choice.started("auto", "plain", ray, say=said.append)
    with start(1.0) as short, start(1000.0) as long:
        assert (short, long, started) == ("plain", "ray", [1000.0])
    assert [line.split()[0] for line in said] == ["Without", "With"]


def test_a_scan_says_which_runner_it_takes_and_its_plan_says_what_it_costs(tmp_path, capsys, alone):
    write_tile(tmp_path / "tiles", "a", shape=(64, 64), n_source=1, bands="r")
    for more in (["--dry-run"], []):
        with pytest.raises(SystemExit) as ended:
            run_command(group, ["scan", str(tmp_path / "tiles"), "--out", str(tmp_path / "run"), *more])
        assert ended.value.code == 0
        shown = capsys.readouterr()
        said = " ".join((shown.out + shown.err).replace("│", " ").split())
        assert "Without Ray, which would take 5 s to start" in said
        if more:
            assert "no scores" in said and "about 1 s of one core" in said
    assert "RAY_ADDRESS" not in os.environ
