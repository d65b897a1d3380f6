"""Fit smooth lenses with Ray: actors read stamps and write what is left of them, and only counts travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lenspipe.distributed.actors import in_actors
from lenspipe.distributed.pools import NO_PROGRESS_S, Pool
from lenspipe.errors import DataError
from lenspipe.infer.fitted_run import FitUnits, Unit
from lenspipe.scan.attempts import MAX_DEATHS, begin, clear, deaths

STAGE, ATTEMPTS = "fit", ".attempts"


def fit_ray(units: Sequence[Unit], work: FitUnits, *, n_worker: int, on_unit: Callable[[int], None]) -> None:
    """Fit units on the Ray that runs, ``n_worker`` at a time; see `lenspipe.infer.fitted_run.Runner`."""
    for unit in units:
        clear(Path(work.folder) / ATTEMPTS, STAGE, unit.name)
    pool = Pool("fitters", {"CPU": 1}, 1, n_worker)
    in_actors(UnitFitter, (work,), units, pool, on_unit, no_progress_s=NO_PROGRESS_S)
    attempts = Path(work.folder) / ATTEMPTS
    if attempts.exists():
        attempts.rmdir()


class UnitFitter:
    """Fits the units that it is sent, unless one has killed its process before: it would be tried for ever."""

    def __init__(self, work: FitUnits) -> None:
        self._work = work

    def __call__(self, unit: Unit) -> int:
        """Fit one unit; answers with its stamps."""
        attempts = Path(self._work.folder) / ATTEMPTS
        died = deaths(attempts, STAGE, unit.name)
        if died >= MAX_DEATHS:
            raise DataError(
                "the process that fitted these stamps died again and again, for want of memory perhaps; give fewer "
                "--workers",
                stamps=f"{unit.source}, {unit.n} rows",
                deaths=died,
            )
        begin(attempts, STAGE, unit.name)
        n = self._work.make(unit)
        clear(attempts, STAGE, unit.name)
        return n
