"""Whether a finder finds more through a denoiser: the same stamps and seeds, without and with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.stats.intervals import fraction, unless_a_point

Array = NDArray[np.float64]


def tpr_at_fpr(lens: Array, other: Array, rate: float) -> tuple[int, float]:
    """
    Number of lenses above the threshold that at most ``rate`` of the others pass, and that threshold.

    A score counts as above only where it is greater: ties with the threshold's own other are not lenses.
    """
    allowed = int(np.floor(rate * len(other) + 1e-9))
    threshold = float(np.sort(other)[::-1][allowed]) if allowed < len(other) else float("-inf")
    return int((lens > threshold).sum()), threshold


def finder_gain(
    before: Array,
    after: Array,
    is_lens: NDArray[np.bool_],
    *,
    rates: Sequence[float] = (1e-2, 1e-3),
    n_boot: int = 1000,
) -> dict[str, Any]:
    """
    True-positive rates at fixed false-positive rates without and with a denoiser, and their difference.

    Parameters
    ----------
    before, after : arrays (seed, n)
        Scores of the same stamps by finders trained with the same seeds on raw and on denoised stamps.
    is_lens : array (n,), bool
    rates : sequence of float
        False-positive rates.

    Returns
    -------
    dict
        ``tpr`` by rate: ``before`` and ``after``, a fraction with its interval for every seed. ``tpr_gain`` by rate:
        mean difference over the seeds and its 95 % interval from drawing seeds and stamps anew, lenses and others by
        themselves, a stamp's two scores always together.
    """
    lens, other = np.flatnonzero(is_lens), np.flatnonzero(~is_lens)
    tpr: dict[str, Any] = {}
    gains: dict[str, Any] = {}
    for rate in rates:
        name = f"{rate:g}"
        tpr[name] = {
            when: [fraction(tpr_at_fpr(s[lens], s[other], rate)[0], len(lens)) for s in scores]
            for when, scores in (("before", before), ("after", after))
        }
        rng = np.random.default_rng(0)
        boots = np.empty(n_boot)
        for k in range(n_boot):
            a, b = rng.choice(lens, len(lens)), rng.choice(other, len(other))
            seeds = rng.integers(0, len(before), len(before))
            boots[k] = np.mean(
                [
                    tpr_at_fpr(after[s][a], after[s][b], rate)[0] - tpr_at_fpr(before[s][a], before[s][b], rate)[0]
                    for s in seeds
                ]
            ) / len(lens)
        value = np.mean([y["value"] - x["value"] for x, y in zip(tpr[name]["before"], tpr[name]["after"], strict=True)])
        low, high = unless_a_point(np.quantile(boots, [0.025, 0.975]), len(lens))
        gains[name] = {"value": float(value), "interval95": [low, high]}
    return {"n_lens": len(lens), "n_other": len(other), "n_seed": len(before), "tpr": tpr, "tpr_gain": gains}


def invented_arcs(
    raw: Array, denoised: Array, is_lens: NDArray[np.bool_], *, rate: float = 1e-2, n_boot: int = 1000
) -> dict[str, Any]:
    """
    Stamps without a lens that finders trained on raw stamps take for one only once they are denoised.

    Parameters
    ----------
    raw, denoised : arrays (seed, n)
        Scores of raw and of denoised stamps by the same finders, trained on raw stamps.
    rate : float
        False-positive rate of the threshold, set on the raw stamps of each seed.

    Returns
    -------
    dict
        ``new`` and ``gone``: stamps a seed that pass only after and only before; ``per_10000`` new ones; ``gain``, the
        change of the rate and its 95 % interval over stamps and seeds.
    """
    other = np.flatnonzero(~is_lens)
    lens = np.flatnonzero(is_lens)
    change = np.empty((len(raw), len(other)))
    new, gone = [], []
    for k in range(len(raw)):
        _, threshold = tpr_at_fpr(raw[k][lens], raw[k][other], rate)
        was, now = raw[k][other] > threshold, denoised[k][other] > threshold
        change[k] = now.astype(float) - was
        new.append(int((now & ~was).sum()))
        gone.append(int((was & ~now).sum()))
    rng = np.random.default_rng(0)
    boots = [
        change[np.ix_(rng.integers(0, len(raw), len(raw)), rng.integers(0, len(other), len(other)))].mean()
        for _ in range(n_boot)
    ]
    low, high = unless_a_point(np.quantile(boots, [0.025, 0.975]), len(other))
    return {
        "n_other": len(other),
        "new": new,
        "gone": gone,
        "per_10000": float(np.mean(new) / len(other) * 1e4),
        "gain": {"value": float(change.mean()), "interval95": [low, high]},
    }
