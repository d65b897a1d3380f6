"""Fit the calibration of a finder on held-out stamps, and say how well it holds on stamps that it was not fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lenspipe.evaluate.finders import Finder, FindMember, Scored
from lenspipe.evaluate.stream import count_rows, iter_stamps, words
from lenspipe.nn.outputs import Calibration
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import each_of
from lenspipe.stats.calibrate import Method, fit_calibration, probability
from lenspipe.stats.counts import ScoreCounts, Tally
from lenspipe.stats.reliability import reliability


@dataclass(frozen=True)
class Fitted:
    """
    A calibration, and the reliability before and after.

    Attributes
    ----------
    calibration : Calibration
        Fitted on all stamps.
    before, after : dict
        ``ece`` and ``brier`` of the raw score, and of probabilities of each half from the calibration of the other
        half; ``after`` is None where a half has only one class.
    """

    calibration: Calibration
    before: dict[str, Any]
    after: dict[str, Any] | None


def fit_on_halves(
    finder: Finder,
    members: Sequence[FindMember],
    stamps: StampSet,
    *,
    split: str | None,
    method: Method,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """
    Score the stamps of a split by a finder that is made of ``members``, and fit the map from score to probability.

    The two halves, by a hash of the stamp's name, judge each other; memory does not grow with the data set.

    Raises
    ------
    ConfigError
        The score falls with the truth.
    DataError
        The split is empty, or holds one class only.
    """
    done, total = 0, count_rows(stamps, split)
    halves = (Tally(), Tally())
    images, features = [m.image for m in members], [name for m in members for name in m.card.features]
    for reading in each_of(stamps):
        for table, pixels in iter_stamps(reading, images, features, split=split):
            score = Scored(reading, table, pixels).of(finder)
            is_lens = words(table, "label") == members[0].outputs.classes[-1]
            digests = (hashlib.blake2b(str(name).encode(), digest_size=1).digest() for name in words(table, "stamp_id"))
            half = np.array([digest[0] % 2 for digest in digests])
            for k, tally in enumerate(halves):
                tally.add(score[half == k], is_lens[half == k])
            done += table.num_rows
            progress(done, total)
    one, two = (tally.total for tally in halves)
    both = one + two
    of_models = " ".join(member.predictor.digest for member in members)
    data = f"{stamps.title}, split {split or 'all'}, model {of_models}"
    fitted = fit_calibration(both, method, data=data)
    return Fitted(fitted, _of(reliability(both)), _crossed(one, two, method))


def _crossed(one: ScoreCounts, two: ScoreCounts, method: Method) -> dict[str, Any] | None:
    if not all((one.n_lens, one.n_other, two.n_lens, two.n_other)):
        return None
    parts = []
    for fitted_on, judged_on in ((one, two), (two, one)):
        calibration = fit_calibration(fitted_on, method, data="the other half")
        found = reliability(judged_on, probability(judged_on.scores, calibration))
        parts.append((judged_on.n_lens + judged_on.n_other, found))
    n = sum(weight for weight, _ in parts)
    return {key: sum(weight * found[key] for weight, found in parts) / n for key in ("ece", "brier")}


def said_of(name: str, fitted: Fitted) -> tuple[str, ...]:
    """A fit in lines for people: on what, the map, and how well it holds."""
    c, before, after = fitted.calibration, fitted.before, fitted.after
    form = f"log odds of the probability = {c.slope:.4f} x log odds of the score {c.intercept:+.4f}"
    held = (
        "too few stamps to judge it on a half that it was not fitted on"
        if after is None
        else f"calibrated on the other half: ECE {after['ece']:.4f}, Brier {after['brier']:.4f}"
    )
    return (
        f"{name}: {c.method} on {c.n_lens} lenses and {c.n_other} others ({c.data})",
        f"  {len(c.scores)} knots" if c.method == "isotonic" else f"  {form}",
        f"  raw score: ECE {before['ece']:.4f}, Brier {before['brier']:.4f}",
        f"  {held}",
    )


def _of(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("ece", "brier")}
