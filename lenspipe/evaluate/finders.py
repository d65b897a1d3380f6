"""What gives a score to each stamp: a finder, its eight views, a committee. The judge of finders asks no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.evaluate.stream import Member, Pixels
from lenspipe.infer.committee import N_VIEW, Rule, combine, committee_score, dihedral_view
from lenspipe.infer.predict import Predictor
from lenspipe.nn.committee import Committee
from lenspipe.nn.outputs import Calibration, Find
from lenspipe.stamps.format import StampSet

Array = NDArray[np.float64]
FindMember = Member[Find, Predictor]


class Finder(Protocol):
    """Anything that scores stamps."""

    @property
    def name(self) -> str:
        """What the report calls it; unique."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """Map from its score to a probability, where one was fitted."""
        ...

    def score(self, batch: Scored) -> Array:
        """Raw scores ``(n,)`` of a batch, 0 to 1; ``batch.of(other)`` for those of another finder."""
        ...

    def facts(self, n: int) -> dict[str, Any]:
        """Metrics beside those of the scores, after ``n`` stamps."""
        ...


class Scored:
    """A batch of stamps with the scores that were asked for: no finder scores it twice."""

    def __init__(self, stamps: StampSet, table: pa.Table, pixels: dict[str, Pixels]) -> None:
        self.stamps, self.table, self.pixels = stamps, table, pixels
        self._scores: dict[str, Array] = {}

    def of(self, finder: Finder) -> Array:
        """Scores ``(n,)`` of a finder."""
        if finder.name not in self._scores:
            self._scores[finder.name] = finder.score(self)
        return self._scores[finder.name]


class Single:
    """One model."""

    def __init__(self, member: FindMember) -> None:
        self.member = member
        self.name, self.calibration = member.name, member.outputs.calibration

    def score(self, batch: Scored) -> Array:
        """Scores as a scan gives them."""
        return self.score_prepared(batch.table, self.member.prepared(batch.stamps, batch.pixels))

    def score_prepared(self, table: pa.Table, prepared: Pixels) -> Array:
        """Scores of network input."""
        score = self.member.predict(table, prepared).score
        assert score is not None
        return score

    def facts(self, n: int) -> dict[str, Any]:
        """Nothing more."""
        return {}


class Views:
    """The eight orientations of each stamp, scored by one model and combined by a rule."""

    calibration = None

    def __init__(self, single: Single, rule: Rule) -> None:
        self.single, self.rule, self.name = single, rule, f"{single.name}, 8 views, {rule}"
        self._sum, self._largest = 0.0, 0.0

    def score(self, batch: Scored) -> Array:
        """Combined scores; how far the eight lie apart is counted."""
        prepared = self.single.member.prepared(batch.stamps, batch.pixels)
        turned = (dihedral_view(prepared, view) for view in range(1, N_VIEW))
        seen = np.stack([batch.of(self.single), *(self.single.score_prepared(batch.table, view) for view in turned)])
        apart = seen.max(axis=0) - seen.min(axis=0)
        self._sum, self._largest = self._sum + float(apart.sum()), max(self._largest, float(apart.max()))
        return combine(seen, self.rule, [self.single.calibration] * N_VIEW)

    def facts(self, n: int) -> dict[str, Any]:
        """Highest minus lowest score of the eight views: mean and largest."""
        return {"spread_of_views": {"mean": self._sum / n, "largest": self._largest}}


class Weighed:
    """A committee as its card weighs and calibrates it: what a scan stores."""

    def __init__(self, committee: Committee, singles: Sequence[Single]) -> None:
        self.committee, self.singles = committee, list(singles)
        self.name, self.calibration = committee.card.name, committee.card.calibration
        self._calibrations = committee.calibrations()

    def score(self, batch: Scored) -> Array:
        """Scores as a scan gives them."""
        each = np.stack([batch.of(single) for single in self.singles])
        return committee_score(each, self._calibrations, self.committee.weights)

    def facts(self, n: int) -> dict[str, Any]:
        """Digest, and members with their weights."""
        members = [
            {"name": single.name, "digest": entry.digest, "weight": entry.weight}
            for single, entry in zip(self.singles, self.committee.card.members, strict=True)
        ]
        return {"committee": {"digest": self.committee.digest, "members": members}}


class Together:
    """All models as a committee, by a rule."""

    calibration = None

    def __init__(self, singles: Sequence[Single], rule: Rule) -> None:
        self.singles, self.rule, self.name = list(singles), rule, f"committee, {rule}"

    def score(self, batch: Scored) -> Array:
        """Combined scores."""
        each = np.stack([batch.of(single) for single in self.singles])
        return combine(each, self.rule, [single.calibration for single in self.singles])

    def facts(self, n: int) -> dict[str, Any]:
        """Nothing more."""
        return {}
