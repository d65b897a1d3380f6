"""What a pool of actors makes of each way in which Ray says that a worker is gone; Ray itself is a stand-in here."""

import itertools
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

from lenspipe.distributed import actors
from lenspipe.distributed.pools import Pool
from lenspipe.errors import ClusterError, ModelError

BEGIN, NEVER = "begin", object()


class StandIn:
    """Of `ray`: what the n-th actor answers when it begins, and to a call, is a function's; errors are raised."""

    def __init__(self, says):
        self.says, self.numbers, self.killed, self.runs = says, itertools.count(), [], True

    def remote(self, *kind):
        return SimpleNamespace(options=lambda **takes: SimpleNamespace(remote=self._make))

    def _make(self):
        actor = Actor(next(self.numbers))
        actor.begin = SimpleNamespace(remote=lambda work, settings: Ref(self.says(actor.number, BEGIN)))
        actor.call = SimpleNamespace(remote=lambda call: Ref(self.says(actor.number, call)))
        return actor

    def put(self, value):
        return value

    def wait(self, refs, num_returns, timeout):
        ready = [ref for ref in refs if ref.answer is not NEVER]
        time.sleep(0 if ready else timeout)
        return ready[:num_returns], []

    def get(self, ref):
        if isinstance(ref.answer, Exception):
            raise ref.answer
        return ref.answer

    def kill(self, actor):
        if not self.runs:
            raise RuntimeError("Ray has ended")
        self.killed.append(actor.number)

    def is_initialized(self):
        return self.runs


class Actor:
    def __init__(self, number):
        self.number = number


class Ref:
    def __init__(self, answer):
        self.answer = answer


def answers(monkeypatch, says, *, calls=range(4), n=2, no_progress_s=0.2):
    ray, found = StandIn(says), []
    monkeypatch.setattr(actors, "ray", ray)
    try:
        told = actors.in_actors(
            object, (), calls, Pool("workers", {"CPU": 1}, 1, n), found.append, **{"no_progress_s": no_progress_s}
        )
    finally:
        made = next(ray.numbers)
        assert not ray.runs or sorted(ray.killed) == list(range(made)), "each actor is ended, and once"
    return sorted(found), told


@pytest.mark.parametrize(
    "death",
    [
        OutOfMemoryError("Task was killed: the node was low on memory"),
        NodeDiedError("gone"),
        WorkerCrashedError(),
        ActorDiedError(),
    ],
)
def test_a_call_whose_worker_is_gone_in_any_way_goes_to_another(monkeypatch, death):
    found, told = answers(monkeypatch, lambda actor, call: death if (actor, call) == (0, 0) else call)
    assert found == [0, 1, 2, 3]
    assert (told.asked, told.died, told.calls) == (3, 1, 4)


def test_workers_are_those_that_began_and_the_rest_were_asked_for(monkeypatch):
    _, told = answers(monkeypatch, lambda actor, call: call if actor == 1 else NEVER, calls=range(5), n=4)
    assert (told.asked, told.began, told.died) == (4, 1, 0)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeEnvSetupError("no such\n  image"), r"kind='RuntimeEnvSetupError', ray='.*no such image"),
        (ActorUnschedulableError("its node is dead"), r"kind='ActorUnschedulableError'.*its node is dead"),
        (RayActorError(error_msg="No module named 'lenspipe'", actor_init_failed=True), "No module named 'lenspipe'"),
    ],
)
def test_a_worker_that_ray_cannot_make_ends_the_work_at_once_with_rays_words(monkeypatch, error, words):
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=words):
        answers(monkeypatch, lambda actor, call: error, no_progress_s=8)
    assert time.monotonic() - begun < 5


def test_workers_that_die_before_any_has_begun_end_the_work_with_the_reason(monkeypatch):
    monkeypatch.setattr(actors, "FRUITLESS_S", 0.1)
    with pytest.raises(ClusterError, match=r"die before any.*last_death='low on memory'"):
        answers(monkeypatch, lambda actor, call: OutOfMemoryError("low on memory"), no_progress_s=8)


def test_deaths_before_the_first_worker_begins_are_forgiven_for_a_while_and_always_where_one_has_begun(monkeypatch):
    gone = OutOfMemoryError("low on memory")
    found, told = answers(monkeypatch, lambda actor, call: gone if actor < 6 else call)
    assert (found, told.died) == ([0, 1, 2, 3], 6)
    monkeypatch.setattr(actors, "FRUITLESS_S", 0.0)
    found, told = answers(monkeypatch, lambda actor, call: call if actor == 0 or actor > 6 else gone)
    assert found == [0, 1, 2, 3]


def test_work_that_stands_still_says_of_what_the_last_worker_died(monkeypatch):
    def says(actor, call):
        if actor == 0:
            return WorkerCrashedError()
        return BEGIN if call == BEGIN else NEVER

    with pytest.raises(ClusterError, match=r"too long.*done=0, calls=4, asked=3, began=2, died=1, last_death='The"):
        answers(monkeypatch, says)


def test_a_worker_that_raises_is_ended_too(monkeypatch):
    error = RayTaskError("call", "traceback", ModelError("the model is broken")).as_instanceof_cause()
    with pytest.raises(ModelError, match="the model is broken"):
        answers(monkeypatch, lambda actor, call: error if call == 1 else call)


def test_the_error_of_the_work_is_not_hidden_where_ray_has_ended(monkeypatch):
    def says(actor, call):
        actors.ray.runs = False
        return RayTaskError("call", "traceback", ModelError("the model is broken")).as_instanceof_cause()

    with pytest.raises(ModelError, match="the model is broken"):
        answers(monkeypatch, says)
