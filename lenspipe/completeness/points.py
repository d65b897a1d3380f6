"""Operating points: the thresholds at which completeness is given, each measured on the survey's own candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.stats.intervals import fraction, is_measurable
from lenspipe.stats.recall import threshold_passed_by


@dataclasses.dataclass(frozen=True)
class Point:
    """A threshold and what it costs."""

    name: str
    threshold: float
    """A lens is recovered where its score is above this."""
    passing: dict[str, Any]
    """Part of the bare candidates above it, with its interval."""


def points_of(
    scores: NDArray[np.float64],
    *,
    rates: Sequence[float],
    first: Sequence[int],
    thresholds: Sequence[float],
    area_part: float,
) -> tuple[list[Point], list[str]]:
    """
    Operating points, and a line on each that cannot be measured.

    Parameters
    ----------
    scores : array (n,)
        Of the run's candidates as they are; real lenses among them are too few to matter.
    rates : sequence of float
        Parts of the candidates that pass.
    first : sequence of int
        Numbers of best candidates of the whole run.
    thresholds : sequence of float
        Scores.
    area_part : float
        Part of the run's area that the scores are of.
    """
    n = len(scores)
    points, notes = [], []
    for rate in rates:
        if is_measurable(rate, n):
            points.append(_point(f"rate {rate:g}", threshold_passed_by(scores, rate), scores))
        else:
            notes.append(f"a rate of {rate:g} cannot be measured with {n} candidates (3 / rate are needed)")
    for number in first:
        rank = round(number * area_part)
        if 1 <= rank < n:
            points.append(_point(f"first {number}", float(np.sort(scores)[::-1][rank]), scores))
        else:
            notes.append(f"the first {number} are not fewer than the {n} candidates that were scored")
    points += [_point(f"score {value:g}", float(value), scores) for value in thresholds]
    return points, notes


def _point(name: str, threshold: float, scores: NDArray[np.float64]) -> Point:
    return Point(name, threshold, fraction(int((scores > threshold).sum()), len(scores)))
