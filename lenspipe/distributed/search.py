"""A sweep's search and progress in the words of Ray Tune."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.search import Searcher

from lenspipe.errors import ConfigError
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.sweep.search import Search
from lenspipe.learn.sweep.space import Trial
from lenspipe.learn.sweep.trial import begin_trial
from lenspipe.learn.sweep.trials import ERROR_FILE

STALL_S = 600.0
"""Seconds without a running trial after which a sweep ends; Ray starts a process in 5 s, on a busy machine in 100."""


def config_of(trial: Trial) -> dict[str, Any]:
    """What a trial's process is given."""
    return {
        "name": trial.name,
        "family": trial.family,
        "choice": trial.choice,
        "settings": trial.settings.model_dump(mode="json"),
    }


def trial_of(config: dict[str, Any]) -> Trial:
    """The trial that `config_of` was given."""
    return Trial(config["family"], config["choice"], TrainSettings.model_validate(config["settings"]))


class TuneSearch(Searcher):
    """Hands a search's trials to Tune, each with its folder in that of the sweep."""

    def __init__(self, search: Search, metric: str, out: Path) -> None:
        super().__init__()
        self._search, self._metric_name, self._out = search, metric, out
        self._folders: dict[str, Path] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Configuration of the next trial."""
        trial = self._search.ask(trial_id)
        if trial is None:
            return Searcher.FINISHED
        self._folders[trial_id] = begin_trial(trial, self._out)
        return config_of(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the search what came out."""
        crashed = error or (self._folders[trial_id] / ERROR_FILE).exists()
        self._search.tell(trial_id, None if crashed else (result or {}).get(self._metric_name))

    def save(self, checkpoint_path: str) -> None:
        """Nothing is stored: the folder of the sweep says what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class Shown(Callback):
    """Tells of the trials that have ended, well or not, and ends a sweep in which none can begin."""

    def __init__(self, on_trial: Callable[[], None], *, stall_s: float = STALL_S) -> None:
        self._on_trial = on_trial
        self._stall_s, self._moved = stall_s, time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of a terminal: Tune pickles its callbacks for a restore that is not used here."""
        return {}

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """
        Look whether a trial runs, or waits as it should.

        Raises
        ------
        ConfigError
            None has run for `STALL_S` while some wait: Tune itself would wait for ever.
        """
        if any(trial.status == "RUNNING" for trial in trials) or not any(t.status == "PENDING" for t in trials):
            self._moved = time.monotonic()
        elif time.monotonic() - self._moved > self._stall_s:
            raise ConfigError(
                "no trial could begin: other work holds Ray's CPUs, or the machine is too busy to start a process: "
                "end that work, then go on by --resume",
                waited_s=round(self._stall_s),
                free_cpus=ray.available_resources().get("CPU", 0.0),
                cpus=ray.cluster_resources().get("CPU", 0.0),
                load=round(os.getloadavg()[0], 1),
            )

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """One more."""
        self._on_trial()

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """One more that crashed."""
        self.on_trial_complete(iteration, trials, trial)
