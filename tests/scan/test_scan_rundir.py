import multiprocessing

import pytest

from lenspipe.errors import ConfigError, TileError
from lenspipe.rundir import atomic_path, differences, open_run, read_json, undone_on_error, write_json


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
    with pytest.raises(ConfigError, match=r"resume with the same b, or choose another --out: b was 2 and is 3 "):
        claim(tmp_path, {"a": 1, "b": 3}, resume=True)


def test_each_key_that_differs_is_named_with_its_old_and_new_value():
    before = {"config": {"detect": {"sigma": 1.5, "mesh": 64}, "model": "a"}, "tiles": ["x", "y"], "limit": None}
    now = {"config": {"detect": {"sigma": 2.0, "mesh": 64}, "model": ["a", "b"], "new": 1}, "tiles": ["x", "z"]}
    assert differences(before, now) == [
        ("config.detect.sigma", "1.5", "2.0"),
        ("config.model", '"a"', '["a", "b"]'),
        ("config.new", "not set", "1"),
        ("tiles.1", '"y"', '"z"'),
        ("limit", "null", "not set"),
    ]
    ((name, old, new),) = differences({"tiles": ["a" * 50] * 9}, {"tiles": ["a" * 50] * 8})
    assert (name, old[:8], new[:8]) == ("tiles", "9 items ", "8 items ")


def test_many_differences_are_counted(tmp_path):
    claim(tmp_path, {"a": dict.fromkeys("abcdefghij", 1)})
    with pytest.raises(ConfigError, match=r"a\.f was 1 and is 2, and 4 more differ"):
        claim(tmp_path, {"a": dict.fromkeys("abcdefghij", 2)}, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_without_work_makes_room_for_another(tmp_path, resume):
    how = {"command": "--out", "own": ("plan", "parts"), "has_work": lambda: any(tmp_path.glob("parts/*"))}
    for value in (1, 2):
        with open_run(tmp_path, {"a": value}, resume=resume, **how) as known:
            assert not known
            assert not (tmp_path / "plan").exists()
            (tmp_path / "plan").write_text("x")
            (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one").write_text("work")
    said = "a was 2 and is 3" if resume else "add --resume"
    with pytest.raises(ConfigError, match=said), open_run(tmp_path, {"a": 3}, resume=resume, **how):
        pass
    assert (tmp_path / "parts" / "one").exists()


def test_a_run_without_work_takes_no_file_of_the_users_with_it(tmp_path):
    how = {"resume": False, "command": "--out", "own": ("plan",), "has_work": lambda: False}
    with open_run(tmp_path, {"a": 1}, **how):
        pass
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds='notes\.txt'"), open_run(tmp_path, {"a": 2}, **how):
        pass
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("there", [False, True])
def test_a_refusal_before_any_work_leaves_nothing(tmp_path, there):
    folder = tmp_path / "run"
    if there:
        folder.mkdir()
    with (
        pytest.raises(ConfigError, match="refused"),
        open_run(folder, {}, resume=False, command="--out", own=("plan",), has_work=lambda: (folder / "part").exists()),
    ):
        (folder / "plan").write_text("x")
        raise ConfigError("refused")
    assert folder.exists() == there
    if there:
        assert list(folder.iterdir()) == []


def test_a_report_that_is_refused_half_way_is_taken_back(tmp_path):
    for there in (False, True):
        folder = tmp_path / str(there)
        if there:
            folder.mkdir()
            (folder / "mine").write_text("x")
        with pytest.raises(RuntimeError), undone_on_error(folder):
            (folder / "plots").mkdir()
            (folder / "plots" / "a.png").write_text("x")
            raise RuntimeError
        assert folder.exists() == there
    assert [path.name for path in (tmp_path / "True").iterdir()] == ["mine"]


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
