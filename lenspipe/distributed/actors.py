"""
A pool of actors for work of which only tasks and counts travel.

Ray Data would start processes of its own beside the workers, and each worker would import it. Here a call goes to an
actor that waits for one, so that none waits behind a machine that has not come; and what an actor had as its process or
machine died goes to the next that is free.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError

from lenspipe.distributed.pools import Pool
from lenspipe.errors import ClusterError, Fact, LenspipeError

LOOK_S = 5.0
"""Between two looks at the clock while nothing is answered."""
FRUITLESS, FRUITLESS_S = 3, 60.0
"""So many deaths, and not before so many seconds, end work of which no worker has begun."""
DEATHS = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
"""As Ray tells of a process or machine that died: the first who is free takes the call."""
SAID = 300
"""Letters of Ray's own words in an error."""


class Told(NamedTuple):
    """How the work of a pool went."""

    calls: int
    first_worker_s: float | None
    """Seconds until the first worker had loaded what it needs."""
    asked: int
    """Workers asked for, those in place of dead ones included; fewer begin where machines do not come."""
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
        Nothing began or was answered for too long, workers died before any began, or Ray cannot make one; with Ray's
        words.
    LenspipeError
        As a worker raised it.
    ray.exceptions.RayTaskError
        A bug in a worker.
    """
    crew = _Crew(work, settings, pool)
    left, again = iter(range(len(calls))), deque[int]()
    begun = last = time.monotonic()
    first: float | None = None
    answered = 0
    try:
        crew.grow(min(pool.most, len(calls)))
        while answered < len(calls):
            for actor, call, death, answer in crew.heard(min(LOOK_S, no_progress_s)):
                if death is not None:
                    again.extend(() if call is None else (call,))
                    crew.replace(actor, death)
                    continue
                last = time.monotonic()
                if call is None:
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
            now = time.monotonic()
            _demand_progress(crew, now - begun, now - last, no_progress_s, done=answered, calls=len(calls))
    finally:
        crew.end()
    return Told(len(calls), None if first is None else round(first, 2), crew.asked, crew.began, crew.died)


def _demand_progress(crew: _Crew, since_start_s: float, since_last_s: float, no_progress_s: float, **done: int) -> None:
    if not crew.began and crew.died >= FRUITLESS and since_start_s > FRUITLESS_S:
        raise ClusterError(
            "workers die before any of them has begun: mend what Ray says of the last one, then give the same command "
            "with --resume",
            **done,
            **crew.facts(),
        )
    if since_last_s > no_progress_s:
        raise ClusterError(
            "no shard was done and no worker began for too long: look whether the cluster's machines have what a "
            "worker takes, then give the same command with --resume",
            minutes=round(no_progress_s / 60, 1),
            **done,
            **crew.facts(),
        )


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
        self._living: set[Any] = set()
        self.resting: list[Any] = []
        self.asked = self.began = self.died = 0
        self._last_death: str | None = None

    def facts(self) -> dict[str, Fact]:
        """What an error says of the workers."""
        return {"asked": self.asked, "began": self.began, "died": self.died, "last_death": self._last_death}

    def grow(self, n: int) -> None:
        """Ask for so many more actors; each is heard of when it has begun."""
        for _ in range(n):
            actor = self._made.remote()
            self._living.add(actor)
            self._doing[actor.begin.remote(self._work, self._settings)] = actor, None
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
        self._last_death = said_by_ray(death)
        self.grow(1)

    def heard(self, wait_s: float) -> Iterator[tuple[Any, int | None, RayError | None, Any]]:
        """
        What is answered within a time: the actor, the number of its call (None: it began), its death, the answer.

        Raises
        ------
        ClusterError
            Ray cannot make a worker, whatever is tried again.
        LenspipeError, ray.exceptions.RayTaskError
            As of `in_actors`.
        """
        refs = list(self._doing)
        ready, _ = ray.wait(refs, num_returns=1, timeout=wait_s)
        if ready:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            actor, number = self._doing.pop(ref)
            death = answer = None
            try:
                answer = ray.get(ref)
                self.began += number is None
            except RayTaskError as error:
                if isinstance(error.cause, LenspipeError):
                    raise error.cause from error
                raise
            except DEATHS as error:
                if isinstance(error, RayActorError) and error.actor_init_failed:
                    raise _cannot_make(error) from error
                death = error
            except RayError as error:
                raise _cannot_make(error) from error
            yield actor, number, death, answer

    def end(self) -> None:
        """End all of them."""
        if ray.is_initialized():
            for actor in list(self._living):
                self._kill(actor)

    def _kill(self, actor: Any) -> None:
        self._living.discard(actor)
        with contextlib.suppress(Exception):  # one that is dead, or Ray with it: what went wrong is raised already
            ray.kill(actor)


def _cannot_make(error: RayError) -> ClusterError:
    return ClusterError(
        "Ray cannot make a worker, or lost what it was told: mend what Ray says, then give the same command with "
        "--resume",
        kind=type(error).__name__,
        ray=said_by_ray(error),
    )


def said_by_ray(error: BaseException) -> str:
    """
    Ray's words in one line, the ends of long ones: the beginning says what, the end why.

    Examples
    --------
    >>> said_by_ray(ValueError("a\\n  b"))
    'a b'
    """
    words = " ".join(str(error).split())
    half = SAID // 2
    return words if len(words) <= SAID else f"{words[:half]} ... {words[-half:]}"
