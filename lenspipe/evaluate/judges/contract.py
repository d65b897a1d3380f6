"""
What a judge answers, in the order in which `lenspipe evaluate` asks.

Which stamps a model needs, how it is loaded, which models go together, which columns are read, what a batch adds to the
counts and to ``scores.parquet``; then metrics, tables and pictures, CSV fields, the printed row; and what
`lenspipe calibrate` fits. A task has one file beside this one, and nothing else of `evaluate` knows tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.evaluate.stream import Member, OutputsT, Pixels, RunnerT, image_for
from lenspipe.infer.committee import Rule
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import ModelCard
from lenspipe.nn.committee import Committee
from lenspipe.nn.outputs import Prediction
from lenspipe.report.page import Section
from lenspipe.stamps.format import StampSet
from lenspipe.stats.calibrate import Method

Array = NDArray[np.float64]
Metrics = dict[str, Any]
Progress = Callable[[str, int, int], None]
"""Called with a stage, its stamps done and in all."""


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How models are judged."""

    split: str | None = "test"
    """Rows of the data set; None for all."""
    threshold: float = 0.5
    """Score from which a source is called a lens."""
    beta: float = 1.0
    """Weight of recall in F_beta."""
    committees: tuple[Rule, ...] = ()
    """Rules of committees of all models."""
    views: Rule | None = None
    """Rule by which the eight orientations are combined."""
    features: str | None = None
    """Model whose features describe the stamps of a generator; a shipped one that takes them where None."""


@dataclass(frozen=True, kw_only=True)
class CalibrateSettings:
    """What `lenspipe calibrate` is asked for."""

    split: str | None = "validation"
    """Rows of the data set; None for all."""
    method: Method = "platt"
    """Form of a finder's map."""
    accuracy: float | None = None
    """Accuracy asked of the stamps that a classifier keeps."""
    features: str | None = None
    """As of `JudgeSettings`."""


@dataclass(frozen=True)
class Calibrated:
    """A card with what was fitted, and the lines that say how well it holds."""

    card: ModelCard
    said: tuple[str, ...]


@dataclass(frozen=True)
class Printed:
    """The table of a report on the console."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str | None = None
    """A line below the table."""


class Judge(ABC, Generic[OutputsT, RunnerT]):
    """
    Judges models of one task on one data set: counts batch by batch, then says what the counts give.

    Parameters
    ----------
    members : sequence of Member
        Models with outputs of one class.
    stamps : StampSet
    settings : JudgeSettings

    Raises
    ------
    ConfigError
        The models or the settings do not go together.
    """

    audited: ClassVar[bool] = True
    """Whether the outputs are numbers per stamp, whose change `lenspipe.evaluate.audit` measures."""
    takes_any_grid: ClassVar[bool] = False
    """Whether stamps of several data sets may differ in bands, size and pixel scale."""
    only_by_model: ClassVar[tuple[str, ...]] = ()
    """Metrics that stand under ``models`` in ``metrics.json``, and not at its top as well."""

    def __init__(self, members: Sequence[Member[OutputsT, RunnerT]], stamps: StampSet, settings: JudgeSettings) -> None:
        self.members, self.stamps, self.settings = list(members), stamps, settings
        self.reading = stamps
        """Data set of the batch that is counted: of several that are read as one, the one it is from."""
        self.check()

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, *, device: str, batch_size: int | None, threads: int) -> RunnerT:
        """A checkpoint ready to run."""

    @classmethod
    def needs(cls, card: ModelCard, outputs: OutputsT) -> tuple[str, ...]:
        """Columns of the data set without which the model cannot be judged."""
        return card.features

    @classmethod
    def image_of(cls, card: ModelCard, stamps: StampSet) -> str:
        """Image column that the model takes; raises where there is none (`lenspipe.evaluate.stream.image_for`)."""
        return image_for(card, stamps)

    def check(self) -> None:
        """Raise `ConfigError` where the models or the settings do not go together."""
        if self.settings.committees or self.settings.views:
            raise ConfigError("committees and views are for finders", task=self.members[0].card.task)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that the models tell apart; none where they do not classify."""
        return ()

    def columns(self) -> list[str]:
        """Columns to read beside ``stamp_id``, ``label`` and the images."""
        return [name for member in self.members for name in self.needs(member.card, member.outputs)]

    @abstractmethod
    def count(self, table: pa.Table, pixels: dict[str, Pixels]) -> Iterator[pa.Table]:
        """Count a batch and give its rows of ``scores.parquet``, all batches in one schema."""

    @abstractmethod
    def metrics(self) -> dict[str, Metrics]:
        """
        Everything that the counts give, by the name of what was judged: the models first, in order.

        Raises
        ------
        DataError
            The stamps do not allow a judgement, such as those of one class.
        """

    @abstractmethod
    def sections(self, metrics: Mapping[str, Metrics]) -> list[Section]:
        """Tables and pictures of the report's page."""

    @abstractmethod
    def csv_fields(self, metrics: Metrics) -> dict[str, Any]:
        """Columns of ``models.csv`` for one model."""

    @abstractmethod
    def printed(self, metrics: Mapping[str, Metrics]) -> Printed:
        """What the command prints: the numbers that count, one row per model."""

    def add_committee(self, committee: Committee, members: Sequence[Member[OutputsT, RunnerT]]) -> None:
        """
        Judge a committee of some of the models as well.

        Raises
        ------
        ConfigError
            Models of the task are not averaged.
        """
        raise ConfigError("a committee is made of finders", committee=committee.card.name, task=members[0].card.task)

    @classmethod
    def shown(cls, outputs: OutputsT, said: Prediction) -> Array:
        """Numbers ``(n, k)`` whose change under turns and shifts the audit measures."""
        raise NotImplementedError

    @classmethod
    def calibrate(
        cls, member: Member[OutputsT, RunnerT], stamps: StampSet, settings: CalibrateSettings, progress: Progress
    ) -> Calibrated:
        """
        Fit what a model needs beside its weights on stamps that it has not seen.

        Raises
        ------
        ConfigError
            Models of the task need nothing of the kind.
        DataError
            The stamps do not allow a fit.
        """
        demand_no_accuracy(member, settings)
        raise ConfigError(
            "only the score of a finder and the abstention of a classifier are fitted on held-out stamps",
            model=member.name,
            task=member.card.task,
        )


class NumbersJudge(Judge[OutputsT, Predictor]):
    """A judge of models that give numbers per stamp."""

    @classmethod
    def load(cls, folder: Path, *, device: str, batch_size: int | None, threads: int) -> Predictor:
        """A checkpoint ready to run."""
        return Predictor(folder, device=device, batch_size=batch_size, threads=threads)


def demand_no_accuracy(member: Member[Any, Any], settings: CalibrateSettings) -> None:
    """Raise `ConfigError` where a classifier's option is given for another model."""
    if settings.accuracy is not None:
        raise ConfigError("--accuracy is about classifiers", model=member.name, task=member.card.task)


def fields(metrics: Metrics, names: Sequence[str]) -> dict[str, Any]:
    """Columns of some metrics; an empty word where one is not measured."""
    return {name: "" if metrics[name] is None else metrics[name] for name in names}


def file_stem(name: str) -> str:
    """
    Name of a model as part of a file name.

    Examples
    --------
    >>> file_stem("three (2)")
    'three__2_'
    """
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
