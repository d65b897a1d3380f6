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
        """Squares of numbers; the process ends once as it begins, and once at each of some numbers."""

        def __init__(self, folder: Path, deadly: tuple[int, ...]) -> None:
            self._folder, self._deadly = folder, deadly
            self._die_once("begin")

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


def answers(calls, folder, *, deadly=(), each=None, n=2, no_progress_s=60.0):
    from lenspipe.distributed.actors import in_actors

    found = []
    pool = Pool("workers", {"CPU": 0.5, **(each or {})}, 1, n)
    told = in_actors(squares(), (folder, deadly), calls, pool, found.append, no_progress_s=no_progress_s)
    return dict(found), len(found), told


def test_each_call_is_answered_once_though_workers_die_as_they_begin_and_at_first_and_last_calls(tmp_path):
    found, n, told = answers(range(6), tmp_path, deadly=(0, 5))
    assert (found, n) == ({i: i * i for i in range(6)}, 6)
    assert (told.calls, told.died, told.asked) == (6, 3, 5)
    assert 1 <= told.began <= 4, "one died as it began"


def test_an_error_that_a_worker_raises_on_purpose_is_itself_and_a_bug_is_rays(tmp_path):
    (tmp_path / "begin").touch()
    with pytest.raises(ModelError, match="number=-1"):
        answers([-1], tmp_path)
    with pytest.raises(TypeError, match="not supported between"):
        answers(["a"], tmp_path)


def test_work_that_no_machine_takes_ends_with_a_line(tmp_path):
    with pytest.raises(ClusterError, match="give the same command with --resume"):
        answers([1], tmp_path, each={"GPU": 1}, no_progress_s=0.2)


class Nothing:
    """What has no work to do."""

    def __call__(self, batch):
        return batch


def test_ray_data_that_stands_still_ends_with_a_line():
    import ray

    from lenspipe.distributed.data import data_context

    with (
        pytest.raises(ClusterError, match=r"nothing was done for too long.*still_running='.*Nothing"),
        data_context(no_progress_s=0.5),
    ):
        rows = ray.data.from_items([1]).map_batches(Nothing, num_gpus=1, batch_size=1, concurrency=1)
        list(rows.iter_batches(prefetch_batches=0))
