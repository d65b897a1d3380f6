"""Several scores of one stamp as one: committees of models, and the eight views of a stamp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from lenspipe.errors import ConfigError
from lenspipe.nn.outputs import Calibration
from lenspipe.stats.calibrate import calibrated_log_odds, probability

Rule = Literal["mean", "product", "calibrated", "logits"]
N_VIEW = 8


def combine(
    scores: NDArray[np.floating], rule: Rule, calibrations: Sequence[Calibration | None] = ()
) -> NDArray[np.float64]:
    """
    One score a stamp from the scores ``(member, n)`` of a committee.

    ``mean`` is their arithmetic mean. ``product`` is their geometric mean: it ranks as the product over views or
    members does (Schaefer et al. 2018, A&A 611, A2) and stays between 0 and 1 in the same way for any number of them.
    ``calibrated`` is the mean of the members' probabilities at one prior (a half), so that members whose scores are
    spread differently weigh the same (after Holloway et al. 2024, MNRAS 530, 1297). ``logits`` is `committee_score`
    with equal weights: what a committee gives in a scan.

    Raises
    ------
    ConfigError
        ``calibrated`` or ``logits``, and a member has no calibration.
    """
    members = np.asarray(scores, np.float64)
    if rule == "mean":
        return np.asarray(members.mean(axis=0))
    if rule == "product":
        with np.errstate(divide="ignore"):
            return np.asarray(np.exp(np.log(members).mean(axis=0)))
    known = [calibration for calibration in calibrations if calibration is not None]
    if len(known) != len(members):
        raise ConfigError(
            "a calibrated committee needs a calibration on every member's card; fit them by `lenspipe calibrate`",
            members=len(members),
            calibrated=len(known),
        )
    if rule == "logits":
        return committee_score(members, known)
    stated = [probability(row, fitted, 0.5) for row, fitted in zip(members, known, strict=True)]
    return np.asarray(np.mean(stated, axis=0))


def committee_score(
    scores: NDArray[np.floating], calibrations: Sequence[Calibration], weights: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """
    One score ``(n,)`` from those of finders ``(member, n)``: the logistic of the mean of their calibrated log odds.

    The log odds are those of each member's probability at a prior of one half, that is the logarithm of its likelihood
    ratio: what the pixels say to it, apart from how common lenses were where it was calibrated. A half is where the
    members on the whole see nothing either way. Averages of log odds let a member be as sure as it is; averages of
    probabilities (``calibrated``) forget how far from 0 the small ones lie, and the rates that count are small.

    Parameters
    ----------
    scores : array (member, n)
        Raw scores.
    calibrations : sequence of Calibration
        One per member.
    weights : sequence of float, optional
        One per member; equal where not given.
    """
    weighed = [1.0] * len(calibrations) if weights is None else list(weights)
    total = np.zeros(np.shape(scores)[1:])
    for row, fitted, weight in zip(scores, calibrations, weighed, strict=True):
        total += weight * calibrated_log_odds(row, fitted, 0.5)
    mean: NDArray[np.float64] = expit(total / sum(weighed))
    return mean


def dihedral_view(stamps: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """
    One of the eight orientations of stamps ``(..., y, x)``: ``view % 4`` quarter turns, mirrored from 4 on.

    Examples
    --------
    >>> dihedral_view(np.array([[1, 2], [3, 4]], np.float32), 1)
    array([[2., 4.],
           [1., 3.]], dtype=float32)
    """
    turned = np.rot90(stamps, view % 4, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if view >= 4 else turned)
