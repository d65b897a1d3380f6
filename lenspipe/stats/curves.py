"""Curves and rates of a finder from its counts of scores; ties are never broken in its favour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.intervals import clopper_pearson, fraction, is_measurable

RATES = (1e-1, 1e-2, 1e-3, 1e-4)
Z95 = 1.959963984540054


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

    Raises
    ------
    DataError
        A class is empty.
    """
    _both(counts)
    return float((counts.lens / counts.n_lens) @ _below(counts))


def auroc_interval(counts: ScoreCounts) -> tuple[float, float]:
    """
    95 % interval of `auroc` (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, 837), normal and cut to [0, 1].

    Where the classes do not overlap at all that variance is zero; the Clopper-Pearson bound of the smaller class stands
    in for it. With one source in a class it is (0, 1). Sources are taken as independent.
    """
    area = auroc(counts)
    n_lens, n_other = counts.n_lens, counts.n_other
    if min(n_lens, n_other) < 2:
        return 0.0, 1.0
    if area in (0.0, 1.0):
        n = min(n_lens, n_other)
        return clopper_pearson(round(area * n), n)
    below, above = _below(counts), _above(counts)
    variance = float(counts.lens @ (below - area) ** 2) / (n_lens - 1) / n_lens
    variance += float(counts.other @ (above - area) ** 2) / (n_other - 1) / n_other
    half = Z95 * variance**0.5
    return max(0.0, area - half), min(1.0, area + half)


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
