"""Whether stamps can be told apart where nothing was painted: a classifier that sees their borders alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.robust import robust_sigma
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval

FOLDS = 4
CHANCE = 0.5
"""Area of a classifier that knows nothing."""


def border_features(stamps_njy: NDArray[np.floating], *, width_px: int) -> NDArray[np.float64]:
    """
    Statistics ``(n, k)`` of a frame ``width_px`` wide around stamps ``(n, band, y, x)``: what noise, sky and edges are.

    Per band the median, the robust scatter, the scatter of differences of neighbours (noise correlation), the 5th and
    95th percentile and the part of exact zeros.
    """
    n, n_band, side, _ = stamps_njy.shape
    frame = np.ones((side, side), bool)
    frame[width_px:-width_px, width_px:-width_px] = False
    columns = []
    for b in range(n_band):
        plane = np.asarray(stamps_njy[:, b], np.float64)
        seen = plane[:, frame]
        step = np.diff(np.concatenate([plane[:, :width_px], plane[:, -width_px:]], axis=1), axis=2).reshape(n, -1)
        columns += [
            np.median(seen, axis=1),
            np.log(np.maximum(robust_sigma(seen, 1), 1e-9)),
            np.log(np.maximum(robust_sigma(step, 1), 1e-9)),
            *np.percentile(seen, [5, 95], axis=1),
            (seen == 0).mean(axis=1),
        ]
    return np.stack(columns, axis=1)


def warning_of(probe: dict[str, Any]) -> str:
    """
    A line where the interval of a probe lies above chance; else empty.

    Examples
    --------
    >>> warning_of({"auc": 0.5, "interval95": [0.45, 0.55]})
    ''
    """
    low, high = probe["interval95"]
    if not low > CHANCE:
        return ""
    return (
        f"Warning: the borders tell lenses from all else (AUC {probe['auc']:.3f} [{low:.3f}, {high:.3f}], above "
        f"{CHANCE}), so the finder may learn noise or sky instead of arcs: look at the stamps before you trust it"
    )


def border_probe(
    stamps_njy: NDArray[np.floating], is_lens: NDArray[np.bool_], host: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """
    How well borders alone tell lenses from everything else, on hosts that the classifier has not seen.

    Gradient-boosted trees on `border_features` of a frame a tenth of the side wide, cross-validated by host. At chance
    the area under the curve is 0.5.

    Parameters
    ----------
    stamps_njy : array (n, band, y, x)
    is_lens : array (n,)
    host : sequence of str
        Stamps of one host stay on one side.
    seed : int

    Returns
    -------
    dict
        ``auc``, ``interval95``, ``n_lens``, ``n_other``, ``n_host``.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import GroupKFold

    features = border_features(stamps_njy, width_px=max(2, stamps_njy.shape[-1] // 10))
    truth, groups = np.asarray(is_lens, bool), np.unique(np.asarray(host, str), return_inverse=True)[1]
    score = np.full(len(truth), np.nan)
    for train, test in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(features, truth, groups):
        if truth[train].all() or not truth[train].any():
            continue
        model = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.1, random_state=seed)
        score[test] = model.fit(features[train], truth[train]).predict_proba(features[test])[:, 1]
    known = np.isfinite(score)
    counts = ScoreCounts.of(score[known], truth[known])
    return {
        "auc": auroc(counts),
        "interval95": list(auroc_interval(counts)),
        "n_lens": counts.n_lens,
        "n_other": counts.n_other,
        "n_host": len(np.unique(groups)),
    }
