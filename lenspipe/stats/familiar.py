"""How unlike a training set a vector of features is: Mahalanobis distance to the nearest class, and its quantile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEAST_VARIANCE = 1e-5
"""Of the mean variance: no direction counts as narrower."""
ROWS = 64
"""Rows that are multiplied at a time, the last padded, so that a row's sums do not depend on how many there are."""


def compressed(features: NDArray[np.floating]) -> Array:
    """
    Square roots of features, with their signs: what is pooled over a stamp has long tails, roots are nearly normal.

    Without it the noise of ten times fainter stamps and bands in another order are hardly told from the training set
    (`benchmarks/studies/labels/familiarity.py`).
    """
    wide = np.asarray(features, np.float64)
    return np.asarray(np.sign(wide) * np.sqrt(np.abs(wide)))


@dataclass(frozen=True)
class FeatureSums:
    """Counts, sums and products of features of some classes; those of parts of a set add up to those of the whole."""

    n: Array
    """(class,)"""
    sums: Array
    """(class, feature), of roots of features"""
    products: Array
    """(feature, feature), of roots, of all classes."""

    @classmethod
    def of(cls, features: NDArray[np.floating], classes: NDArray[np.integer], n_class: int) -> FeatureSums:
        """Of features ``(n, feature)`` whose class is a number below ``n_class``."""
        wide = compressed(features)
        belongs = (classes[:, None] == np.arange(n_class)).astype(np.float64)
        return cls(belongs.sum(axis=0), belongs.T @ wide, wide.T @ wide)

    def __add__(self, other: FeatureSums) -> FeatureSums:
        return FeatureSums(self.n + other.n, self.sums + other.sums, self.products + other.products)


@dataclass(frozen=True)
class Familiar:
    """
    Where the classes of a training set lie among features, and how far off held-out stamps of it are.

    Attributes
    ----------
    whitening : array (feature, feature)
        Takes roots of features to coordinates whose covariance within the classes is the unit matrix.
    means : array (class, feature)
        Of the classes, in these coordinates.
    held_out : array (m,)
        Distances of held-out stamps, rising.
    """

    whitening: Array
    means: Array
    held_out: Array

    def distance(self, features: NDArray[np.floating]) -> Array:
        """
        Distance ``(n,)`` of features ``(n, feature)`` to the nearest class, in units of its spread.

        The square is the least over the classes c of (f - m_c)' S^-1 (f - m_c), S the covariance within the classes
        (Lee et al. 2018, NeurIPS 31, 7167, equation 2); where the paper has features, f are their roots. A row does not
        depend on its neighbours, to the last bit.
        """
        roots = compressed(features)
        found = np.empty(len(roots))
        for start in range(0, len(roots), ROWS):
            some = roots[start : start + ROWS]
            batch = np.zeros((ROWS, roots.shape[1]))
            batch[: len(some)] = some
            away = (batch @ self.whitening)[:, None] - self.means
            found[start : start + ROWS] = (away**2).sum(axis=2).min(axis=1)[: len(some)]
        return np.sqrt(found)

    def quantile(self, distance: Array) -> Array:
        """
        Part of held-out stamps of the training set that are nearer ``(n,)``: uniform for stamps like them.

        A stamp counts as one of m + 1, so that 1 is never reached: m / (m + 1) where all are nearer.
        """
        nearer = np.searchsorted(self.held_out, distance, side="left")
        return np.asarray(nearer / (len(self.held_out) + 1))


def fit_familiar(sums: FeatureSums, held_out: Array | None = None) -> Familiar:
    """
    Means of the classes and the covariance within them, of sums over the training set.

    Parameters
    ----------
    sums : FeatureSums
        Of more rows than there are features.
    held_out : array (m,), optional
        Distances of held-out stamps, in any order.
    """
    there = sums.n > 0
    means = sums.sums[there] / sums.n[there, None]
    within = sums.products - (means.T * sums.n[there]) @ means
    within /= max(1.0, sums.n.sum() - there.sum())
    values, axes = np.linalg.eigh((within + within.T) / 2)
    whitening = axes / np.sqrt(np.maximum(values, max(LEAST_VARIANCE * float(values.mean()), 1e-30)))
    # in the precision that is kept, so that what is learnt and what is read give the same distances
    kept = whitening.astype(np.float32).astype(np.float64)
    centres = (means @ kept).astype(np.float32).astype(np.float64)
    return Familiar(kept, centres, np.sort(held_out) if held_out is not None else np.empty(0))
