"""
A pool of actors for work of which only tasks and counts travel.

Ray Data would start three processes of its own beside the workers, and each worker would import it. Here a call goes to
an actor that waits for one, so that none waits behind a machine that has not come; and what an actor had as its process
or machine died goes to the next that is free.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError

from lenspipe.distributed.pools import STUCK, Pool
from lenspipe.errors import ClusterError, LenspipeError

LOOK_S = 5.0
"""Between two looks at the clock while nothing is answered."""
DEATHS = RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError
"""The process is gone, or out of reach; its call is given again."""
DEAD_AT_BEGIN = 3
"""Deaths per worker asked for after which none will begin."""


NOT_MADE = "Ray cannot make a worker, or has lost what it needs: mend what it says, then give the command with --resume"
ALL_DIE = "the workers die as they begin: look at their memory and at Ray's logs, then give the command with --resume"


class Told(NamedTuple):
    """How the work of a pool went."""

    calls: int
    first_worker_s: float | None
    """Seconds until the first worker had loaded what it needs."""
    asked: int
    """Workers asked for, those in place of dead ones included."""
    began: int
    died: int


class PoolWorker:
    """A process of the pool: it makes a ``work`` and passes calls to it."""

    def __init__(self) -> None:
        self._work: Callable[[Any], Any] | None = None

    def begin(self, work: type, settings: tuple[Any, ...]) -> None:
        """Load what the work needs; here, not as the actor is made, so that an error keeps its type."""
        self._work = work(*settings)

    def call(self, task: Any) -> Any:
        """Carry out one call."""
        assert self._work is not None
        return self._work(task)


def in_actors(
    work: type,
    settings: tuple[Any, ...],
    calls: Sequence[Any],
    pool: Pool,
    on_answer: Callable[[Any], None],
    *,
    no_progress_s: float,
) -> Told:
    """
    Pass calls to a pool of actors until each is answered.

    Parameters
    ----------
    work : type
        Made once per actor as ``work(*settings)``, then called with each call. A call whose worker dies is given again,
        so it must leave the same when it is carried out twice, or half and once.
    settings : tuple
        Travels once per actor.
    calls : sequence
        Each is made when it is given.
    pool : Pool
        No more than ``pool.most`` actors, of what each takes; fewer work until machines come.
    on_answer : callable
        Called on the driver with each answer, once per call.
    no_progress_s : float
        Longest time without a worker that begins or an answer.

    Returns
    -------
    Told

    Raises
    ------
    ClusterError
        No worker can be made, all die as they begin, or nothing is heard for ``no_progress_s``.
    LenspipeError
        As a worker raised it.
    ray.exceptions.RayTaskError
        A bug in a worker.
    """
    crew, n_first = _Crew(work, settings, pool), min(pool.most, len(calls))
    left, again = iter(range(len(calls))), deque[int]()
    begun = last = time.monotonic()
    first: float | None = None
    answered = began = 0
    try:
        crew.grow(n_first)
        while answered < len(calls):
            for actor, call, death, answer in crew.heard(min(LOOK_S, no_progress_s)):
                if death is not None:
                    again.extend(() if call is None else (call,))
                    if not began and crew.died >= DEAD_AT_BEGIN * n_first:
                        raise ClusterError(ALL_DIE, died=crew.died, last=said_of(death)) from death
                    crew.replace(actor, death)
                    continue
                last = time.monotonic()
                if call is None:
                    began += 1
                    first = first if first is not None else last - begun
                else:
                    answered += 1
                    on_answer(answer)
                following = again.popleft() if again else next(left, None)
                if following is None:
                    crew.rest(actor)
                else:
                    crew.give(actor, following, calls[following])
            while again and crew.resting:  # of one that died when there was nothing left to give
                number = again.popleft()
                crew.give(crew.resting.pop(), number, calls[number])
            if time.monotonic() - last > no_progress_s:
                minutes = round(no_progress_s / 60, 1)
                raise ClusterError(STUCK, minutes=minutes, done=answered, calls=len(calls), last_death=crew.last_death)
    finally:
        crew.end()
    return Told(len(calls), None if first is None else round(first, 2), crew.asked, began, crew.died)


class _Crew:
    """Actors, and what each of them does."""

    def __init__(self, work: type, settings: tuple[Any, ...], pool: Pool) -> None:
        each = pool.each
        self._made = ray.remote(PoolWorker).options(
            num_cpus=each["CPU"],
            num_gpus=each.get("GPU"),
            memory=each.get("memory"),
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._work, self._settings = ray.put(work), ray.put(settings)
        self._doing: dict[ray.ObjectRef[Any], tuple[Any, int | None]] = {}
        self.resting: list[Any] = []
        self._living: set[Any] = set()
        self.asked = self.died = 0
        self.last_death: str | None = None

    def grow(self, n: int) -> None:
        """Ask for so many more actors; each is heard of when it has begun."""
        for _ in range(n):
            actor = self._made.remote()
            self._doing[actor.begin.remote(self._work, self._settings)] = actor, None
            self._living.add(actor)
            self.asked += 1

    def give(self, actor: Any, number: int, call: Any) -> None:
        """Let an actor carry out a call."""
        self._doing[actor.call.remote(call)] = actor, number

    def rest(self, actor: Any) -> None:
        """Nothing is left to give: it waits, should another die."""
        self.resting.append(actor)

    def replace(self, actor: Any, death: RayError) -> None:
        """Ask for another actor in the place of a dead one."""
        self._kill(actor)  # one that does not answer may live
        self.died += 1
        self.last_death = said_of(death)
        self.grow(1)

    def _kill(self, actor: Any) -> None:
        self._living.discard(actor)
        with contextlib.suppress(Exception):  # Ray may be gone, or the actor
            ray.kill(actor)

    def heard(self, wait_s: float) -> Iterator[tuple[Any, int | None, RayError | None, Any]]:
        """What is answered within a time: the actor, the number of its call (None: it began), its death, the answer."""
        refs = list(self._doing)
        ready, _ = ray.wait(refs, num_returns=1, timeout=wait_s)
        if ready:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            actor, number = self._doing.pop(ref)
            try:
                yield actor, number, None, ray.get(ref)
            except DEATHS as death:
                if getattr(death, "actor_init_failed", False):
                    raise ClusterError(NOT_MADE, ray=said_of(death)) from death
                yield actor, number, death, None
            except RayTaskError as error:
                if isinstance(error.cause, LenspipeError):
                    raise error.cause from error
                raise
            except RayError as error:
                raise ClusterError(NOT_MADE, ray=said_of(error)) from error

    def end(self) -> None:
        """End all of them."""
        if ray.is_initialized():
            for actor in list(self._living):
                self._kill(actor)


def said_of(error: BaseException) -> str:
    """What Ray says, in one line of bounded length."""
    return " ".join(str(error).split())[:300]
