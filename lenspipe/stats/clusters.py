"""False positives by what stamps share: a galaxy shown ten times is one galaxy, and a tile is one sky."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from lenspipe.stats.intervals import clopper_pearson, fraction

MAX_ROWS = 1 << 20
"""Stamps that are kept; of more, all stamps of a part of the groups, drawn by the hash of their names."""


def clustered_interval(k: NDArray[np.integer], n: NDArray[np.integer]) -> tuple[float, float]:
    """
    95 % interval of a fraction whose trials come in groups: ``k`` successes of ``n`` trials in each group.

    Clopper and Pearson's with the number of trials that independent ones would need for the variance between groups
    (Korn & Graubard 1998, Survey Methodology 24, 193), with Student's t for few groups. With one trial per group it is
    theirs but for the t. Where nothing passes, or all, each group counts as one trial. One group says nothing.

    Parameters
    ----------
    k, n : int arrays (group,)
        With at least one trial each.
    """
    n_group, trials, passed = len(n), int(n.sum()), int(k.sum())
    if n_group < 2:
        return 0.0, 1.0
    if passed in (0, trials):
        return clopper_pearson(n_group if passed else 0, n_group)
    rate = passed / trials
    variance = float(np.sum((k - rate * n) ** 2)) * n_group / (n_group - 1) / trials**2
    effective = rate * (1 - rate) / variance if variance > 0 else float(trials)
    effective *= float(stdtrit(max(trials - 1, 1), 0.025) / stdtrit(n_group - 1, 0.025)) ** 2
    effective = min(effective, float(trials))
    few = rate * effective
    low = float(betaincinv(few, effective - few + 1, 0.025))
    high = float(betaincinv(few + 1, effective - few, 0.975))
    return low, high


class ByGroup:
    """Scores of stamps that are not lenses with the group that each belongs to, in bounded memory."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._bits = 0
        self._keys: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
        self._scores: list[NDArray[np.float64]] = [np.empty(0, np.float64)]
        self._n_waiting = 0

    def add(self, score: NDArray[np.float64], is_lens: NDArray[np.bool_], group: NDArray[np.object_]) -> None:
        """Count a batch ``(n,)``; lenses, and stamps of no group (None, or an empty word), are left out."""
        rows = np.flatnonzero(~is_lens & np.array([bool(g) for g in group], bool))
        digests = (hashlib.blake2b(str(group[row]).encode(), digest_size=8).digest() for row in rows)
        self._keys.append(np.frombuffer(b"".join(digests), np.uint64))
        self._scores.append(score[rows])
        self._n_waiting += len(rows)
        if self._n_waiting > self._max_rows // 4:
            self._kept()

    def _kept(self) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Groups whose hash ends with so many zeros that they fit: the same whatever the order in which they came."""
        keys, scores = np.concatenate(self._keys), np.concatenate(self._scores)
        while True:
            kept = (keys & np.uint64((1 << self._bits) - 1)) == 0
            keys, scores = keys[kept], scores[kept]
            if len(keys) <= self._max_rows or self._bits == 63:
                break
            self._bits += 1
        self._keys, self._scores, self._n_waiting = [keys], [scores], 0
        return keys, scores

    def passing(self, thresholds: Mapping[str, float | None]) -> dict[str, Any] | None:
        """
        What passes named thresholds; None where no stamp has a group.

        Returns
        -------
        dict
            ``n_group`` and ``n_stamp`` that the rates rest on, ``part`` of all groups that was kept, and by threshold
            ``value`` (stamps that pass), ``interval95`` of it over groups, and ``groups``: the fraction of groups of
            which any stamp passes.
        """
        keys, scores = self._kept()
        if not len(keys):
            return None
        _, group = np.unique(keys, return_inverse=True)
        n = np.bincount(group)
        out: dict[str, Any] = {"n_group": len(n), "n_stamp": int(n.sum()), "part": 2.0**-self._bits}
        for name, at in thresholds.items():
            passes = np.zeros(len(group), bool) if at is None else scores >= at
            k = np.bincount(group[passes], minlength=len(n))
            low, high = clustered_interval(k, n)
            some = fraction(int((k > 0).sum()), len(n))
            rate = {"value": float(k.sum() / n.sum()), "interval95": [low, high], "k": int(k.sum())}
            out[name] = rate | {"groups": some}
        return out
