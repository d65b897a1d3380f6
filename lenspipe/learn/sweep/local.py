"""The plain loop over trials: the reference for Ray Tune."""

from __future__ import annotations

import logging
from collections.abc import Callable

from lenspipe.errors import ConfigError
from lenspipe.learn.local import refuse_workers
from lenspipe.learn.sweep.search import Search
from lenspipe.learn.sweep.trial import SweepJob, run_trial

log = logging.getLogger(__name__)


def sweep_local(search: Search, job: SweepJob, *, on_trial: Callable[[], None]) -> dict[str, str]:
    """
    Run trials one after the other in this process; see `lenspipe.learn.sweep.run.Runner`.

    Raises
    ------
    ConfigError
        A training has several workers, or the space asks for early stopping, which compares trials side by side.
    """
    refuse_workers(job.n_worker)
    if job.space.asha is not None:
        raise ConfigError("the plain loop stops no trial early: leave [asha] out of the space, or --runner local")
    for number in range(search.n_trial):
        trial = search.ask(str(number))
        if trial is None:
            break
        seen: list[float] = []
        try:
            run_trial(trial, job, lambda row, seen=seen: seen.append(row[job.space.metric_name]))  # type: ignore[misc]
        except Exception:  # what ended it is in its folder, and becomes its row
            log.debug("trial %s ended", trial.name, exc_info=True)
            seen = []
        search.tell(str(number), seen[-1] if seen else None)
        on_trial()
    return {}
