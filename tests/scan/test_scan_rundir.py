import multiprocessing

import pytest

from lenspipe.errors import ConfigError, TileError
from lenspipe.rundir import atomic_path, open_run, read_json, write_json


def claim(folder, request, resume=False):
    with open_run(folder, request, resume=resume, command="--out") as known:
        return known


def test_a_new_folder_is_claimed_and_resumed_with_the_same_request(tmp_path):
    assert claim(tmp_path / "run", {"a": 1}) is False
    assert claim(tmp_path / "run", {"a": 1}, resume=True) is True


def test_resume_works_on_a_folder_that_is_not_there_yet(tmp_path):
    assert claim(tmp_path / "run", {"a": 1}, resume=True) is False


def test_a_folder_with_a_run_is_refused_without_resume(tmp_path):
    claim(tmp_path, {"a": 1})
    with pytest.raises(ConfigError, match=r"holds a run already; add --resume"):
        claim(tmp_path, {"a": 1})


def test_another_request_is_refused_and_the_difference_named(tmp_path):
    claim(tmp_path, {"a": 1, "b": 2})
    with pytest.raises(ConfigError, match=r"resume with the same b,.*had='2', got='3'"):
        claim(tmp_path, {"a": 1, "b": 3}, resume=True)


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"holds no run.*thesis.tex"):
        claim(tmp_path, {})
    assert [p.name for p in tmp_path.iterdir() if p.name != ".lock"] == ["thesis.tex"]


def hold(folder, ready, stop):
    with open_run(folder, {}, resume=True, command="--out"):
        ready.set()
        stop.wait(20)


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, stop))
    other.start()
    assert ready.wait(20)
    with pytest.raises(ConfigError, match="another process is working"):
        claim(tmp_path, {}, resume=True)
    stop.set()
    other.join(20)
    assert claim(tmp_path, {}, resume=True) is True


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"v": 1})
    with pytest.raises(RuntimeError, match="stop"), atomic_path(tmp_path / "a.json") as path:
        path.write_text("{")
        raise RuntimeError("stop")
    assert read_json(tmp_path / "a.json") == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_errors_survive_pickling_with_their_facts():
    import pickle

    error = pickle.loads(pickle.dumps(TileError("bad tile", file="a.fits", got=3)))
    assert type(error) is TileError
    assert error.facts == {"file": "a.fits", "got": 3}
    assert str(error) == "bad tile [file='a.fits', got=3]"
