"""Counts of scores by class that add up over any split of the data, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import DataError

MAX_KEYS = 1 << 20
"""Distinct scores that are kept apart; 24 MiB at most."""
_HALF = int(np.float64(0.5).view(np.int64))
PENDING = 1 << 18


def sort_keys(score: ArrayLike) -> NDArray[np.int64]:
    """
    Integers ``(n,)`` that sort and tie as scores in [0, 1] do, one for each float64.

    Below one half they are the bits of the score, above it those of its distance to one, counted downwards (exact in
    float64). Dropping low bits then rounds the distance to 0 or 1 relatively, which is even steps of the log odds.

    Raises
    ------
    DataError
        A score is not finite or lies outside [0, 1].
    """
    scores = np.atleast_1d(np.asarray(score, np.float64)) + 0.0  # a zero without its sign
    if not ((scores >= 0) & (scores <= 1)).all():
        bad = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
        raise DataError(
            "scores must be numbers from 0 to 1", n=len(bad), first_row=int(bad[0]), got=float(scores.flat[bad[0]])
        )
    low = scores < 0.5
    bits = np.where(low, scores, 1.0 - scores).view(np.int64)
    keys: NDArray[np.int64] = np.where(low, bits, 2 * _HALF - bits)
    return keys


def scores_of_keys(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores that `sort_keys` made the keys of."""
    low = keys < _HALF
    folded = np.where(low, keys, 2 * _HALF - keys).view(np.float64)
    scores: NDArray[np.float64] = np.where(low, folded, 1.0 - folded)
    return scores


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """
    How many lenses and how many others have each score.

    Up to ``max_keys`` distinct scores are kept as they are; beyond that the last bits are dropped from all of them,
    as few as possible. That number depends on the scores alone, so adding up the parts of any split gives the same
    counts, bit for bit.

    Attributes
    ----------
    keys : int64 array (k,)
        Distinct `sort_keys`, without their last ``level`` bits, rising.
    lens, other : int64 arrays (k,)
        Scores of each class at a key.
    level : int
        Bits dropped; 0 where everything is exact.
    max_keys : int
    """

    keys: NDArray[np.int64]
    lens: NDArray[np.int64]
    other: NDArray[np.int64]
    level: int = 0
    max_keys: int = MAX_KEYS

    @classmethod
    def of(cls, score: ArrayLike, is_lens: ArrayLike, *, max_keys: int = MAX_KEYS) -> ScoreCounts:
        """
        Count scores ``(n,)`` in [0, 1] by their class ``(n,)``.

        Raises
        ------
        DataError
            A score is not finite or outside [0, 1], or there are more of one than of the other.
        """
        truth = np.atleast_1d(np.asarray(is_lens, bool))
        keys = sort_keys(score)
        if keys.shape != truth.shape or keys.ndim != 1:
            raise DataError("one class a score is needed", scores=str(keys.shape), classes=str(truth.shape))
        return _reduced(keys, truth.astype(np.int64), (~truth).astype(np.int64), 0, max_keys)

    def __add__(self, other: ScoreCounts) -> ScoreCounts:
        if self.max_keys != other.max_keys:
            raise DataError("counts of different resolution do not add up", one=self.max_keys, two=other.max_keys)
        level = max(self.level, other.level)
        return _reduced(
            np.concatenate([self.keys >> (level - self.level), other.keys >> (level - other.level)]),
            np.concatenate([self.lens, other.lens]),
            np.concatenate([self.other, other.other]),
            level,
            self.max_keys,
        )

    @property
    def n_lens(self) -> int:
        """Lenses counted."""
        return int(self.lens.sum())

    @property
    def n_other(self) -> int:
        """All else counted."""
        return int(self.other.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """Least score of each key; a source counts from it on where it is the threshold."""
        return scores_of_keys(self.keys << self.level)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Score in the middle of each key; the score itself at level 0."""
        return scores_of_keys((self.keys << self.level) + ((1 << self.level) >> 1))

    def above(self, threshold: float | None) -> tuple[int, int]:
        """Lenses and others whose score is ``threshold`` or more (None: nothing passes); to the width of a key."""
        if threshold is None:
            return 0, 0
        first = int(np.searchsorted(self.keys, sort_keys(threshold)[0] >> self.level))
        return int(self.lens[first:].sum()), int(self.other[first:].sum())

    def equals(self, other: ScoreCounts) -> bool:
        """Whether two counts are the same in every key."""
        return self.level == other.level and all(
            np.array_equal(a, b)
            for a, b in ((self.keys, other.keys), (self.lens, other.lens), (self.other, other.other))
        )


def _reduced(
    keys: NDArray[np.int64], lens: NDArray[np.int64], other: NDArray[np.int64], level: int, max_keys: int
) -> ScoreCounts:
    order = np.argsort(keys, kind="stable")
    keys, lens, other = keys[order], lens[order], other[order]
    drop = 0
    while len(keys) > max_keys and np.count_nonzero(np.diff(keys >> drop)) + 1 > max_keys:
        drop += 1
    keys = keys >> drop
    first = np.flatnonzero(np.r_[True, np.diff(keys) != 0]) if len(keys) else np.empty(0, np.int64)
    if len(first):
        lens, other = np.add.reduceat(lens, first), np.add.reduceat(other, first)
    return ScoreCounts(keys[first], lens, other, level + drop, max_keys)


class Tally:
    """Adds scores up batch by batch; `total` is what `ScoreCounts.of` would give for all at once."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._total = ScoreCounts.of([], [], max_keys=max_keys)
        self._waiting: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
        self._n_waiting = 0

    def add(self, score: ArrayLike, is_lens: ArrayLike) -> None:
        """Count a batch of scores ``(n,)`` with their classes ``(n,)``, or one class for all."""
        scores = np.asarray(score, np.float64)
        self._waiting.append((scores, np.broadcast_to(np.asarray(is_lens, bool), scores.shape)))
        self._n_waiting += len(scores)
        if self._n_waiting >= PENDING:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            scores, classes = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
            self._total = self._total + ScoreCounts.of(scores, classes, max_keys=self._total.max_keys)
            self._waiting, self._n_waiting = [], 0

    @property
    def total(self) -> ScoreCounts:
        """All that was added."""
        self._flush()
        return self._total


def sum_counts(parts: Iterable[ScoreCounts]) -> ScoreCounts:
    """Counts of several parts together; at least one."""
    total, *rest = parts
    for part in rest:
        total = total + part
    return total
