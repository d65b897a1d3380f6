"""Searches over a space as Ray Tune asks for them: a list of trials, or Optuna's suggestions kept in a journal."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune import Callback
from ray.tune.search import Searcher

from lenspipe.errors import ConfigError
from lenspipe.learn.sweep.space import Domain, Range, SweepSpace, Trial, Value, grid, make_trial, random_trials
from lenspipe.learn.sweep.trials import RESULT_FILE

JOURNAL, TRIALS = ".optuna.log", "trials"
STALL_S = 600.0
"""Seconds without a running trial after which a sweep ends; Ray starts a process in 5 s, on a busy machine in 100."""


def search_of(space: SweepSpace, folder: Path, *, seed: int) -> tuple[Searcher, int]:
    """Search of a space, and how many trials it is to be asked for."""
    if space.search == "optuna":
        search = StudySearch(space, folder / JOURNAL, seed=seed)
        return search, search.n_left
    trials = grid(space) if space.search == "grid" else random_trials(space, seed)
    distinct = list({trial.name: trial for trial in trials}.values())
    if space.asha is None:  # early stopping must hear of the finished ones again, nobody else
        distinct = [trial for trial in distinct if not (folder / TRIALS / trial.name / RESULT_FILE).exists()]
    return ListSearch(distinct), len(distinct)


def config_of(trial: Trial) -> dict[str, Any]:
    """What a trial's process is given."""
    return {
        "name": trial.name,
        "family": trial.family,
        "choice": trial.choice,
        "settings": trial.settings.model_dump(mode="json"),
    }


class ListSearch(Searcher):
    """The trials of a list, one after the other."""

    def __init__(self, trials: list[Trial]) -> None:
        super().__init__()
        self._left = list(reversed(trials))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Configuration of the next trial."""
        return config_of(self._left.pop()) if self._left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learnt from a result."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is stored: the folder of the sweep says what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class StudySearch(ListSearch):
    """
    Optuna's tree-structured Parzen estimator, define-by-run: a setting is asked for only where it applies.

    The study is a journal in the sweep's folder. Trials that were cut off are asked for again first, with the same
    settings, and so go on from their own state.
    """

    def __init__(self, space: SweepSpace, journal: Path, *, seed: int) -> None:
        super().__init__([])
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group` is
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            sampler=sampler,
            study_name="sweep",
            direction="minimize" if space.mode == "min" else "maximize",
            load_if_exists=True,
        )
        self._asked: dict[str, optuna.Trial] = {}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=TrialState.FAIL)
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        self.n_left = max(0, space.samples - len(done))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Configuration that Optuna asks for."""
        asked = self._study.ask()
        self._asked[trial_id] = asked

        def choose(name: str, domain: Domain) -> Value:
            if isinstance(domain, Range):
                if domain.integer:
                    return asked.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
                return asked.suggest_float(name, domain.low, domain.high, log=domain.log)
            choices = domain if isinstance(domain, tuple) else (domain,)
            chosen: Value = asked.suggest_categorical(name, list(choices))
            return chosen

        number = asked.suggest_categorical("model", list(range(len(self._space.model))))
        return config_of(make_trial(self._space, choose, int(number)))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna what came out; a crashed trial tells it nothing, and counts."""
        asked = self._asked.pop(trial_id)
        value = (result or {}).get(self._space.metric_name)
        state = TrialState.PRUNED if error or value is None else TrialState.COMPLETE
        self._study.tell(asked, value if state == TrialState.COMPLETE else None, state=state)


class Shown(Callback):
    """Counts the trials that have ended, well or not, and ends a sweep in which none can begin."""

    def __init__(self, progress: Callable[[int, int], None], n_trial: int, *, stall_s: float = STALL_S) -> None:
        self._progress, self._n_trial, self._n_done = progress, n_trial, 0
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
        self._n_done += 1
        self._progress(self._n_done, self._n_trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """One more that crashed."""
        self.on_trial_complete(iteration, trials, trial)
