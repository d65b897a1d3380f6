"""What a sweep tries next: the trials of a list, or Optuna's suggestions kept in a journal."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lenspipe.learn.sweep.space import Domain, Range, SweepSpace, Trial, Value, grid, make_trial, random_trials
from lenspipe.learn.sweep.trials import RESULT_FILE, TRIALS

if TYPE_CHECKING:
    import optuna

JOURNAL = ".optuna.log"


class Search(Protocol):
    """Where the trials of a sweep come from."""

    n_trial: int
    """Trials that are left when the sweep begins."""

    def ask(self, key: str) -> Trial | None:
        """The next trial, to be told of by ``key``; None where there is none."""
        ...

    def tell(self, key: str, value: float | None) -> None:
        """What came out; None of a trial that crashed."""
        ...


def search_of(space: SweepSpace, folder: Path, *, seed: int) -> Search:
    """Search of a space for the sweep in a folder, without what is done there."""
    if space.search == "optuna":
        return StudySearch(space, folder / JOURNAL, seed=seed)
    trials = grid(space) if space.search == "grid" else random_trials(space, seed)
    distinct = list({trial.name: trial for trial in trials}.values())
    if space.asha is None:  # early stopping must hear of the finished ones again, nobody else
        distinct = [trial for trial in distinct if not (folder / TRIALS / trial.name / RESULT_FILE).exists()]
    return ListSearch(distinct)


class ListSearch:
    """The trials of a list, one after the other; nothing is learnt from a result."""

    def __init__(self, trials: list[Trial]) -> None:
        self._left = list(reversed(trials))
        self.n_trial = len(trials)

    def ask(self, key: str) -> Trial | None:
        """The next of the list."""
        return self._left.pop() if self._left else None

    def tell(self, key: str, value: float | None) -> None:
        """Nothing is learnt."""


class StudySearch:
    """
    Optuna's tree-structured Parzen estimator, define-by-run: a setting is asked for only where it applies.

    The study is a journal in the sweep's folder. Trials that were cut off are asked for again first, with the same
    settings, and so resume from their own state.
    """

    def __init__(self, space: SweepSpace, journal: Path, *, seed: int) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import TrialState

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
        self.n_trial = max(0, space.samples - len(done))

    def ask(self, key: str) -> Trial | None:
        """The trial that Optuna asks for."""
        asked = self._study.ask()
        self._asked[key] = asked

        def choose(name: str, domain: Domain) -> Value:
            if isinstance(domain, Range):
                if domain.integer:
                    return asked.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
                return asked.suggest_float(name, domain.low, domain.high, log=domain.log)
            choices = domain if isinstance(domain, tuple) else (domain,)
            chosen: Value = asked.suggest_categorical(name, list(choices))
            return chosen

        number = asked.suggest_categorical("model", list(range(len(self._space.model))))
        return make_trial(self._space, choose, int(number))

    def tell(self, key: str, value: float | None) -> None:
        """Tell Optuna what came out; a crashed trial tells it nothing, and counts."""
        from optuna.trial import TrialState

        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._study.tell(self._asked.pop(key), value, state=state)
