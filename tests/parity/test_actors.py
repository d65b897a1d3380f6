"""A pool of actors answers each call once, through deaths of its processes, and says what is wrong in one line."""

import os
from pathlib import Path

import pytest

from lenspipe.distributed.pools import Pool
from lenspipe.errors import ClusterError, ModelError

pytestmark = pytest.mark.usefixtures("ray_local")


def squares():
    """A class that is pickled by value, so that it reaches the workers."""

    class Squares:
        """Squares of numbers; the process ends so many times as it begins, and once at each of some numbers."""

        def __init__(self, folder: Path, deadly: tuple[int, ...], begins: int) -> None:
            self._folder, self._deadly = folder, deadly
            for k in range(begins):
                self._die_once(f"begin{k}")

        def _die_once(self, name: str) -> None:
            try:
                (self._folder / name).touch(exist_ok=False)
            except FileExistsError:
                return
            os._exit(139)

        def __call__(self, number: int) -> tuple[int, int]:
            if number in self._deadly:
                self._die_once(str(number))
            if number < 0:
                raise ModelError("the model is broken", number=number)
            return number, number**2

    return Squares


def answers(calls, folder, *, deadly=(), each=None, n=2, no_progress_s=60.0, begins=1):
    from lenspipe.distributed.actors import in_actors

    found = []
    pool = Pool("workers", {"CPU": 0.5, **(each or {})}, 1, n)
    told = in_actors(squares(), (folder, deadly, begins), calls, pool, found.append, no_progress_s=no_progress_s)
    return dict(found), len(found), told


def test_each_call_is_answered_once_though_workers_die_as_they_begin_and_at_first_and_last_calls(tmp_path):
    found, n, told = answers(range(6), tmp_path, deadly=(0, 5))
    assert (found, n) == ({i: i * i for i in range(6)}, 6)
    assert (told.calls, told.died, told.asked) == (6, 3, 5) and told.began in (3, 4)  # the last may come too late


def test_an_error_that_a_worker_raises_on_purpose_is_itself_and_a_bug_is_rays(tmp_path):
    (tmp_path / "begin0").touch()
    with pytest.raises(ModelError, match="number=-1"):
        answers([-1], tmp_path)
    with pytest.raises(TypeError, match="not supported between"):
        answers(["a"], tmp_path)


def test_work_that_no_machine_takes_ends_with_a_line(tmp_path):
    with pytest.raises(ClusterError, match="give the same command with --resume"):
        answers([1], tmp_path, each={"GPU": 1}, no_progress_s=0.2)


def test_workers_that_all_die_as_they_begin_end_it_with_what_ray_says(tmp_path, monkeypatch):
    from lenspipe.distributed import actors

    monkeypatch.setattr(actors, "FRUITLESS_S", 0.0)
    with pytest.raises(ClusterError, match=r"die before any of them has begun.*died=3, last_death='The actor died"):
        answers([1, 2], tmp_path, begins=9, n=1)


@pytest.mark.parametrize("death", ["OutOfMemoryError", "NodeDiedError", "WorkerCrashedError"])
def test_what_ray_calls_a_death_is_one(death, monkeypatch, tmp_path):
    import ray

    (tmp_path / "begin0").touch()
    kind, real, seen = getattr(ray.exceptions, death), ray.get, []

    def get(ref):
        if not seen:
            seen.append(ref)
            raise kind("the machine is short of memory") if death != "WorkerCrashedError" else kind()
        return real(ref)

    monkeypatch.setattr(ray, "get", get)
    found, n, told = answers(range(3), tmp_path)
    assert (found, n, told.died) == ({i: i * i for i in range(3)}, 3, 1)
