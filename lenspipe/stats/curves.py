"""Curves and rates of a finder from its counts of scores; ties are never broken in its favour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

from lenspipe.errors import DataError
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.intervals import clopper_pearson, fraction, is_measurable

RATES = (1e-1, 1e-2, 1e-3, 1e-4)
Z95 = 1.959963984540054
SMALL, FEW = 30, 5
"""A class of fewer sources, or so few of them on the wrong side, is too small for a normal interval of the area."""


def roc(counts: ScoreCounts) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """
    False and true positives at each threshold, from the highest.

    Returns
    -------
    false, true : int64 arrays (k + 1,)
        Sources of each class with a score at the threshold or above; both begin at 0.
    threshold : float64 array (k + 1,)
        Infinite in front, then each distinct score, falling.
    """
    false = np.r_[0, np.cumsum(counts.other[::-1])]
    true = np.r_[0, np.cumsum(counts.lens[::-1])]
    return false, true, np.r_[np.inf, counts.edges[::-1]]


def auroc(counts: ScoreCounts) -> float:
    """
    Area under the ROC curve: the chance that a lens scores above another source, ties counted one half.

    Exactly 1 (or 0) where each lens scores above (below) each other source, whatever the rounding of the sum.

    Raises
    ------
    DataError
        A class is empty.
    """
    _both(counts)
    apart = _separated(counts)
    return float((counts.lens / counts.n_lens) @ _below(counts)) if apart is None else apart


def auroc_interval(counts: ScoreCounts) -> tuple[float, float]:
    """
    95 % interval of `auroc` (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, 837), normal and cut to [0, 1].

    DeLong's takes the scores as they are, but shrinks to nothing near 0 and 1: with 40 sources of each class it holds a
    true area of 0.99 in 60 to 80 % of all samples. Where the smaller class has fewer sources than `SMALL`, or fewer
    than `FEW` of them on the wrong side, it has Student's t and is widened, on each side, to Newcombe's (2006,
    Statistics in Medicine 25, 559, method 5: the area at which Hanley & McNeil's standard error reaches the one found).
    Where the classes do not overlap, the Clopper-Pearson bound of the smaller class stands in for DeLong's. With one
    source in a class the interval is (0, 1). Sources are taken as independent.
    """
    area = auroc(counts)
    n_lens, n_other = counts.n_lens, counts.n_other
    n = min(n_lens, n_other)
    if n < 2:
        return 0.0, 1.0
    few = n < SMALL or n * min(area, 1 - area) < FEW
    if area in (0.0, 1.0):
        low, high = clopper_pearson(round(area * n), n)
    else:
        below, above = _below(counts), _above(counts)
        variance = float(counts.lens @ (below - area) ** 2) / (n_lens - 1) / n_lens
        variance += float(counts.other @ (above - area) ** 2) / (n_other - 1) / n_other
        half = (float(stdtrit(n - 1, 0.975)) if few else Z95) * variance**0.5
        low, high = area - half, area + half
    if few:
        wide_low, wide_high = _hanley_mcneil_interval(area, n_lens, n_other)
        low, high = min(low, wide_low), max(high, wide_high)
    return max(0.0, low), min(1.0, high)


def _hanley_mcneil_interval(area: float, n_lens: int, n_other: int) -> tuple[float, float]:
    """Areas at which the standard error of Hanley & McNeil (1982), both classes taken as of mean size, is that off."""
    half_sum = (n_lens + n_other) / 2 - 1

    def excess(t: float) -> float:
        variance = t * (1 - t) * (1 + half_sum * ((1 - t) / (2 - t) + t / (1 + t))) / (n_lens * n_other)
        return (area - t) ** 2 - Z95**2 * variance

    edge = 1e-12
    low = 0.0 if excess(edge) <= 0 or area <= edge else float(brentq(excess, edge, min(area, 1 - edge)))
    high = 1.0 if excess(1 - edge) <= 0 or area >= 1 - edge else float(brentq(excess, max(area, edge), 1 - edge))
    return low, high


def _separated(counts: ScoreCounts) -> float | None:
    """1 where the lowest lens lies above the highest other source, 0 where the highest lies below the lowest."""
    lens, other = np.flatnonzero(counts.lens), np.flatnonzero(counts.other)
    if lens[0] > other[-1]:
        return 1.0
    return 0.0 if lens[-1] < other[0] else None


def auroc_error_max(counts: ScoreCounts) -> float:
    """Most by which `auroc` can differ from that of the unrounded scores; 0 while the counts are exact."""
    if counts.level == 0:
        return 0.0
    return float((counts.lens / counts.n_lens) @ (counts.other / counts.n_other)) / 2


def recall_with_false(counts: ScoreCounts, n_false: int) -> dict[str, Any]:
    """
    Most lenses found with at most ``n_false`` false positives, with its 95 % Clopper-Pearson interval.

    Sources of one score pass together: a lens that ties with a source which must not pass does not count.
    """
    false, true, threshold = roc(counts)
    at = int(np.searchsorted(false, n_false, side="right")) - 1
    found = fraction(int(true[at]), counts.n_lens)
    return {**found, "threshold": _finite(threshold[at]), "n_false": int(false[at]), "n_other": counts.n_other}


def tpr0(counts: ScoreCounts) -> dict[str, Any]:
    """TPR before the first false positive (Metcalf et al. 2019, A&A 625, A119, section 4); 0 where the top is tied."""
    return recall_with_false(counts, 0)


def tpr10(counts: ScoreCounts) -> dict[str, Any]:
    """TPR with fewer than ten false positives (Metcalf et al. 2019); their test set had 1e5 sources."""
    return recall_with_false(counts, 9)


def tpr_at_fpr(counts: ScoreCounts, fpr: float) -> dict[str, Any]:
    """
    TPR at the lowest threshold that at most a fraction ``fpr`` of the others pass.

    The interval is that of the lenses at a threshold taken as given. With fewer than 3 / fpr others there is no value,
    and ``why`` says so.
    """
    if not is_measurable(fpr, counts.n_other):
        return {"value": None, "why": f"not measurable with {counts.n_other} negatives", "n_other": counts.n_other}
    return recall_with_false(counts, int(np.floor(fpr * counts.n_other + 1e-9)))


def rate_name(rate: float) -> str:
    """
    How a rate is written in reports.

    Examples
    --------
    >>> rate_name(0.001)
    '1e-3'
    """
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _below(counts: ScoreCounts) -> NDArray[np.float64]:
    before = np.cumsum(counts.other) - counts.other
    below: NDArray[np.float64] = (before + counts.other / 2) / counts.n_other
    return below


def _above(counts: ScoreCounts) -> NDArray[np.float64]:
    after = counts.n_lens - np.cumsum(counts.lens)
    above: NDArray[np.float64] = (after + counts.lens / 2) / counts.n_lens
    return above


def _both(counts: ScoreCounts) -> None:
    if not (counts.n_lens and counts.n_other):
        raise DataError("both classes are needed", n_lens=counts.n_lens, n_other=counts.n_other)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
