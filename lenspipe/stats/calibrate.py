"""From a raw score to the probability of a lens: fitted on held-out scores, moved to a survey's own prior."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from lenspipe.errors import ConfigError, DataError
from lenspipe.nn.outputs import Calibration
from lenspipe.stats.counts import ScoreCounts

Method = Literal["platt", "temperature", "isotonic"]
LOG_ODDS_MAX = 36.7368
"""Log odds of the largest float64 below 1; scores of 0 and 1 are taken as this far out."""


def log_odds(score: ArrayLike) -> NDArray[np.float64]:
    """
    Natural logarithm of ``score / (1 - score)``, cut to +-36.7 where the score is 0 or 1.

    Examples
    --------
    >>> log_odds([0.5, 1.0]).round(2)
    array([ 0.  , 36.74])
    """
    s = np.asarray(score, np.float64)
    with np.errstate(divide="ignore"):
        odds = np.log(s) - np.log1p(-s)
    cut: NDArray[np.float64] = np.clip(odds, -LOG_ODDS_MAX, LOG_ODDS_MAX)
    return cut


def fit_calibration(counts: ScoreCounts, method: Method, *, data: str) -> Calibration:
    """
    Fit the map from score to probability on scores that the network was not trained on.

    ``platt`` (Platt 1999) is a logistic regression on the log odds of the score, two parameters; ``temperature``
    (Guo et al. 2017, arXiv:1706.04599) its slope alone, so a score of one half stays there; ``isotonic`` (Zadrozny &
    Elkan 2002) any rising step function, joined by straight lines, which wants a thousand lenses and more. In all of
    them the targets are Platt's, (N+1)/(N+2) for a lens and 1/(N+2) for another, so that no finite sample claims
    certainty; for ``isotonic`` they bound the result.

    Parameters
    ----------
    counts : ScoreCounts
        Held-out scores.
    method : str
    data : str
        What those stamps were; stands on the card.

    Raises
    ------
    DataError
        A class is empty.
    ConfigError
        The scores fall with the truth, so that no rising map calibrates them.
    """
    n_lens, n_other = counts.n_lens, counts.n_other
    if not (n_lens and n_other):
        raise DataError("a calibration needs lenses and others", n_lens=n_lens, n_other=n_other)
    facts = {"prior": n_lens / (n_lens + n_other), "n_lens": n_lens, "n_other": n_other, "data": data}
    if method == "isotonic":
        scores, values = _isotonic(counts)
        return Calibration(method=method, scores=scores, probabilities=values, **facts)
    slope, intercept = _logistic(counts, free_intercept=method == "platt")
    if not slope > 0:
        raise ConfigError(
            "the score does not rise with the truth on these stamps: this model cannot be calibrated on them",
            slope=slope,
            method=method,
        )
    return Calibration(method=method, slope=slope, intercept=intercept, **facts)


def probability(score: ArrayLike, calibration: Calibration, prior: float | None = None) -> NDArray[np.float64]:
    """
    Probability that a source is a lens, given its score and how common lenses are.

    Another prior multiplies the odds by the ratio of the prior odds (Saerens, Latinne & Decaestecker 2002, Neural
    Computation 14, 21): the scores of lenses, and those of others, are taken to be spread as in the calibration's data.

    Parameters
    ----------
    score : array, any shape
        Raw scores, 0 to 1; NaN stays NaN.
    calibration : Calibration
    prior : float, optional
        Fraction of lenses among what is scored; that of the calibration's data by default.

    Returns
    -------
    array, same shape

    Raises
    ------
    ConfigError
        The prior does not lie between 0 and 1.

    Examples
    --------
    >>> fitted = Calibration(method="temperature", slope=1.0, prior=0.5, n_lens=9, n_other=9, data="example")
    >>> probability([0.5, 0.9], fitted, prior=0.01).round(4)
    array([0.01  , 0.0833])
    """
    p: NDArray[np.float64] = expit(calibrated_log_odds(score, calibration, prior))
    return p


def calibrated_log_odds(score: ArrayLike, calibration: Calibration, prior: float | None = None) -> NDArray[np.float64]:
    """Log odds of `probability`, which near 0 and 1 tell what a probability cannot; parameters as there."""
    s = np.asarray(score, np.float64)
    if calibration.method == "isotonic":
        odds = log_odds(np.interp(s, calibration.scores, calibration.probabilities))
    else:
        odds = calibration.slope * log_odds(s) + calibration.intercept
    if prior is not None:
        if not 0 < prior < 1:
            raise ConfigError("a prior is a fraction between 0 and 1, both excluded", got=prior)
        odds = odds + log_odds(prior) - log_odds(calibration.prior)
    return np.asarray(odds)


def calibration_digest(calibration: Calibration) -> str:
    """Name of a calibration's exact content: first 16 hex digits of the SHA-256 of its JSON."""
    return hashlib.sha256(calibration.model_dump_json().encode()).hexdigest()[:16]


def probability_record(calibration: Calibration | None, prior: float | None) -> dict[str, Any]:
    """What a run or a catalogue says about its probabilities: prior, where it is from, the calibration, or why none."""
    if calibration is None:
        return {"prior": None, "calibration": None, "why": "the model's card has no calibration"}
    return {
        "prior": calibration.prior if prior is None else prior,
        "prior_from": "the calibration's data" if prior is None else "the request",
        "calibration": calibration_digest(calibration),
        "method": calibration.method,
        "data": calibration.data,
        "why": None,
    }


def _targets(counts: ScoreCounts) -> tuple[float, float]:
    return (counts.n_lens + 1) / (counts.n_lens + 2), 1 / (counts.n_other + 2)


def _logistic(counts: ScoreCounts, *, free_intercept: bool) -> tuple[float, float]:
    x, n = log_odds(counts.scores), counts.lens + counts.other
    high, low = _targets(counts)
    wanted = counts.lens * high + counts.other * low
    total = n.sum()

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = at[0] * x + (at[1] if free_intercept else 0.0)
        slack = n * expit(z) - wanted
        value = float(n @ np.logaddexp(0, z) - wanted @ z) / total
        return value, np.array([slack @ x, slack.sum() if free_intercept else 0.0]) / total

    start = np.array([1.0, np.log(counts.n_lens / counts.n_other) if free_intercept else 0.0])
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return float(found.x[0]), float(found.x[1])


def _isotonic(counts: ScoreCounts) -> tuple[tuple[float, ...], tuple[float, ...]]:
    n = counts.lens + counts.other
    result = isotonic_regression(counts.lens / n, weights=n.astype(float))
    high, low = _targets(counts)
    blocks, scores = result.blocks, counts.scores
    first, last = blocks[:-1], blocks[1:] - 1
    values = np.clip(result.x[first], low, high)
    # a block of several scores is flat between its first and its last
    knots = np.stack([scores[first], scores[last]], axis=1).ravel()
    heights = np.repeat(values, 2)
    keep = np.r_[True, np.diff(knots) > 0]
    return tuple(map(float, knots[keep])), tuple(map(float, heights[keep]))
