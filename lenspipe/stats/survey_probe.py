"""Does a finder tell surveys? The scores of ordinary galaxies of two surveys, against each other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.stats.counts import ScoreCounts, Tally
from lenspipe.stats.curves import auroc, auroc_interval

PROBE_KEYS = 1 << 16
AREA_MAX = 0.6
"""Area above which scores of two surveys must not be compared."""
N_SURVEY_MAX = 30
"""Surveys that are compared, those with most stamps first: their pairs grow with the square."""


class SurveyProbe:
    """Scores of stamps that are not lenses, by the survey that they name; memory does not grow with the data."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}

    def add(self, score: NDArray[np.float64], is_lens: NDArray[np.bool_], survey: NDArray[np.object_]) -> None:
        """Count a batch ``(n,)``; lenses, and stamps of no survey (None, or an empty word), are left out."""
        for name in sorted({str(s) for s in survey if s}):
            rows = (survey == name) & ~is_lens
            if rows.any():
                self._tallies.setdefault(name, Tally(PROBE_KEYS)).add(score[rows], False)

    def found(self) -> dict[str, Any] | None:
        """
        Area under the curve of the score alone between each two surveys; None with fewer than two.

        0.5 is what a finder gives that does not see which survey a galaxy is from. The galaxies of two surveys may
        differ themselves, as by their depth or by how they were chosen; then a larger area is not the finder's fault,
        and their scores are not comparable any more.

        Returns
        -------
        dict
            ``n`` others by survey; ``pairs``, the largest area first, each with the survey that scores ``higher`` and
            the one that scores ``lower``, ``auroc`` (0.5 or more), ``interval95``, ``n``; ``worst``, of those above
            `AREA_MAX` the surest (highest lower bound), or the first where there are none.
        """
        counts = {name: tally.total for name, tally in self._tallies.items()}
        names = sorted(counts, key=lambda name: (-counts[name].n_other, name))[:N_SURVEY_MAX]
        if len(names) < 2:
            return None
        pairs = [_pair(one, counts[one], two, counts[two]) for one, two in itertools.combinations(sorted(names), 2)]
        pairs.sort(key=lambda pair: -pair["auroc"])
        above = [pair for pair in pairs if pair["auroc"] > AREA_MAX]
        worst = max(above, key=lambda pair: pair["interval95"][0], default=pairs[0])
        return {"n": {name: counts[name].n_other for name in sorted(names)}, "pairs": pairs, "worst": worst}


def _pair(one: str, of_one: ScoreCounts, two: str, of_two: ScoreCounts) -> dict[str, Any]:
    both = _as_lenses(of_one) + of_two
    area, (low, high) = auroc(both), auroc_interval(both)
    n = [of_one.n_other, of_two.n_other]
    if area < 0.5:
        one, two, area, low, high, n = two, one, 1 - area, 1 - high, 1 - low, n[::-1]
    return {"higher": one, "lower": two, "auroc": area, "interval95": [low, high], "n": n}


def _as_lenses(counts: ScoreCounts) -> ScoreCounts:
    return ScoreCounts(counts.keys, counts.other, np.zeros_like(counts.other), counts.level, counts.max_keys)


def warning_of(name: str, found: dict[str, Any] | None) -> str | None:
    """What is to be said of a finder whose scores of two surveys lie too far apart; None where they do not."""
    if found is None or found["worst"]["auroc"] <= AREA_MAX:
        return None
    worst = found["worst"]
    low, high = worst["interval95"]
    text = (
        f"{name} tells surveys: of ordinary galaxies those of {worst['higher']} score above those of {worst['lower']} "
        f"with AUC {worst['auroc']:.3f} [{low:.3f}, {high:.3f}] ({worst['n'][0]} and {worst['n'][1]} stamps)"
    )
    if low <= 0.5:
        return f"{text}; with so few stamps this may be chance"
    return f"{text}; use thresholds, rates and calibrations of one survey within that survey only"
