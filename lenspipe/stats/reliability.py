"""Whether probabilities are what they say: reliability by bins, expected calibration error, Brier score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.intervals import clopper_pearson

N_BIN = 15


def reliability(counts: ScoreCounts, probability: ArrayLike | None = None, *, n_bin: int = N_BIN) -> dict[str, Any]:
    """
    Observed against stated probability in bins of equal width, and the expected calibration error.

    ECE is the mean over all sources of ``|mean probability - observed fraction|`` of their bin (Guo et al. 2017). A
    probability on an edge belongs to the bin above it, 1 to the last. It depends on the fraction of lenses in the data.

    Parameters
    ----------
    counts : ScoreCounts
    probability : array (k,), optional
        Probability at each of ``counts.scores``; the score itself by default.
    n_bin : int

    Returns
    -------
    dict
        ``ece``, ``brier``, and ``bins`` with their edges, ``n``, mean ``probability``, ``observed`` and its 95 %
        Clopper-Pearson interval; empty bins are left out.
    """
    p = counts.scores if probability is None else np.asarray(probability, np.float64)
    n = counts.lens + counts.other
    total = n.sum()
    place = np.minimum((p * n_bin).astype(np.int64), n_bin - 1)
    in_bin, lenses, stated = (_sums(place, weights, n_bin) for weights in (n, counts.lens, n * p))
    filled = np.flatnonzero(in_bin)
    gap = np.abs(stated[filled] - lenses[filled])
    bins = [
        {
            "low": k / n_bin,
            "high": (k + 1) / n_bin,
            "n": int(in_bin[k]),
            "probability": float(stated[k] / in_bin[k]),
            "observed": float(lenses[k] / in_bin[k]),
            "interval95": list(clopper_pearson(int(lenses[k]), int(in_bin[k]))),
        }
        for k in filled
    ]
    return {
        "ece": float(gap.sum() / total) if total else None,
        "brier": float((counts.lens @ (1 - p) ** 2 + counts.other @ p**2) / total) if total else None,
        "bins": bins,
    }


def _sums(place: NDArray[np.int64], weights: NDArray[Any], n_bin: int) -> NDArray[np.float64]:
    return np.bincount(place, weights=weights.astype(np.float64), minlength=n_bin).astype(np.float64)
