"""What a command does for people: names that a shell completes, folders that are not there, threads, Ctrl-C."""

import json
import os

import numpy as np
import pytest
from toy_stamps import make_stamps

from lenspipe import cores
from lenspipe.cli import group, run_command
from lenspipe.errors import DataError
from lenspipe.learn.loop import THREADS_FILE, threads_of
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.learn.world import World
from lenspipe.stamps.splits import splits_by_position


def completed(monkeypatch, capsys, *words):
    monkeypatch.setenv("_LENSPIPE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["lenspipe", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit):
        run_command(group, [])
    return capsys.readouterr().out.split()


def test_a_shell_completes_commands_options_and_the_names_of_surveys_models_and_recipes(monkeypatch, capsys):
    assert completed(monkeypatch, capsys, "expl") == ["plain,explain"]
    assert "plain,--resume" in completed(monkeypatch, capsys, "scan", "--res")
    assert completed(monkeypatch, capsys, "scan", "--survey", "ki") == ["plain,kids"]
    models = ["plain,ground-gri", "plain,ground-gri-graded", "plain,ground-grz"]
    assert completed(monkeypatch, capsys, "scan", "--model", "ground") == models
    assert "plain,substructure-3" in completed(monkeypatch, capsys, "simulate", "--recipe", "sub")
    assert completed(monkeypatch, capsys, "scan", "--survey", "mine.t") == ["file,mine.t"]  # a file of one's own


@pytest.mark.parametrize(
    "command", [["completeness", "--model", "ground-gri", "--out", "o"], ["explain", "x", "--run"]]
)
def test_a_folder_that_is_not_there_is_called_that(command, tmp_path, capsys):
    missing = str(tmp_path / "none")
    with pytest.raises(SystemExit) as ended:
        run_command(group, [command[0], missing, *command[1:]] if command[0] == "completeness" else [*command, missing])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and ("no such folder" in said or "does not exist" in said) and "none" in said


def test_one_tile_without_validation_is_explained_and_smaller_cells_mend_it(tmp_path):
    rng = np.random.default_rng(1)
    ra, dec = 180 + rng.uniform(-0.05, 0.05, 300), rng.uniform(-0.05, 0.05, 300)  # a field of 6 arcmin
    whole = splits_by_position(ra, dec, seed=0, margin_arcsec=5)
    smaller = splits_by_position(ra, dec, seed=0, margin_arcsec=5, order=12)
    assert len(set(whole) - {None}) < 3 <= len(set(smaller) - {None})
    stamps = make_stamps(tmp_path / "stamps", 3, n_part=1)  # all of them to be trained on
    with pytest.raises(DataError, match=r"validation split: all are in train\. Stamps of one tile.*--split-order 12"):
        train(stamps, model="small-cnn", task="find", out=tmp_path / "m", settings=TrainSettings())


def test_threads_follow_the_cores_that_are_free_and_a_resume_takes_as_many(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    for load, free in ((0.2, 8), (5.1, 3), (40.0, 1)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert cores.free_cores() == free
    monkeypatch.setattr(os, "getloadavg", lambda: (5.1, 0.0, 0.0))
    assert threads_of(tmp_path, World(size=1, rank=0)) == 3
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert threads_of(tmp_path, World(size=1, rank=0)) == 3  # begun with three
    assert json.loads((tmp_path / THREADS_FILE).read_text()) == {"threads": 3}
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert {threads_of(tmp_path / "two", World(size=2, rank=rank)) for rank in (0, 1)} == {4}  # whatever is free
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert cores.free_cores() == 2
