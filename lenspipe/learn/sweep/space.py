"""The space of a sweep: families with their own settings, and settings that all of them share."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from lenspipe.errors import ConfigError
from lenspipe.learn.objectives import METHODS, objective_of
from lenspipe.learn.objectives.contract import Chance
from lenspipe.learn.settings import TrainSettings, less_is_better
from lenspipe.nn.outputs import TASKS
from lenspipe.toml import Table, put_over

Value = bool | int | float | str | tuple[int, ...]


class Range(Table):
    """Numbers between two bounds; for random and Optuna searches."""

    low: float
    """Least value."""
    high: float
    """Largest value."""
    log: bool = False
    """Whether the logarithm is uniform."""
    integer: bool = False
    """Whether only whole numbers count."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("a range needs low < high, and low > 0 where it is logarithmic")
        return self


Domain = Range | tuple[Value, ...] | Value
"""What a setting may be: a range, one of a list, or one value."""


class ModelSpace(Table):
    """A family and the settings that it alone has."""

    family: str
    """Network family."""
    settings: dict[str, Domain] = {}
    """Settings of the family; of one that is a list itself, a list of lists: ``channels = [[6, 9, 12, 17]]``."""
    train: dict[str, Domain] = {}
    """Settings of its training by dotted name, such as ``optim.learning_rate``; they go before `SweepSpace.shared`."""


class AshaSettings(Table):
    """Early stopping by successive halving (Li et al. 2020)."""

    grace_epochs: int = Field(default=2, ge=1)
    """Epochs that every trial gets."""
    reduction: float = Field(default=3.0, gt=1)
    """One in this many goes on from each rung."""


class SweepSpace(Table):
    """A space file."""

    task: str = Field(default=TASKS[0], json_schema_extra={"enum": [*METHODS]})
    """What the networks are to do."""
    metric: str | None = None
    """Number of the history that counts; the objective's where null: ``auc``, ``val_rmse`` to regress,
    ``noise_left`` to denoise, ``knn_auc`` to embed."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """``grid``: every combination; ``random`` and ``optuna`` (TPE): `samples` of them."""
    samples: int = Field(default=16, ge=1)
    """Trials of a random or Optuna search."""
    asha: AshaSettings | None = None
    """Early stopping; none where null."""
    base: TrainSettings = TrainSettings()
    """Settings of every training, before what the space puts over them."""
    shared: dict[str, Domain] = {}
    """Settings of the training by dotted name, such as ``"optim.learning_rate" = { low = 1e-4, high = 1e-2 }``."""
    model: tuple[ModelSpace, ...] = Field(min_length=1)
    """Families."""

    @field_validator("task")
    @classmethod
    def _known(cls, task: str) -> str:
        if task not in METHODS:
            raise ValueError(f"no such task; known: {', '.join(METHODS)}")
        return task

    @property
    def metric_name(self) -> str:
        """Number of the history that counts."""
        return self.metric or objective_of(self.task, self.base.method).metric

    @property
    def chance(self) -> Chance:
        """What a trial must be better than."""
        return objective_of(self.task, self.base.method).chance

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether less of it is better."""
        return "min" if less_is_better(self.metric_name) else "max"


@dataclass(frozen=True)
class Trial:
    """One point of a space: a family with settings, and a training."""

    family: str
    """Network family."""
    choice: dict[str, Value]
    """What the space chose, by name: ``model.NAME`` for settings of the family, dotted names for the rest."""
    settings: TrainSettings
    """Settings of the training, complete."""

    @property
    def name(self) -> str:
        """Name by content: the same settings have the same name in every run of a sweep."""
        facts = json.dumps([self.family, self.settings.model_dump(mode="json")], sort_keys=True)
        return f"{re.sub(r'[^A-Za-z0-9]+', '-', self.family)}-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"


def make_trial(space: SweepSpace, suggest: Callable[[str, Domain], Value], number: int) -> Trial:
    """
    The trial of family ``number`` whose settings ``suggest`` chooses; a setting exists only where it applies.

    Raises
    ------
    ConfigError
        A dotted name is no setting of a training, or its value is not allowed.
    """
    model = space.model[number]
    settings = {key: suggest(f"{model.family}.{key}", domain) for key, domain in model.settings.items()}
    own = {key: suggest(f"{model.family}.{key}", domain) for key, domain in model.train.items()}
    shared = {key: suggest(key, domain) for key, domain in space.shared.items() if key not in own}
    choice = {f"model.{key}": value for key, value in settings.items()} | shared | own
    return Trial(model.family, choice, put_over(space.base, choice, origin=f"sweep:{model.family}"))


def grid(space: SweepSpace) -> list[Trial]:
    """
    Every combination, each once.

    Raises
    ------
    ConfigError
        A range has no end of values.
    """
    trials: dict[str, Trial] = {}
    for number in range(len(space.model)):
        for values in _combinations(space, number):
            trial = make_trial(space, lambda name, _, values=values: values[name], number)  # type: ignore[misc]
            trials.setdefault(trial.name, trial)
    return list(trials.values())


def random_trials(space: SweepSpace, seed: int) -> list[Trial]:
    """`samples` trials, drawn independently; trial k depends on the seed and k alone."""
    return [random_trial(space, np.random.default_rng([seed, 83, k])) for k in range(space.samples)]


def random_trial(space: SweepSpace, rng: np.random.Generator) -> Trial:
    """A family, then its settings."""

    def suggest(name: str, domain: Domain) -> Value:
        if isinstance(domain, Range):
            if domain.log:
                value = float(np.exp(rng.uniform(np.log(domain.low), np.log(domain.high))))
            else:
                value = float(rng.uniform(domain.low, domain.high))
            return round(value) if domain.integer else value
        choices = domain if isinstance(domain, tuple) else (domain,)
        return choices[int(rng.integers(len(choices)))]

    return make_trial(space, suggest, int(rng.integers(len(space.model))))


def _combinations(space: SweepSpace, number: int) -> Iterator[dict[str, Value]]:
    model = space.model[number]
    domains = {f"{model.family}.{key}": domain for key, domain in (model.settings | model.train).items()}
    domains |= {key: domain for key, domain in space.shared.items() if key not in model.train}
    for name, domain in domains.items():
        if isinstance(domain, Range):
            raise ConfigError("a range has no end of values: list them, or search at random or by optuna", key=name)
    lists = [domain if isinstance(domain, tuple) else (domain,) for domain in domains.values()]
    for values in itertools.product(*lists):
        yield dict(zip(domains, values, strict=True))  # type: ignore[arg-type]
