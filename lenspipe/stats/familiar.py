"""How unlike a training set a vector of features is: Mahalanobis distance to the nearest class, and its quantile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RANK = 64
"""Directions whose variances are told apart; the others share one."""
LEAST_VARIANCE = 1e-3
"""Of the mean variance: no direction counts as narrower."""


@dataclass(frozen=True)
class FeatureSums:
    """Counts, sums and products of features of some classes; those of parts of a set add up to those of the whole."""

    n: Array
    """(class,)"""
    sums: Array
    """(class, feature)"""
    products: Array
    """(feature, feature), of all classes."""

    @classmethod
    def of(cls, features: NDArray[np.floating], classes: NDArray[np.integer], n_class: int) -> FeatureSums:
        """Of features ``(n, feature)`` whose class is a number below ``n_class``."""
        wide = features.astype(np.float64)
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
    means : array (class, feature)
    directions : array (feature, k)
        Of the largest variances within the classes; orthonormal.
    variances : array (k,)
    rest : float
        Variance in every other direction.
    held_out : array (m,)
        Distances of held-out stamps, rising.
    """

    means: Array
    directions: Array
    variances: Array
    rest: float
    held_out: Array

    def distance(self, features: NDArray[np.floating]) -> Array:
        """
        Distance ``(n,)`` of features ``(n, feature)`` to the nearest class, in units of its spread.

        The square is the least over the classes c of (f - m_c)' S^-1 (f - m_c), S the covariance within the classes
        (Lee et al. 2018, NeurIPS 31, 7167, equation 2), here with one variance for all but `RANK` directions. Each row
        is summed by itself, so that it does not depend on its neighbours to the last bit.
        """
        wide = features.astype(np.float64)
        best = np.full(len(wide), np.inf)
        for mean in self.means:
            away = wide - mean
            along = np.einsum("nf,fk->nk", away, self.directions)
            squares = np.einsum("nf,nf->n", away, away) - np.einsum("nk,nk->n", along, along)
            within = np.einsum("nk,k->n", along**2, 1 / self.variances)
            best = np.minimum(best, within + np.maximum(squares, 0) / self.rest)
        return np.sqrt(best)

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
        Of two rows and more.
    held_out : array (m,), optional
        Distances of held-out stamps, in any order.
    """
    there = sums.n > 0
    means = sums.sums[there] / sums.n[there, None]
    within = sums.products - (means.T * sums.n[there]) @ means
    within /= max(1.0, sums.n.sum() - there.sum())
    values, axes = np.linalg.eigh((within + within.T) / 2)
    values, axes = values[::-1], axes[:, ::-1]
    floor = max(LEAST_VARIANCE * float(values.mean()), 1e-30)
    values = np.maximum(values, floor)
    k = min(RANK, len(values) - 1)
    distances = np.sort(held_out) if held_out is not None else np.empty(0)
    return Familiar(means, axes[:, :k], values[:k], float(values[k:].mean()), distances)
