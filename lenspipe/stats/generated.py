"""How stamps that were made compare with those that were taken: distances, support, nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BLOCK = 512
N_RESAMPLE = 50
N_RING = 6
N_SUPPORT = 3
"""Neighbours within which a vector belongs to a support, as in the paper."""


def frechet_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """
    Squared Fréchet distance of two Gaussians with the means and covariances of vectors (Heusel et al. 2017, eq. 6).

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``; the trace of the root is the sum of the roots of the eigenvalues
    of ``R C2 R`` with ``R`` the root of ``C1``, which are real and not negative. It grows as sets become smaller, so
    only sets of the same sizes compare.

    Parameters
    ----------
    one, other : arrays (n, size) and (m, size)
        Features, at least two of each.

    Examples
    --------
    >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    9.0
    """
    mean = np.asarray(one.mean(0) - other.mean(0), np.float64)
    first, second = (np.atleast_2d(np.cov(np.asarray(x, np.float64), rowvar=False)) for x in (one, other))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    both = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    return float(mean @ mean + np.trace(first) + np.trace(second) - 2 * both)


def nearest(query: NDArray[np.floating], known: NDArray[np.floating], k: int = 1, *, itself: bool = False) -> Array:
    """
    Euclidean distances ``(n, k)`` of vectors to their nearest among others, rising.

    Parameters
    ----------
    query, known : arrays (n, size) and (m, size)
    k : int
        Neighbours, at most m.
    itself : bool
        Whether ``query`` is ``known``: then no vector is its own neighbour.
    """
    known = np.asarray(known, np.float64)
    length = (known**2).sum(1)
    out = np.empty((len(query), k))
    for start in range(0, len(query), BLOCK):
        some = np.asarray(query[start : start + BLOCK], np.float64)
        square = (some**2).sum(1)[:, None] + length - 2 * some @ known.T
        if itself:
            square[np.arange(len(some)), start + np.arange(len(some))] = np.inf
        order = np.argpartition(square, k - 1, axis=1)[:, :k]
        # the product of large numbers loses digits: the few that count are measured again
        exact = np.sqrt(((some[:, None] - known[order]) ** 2).sum(2))
        out[start : start + BLOCK] = np.sort(exact, axis=1)
    return out


def support(taken: NDArray[np.floating], made: NDArray[np.floating]) -> tuple[float, float]:
    """
    Precision and recall of a distribution's support (Kynkäänniemi et al. 2019, equations 1 and 2).

    A vector lies in the support of a set where it is no further from one of its vectors than that one's third
    neighbour in the set.

    Parameters
    ----------
    taken, made : arrays (n, size) and (m, size)
        Features of stamps that were taken, and that were made.

    Returns
    -------
    precision, recall
        Part of what is made that lies in the support of what was taken, and the reverse.
    """
    return _within(made, taken), _within(taken, made)


def _within(query: NDArray[np.floating], known: NDArray[np.floating]) -> float:
    known = np.asarray(known, np.float64)
    radius = nearest(known, known, N_SUPPORT, itself=True)[:, -1]
    length, inside = (known**2).sum(1), 0
    for start in range(0, len(query), BLOCK):
        some = np.asarray(query[start : start + BLOCK], np.float64)
        square = (some**2).sum(1)[:, None] + length - 2 * some @ known.T
        inside += int((square <= radius**2).any(axis=1).sum())
    return inside / len(query)


def wasserstein(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """
    Wasserstein distance of two sets of numbers, in units of the spread of the second.

    Of a second set that is one number again and again, 0 where the first is it as well, else infinite.

    Examples
    --------
    >>> wasserstein(np.array([3.0, 5.0]), np.array([1.0, 3.0]))
    2.0
    """
    from scipy.stats import wasserstein_distance

    apart, spread = float(wasserstein_distance(one, other)), float(np.std(other))
    if spread > 0:
        return apart / spread
    return 0.0 if apart == 0 else float("inf")


def ring_means(stamps: NDArray[np.floating]) -> Array:
    """
    Mean brightness in rings around the middle of stamps ``(n, channel, y, x)``: ``(n, channel * ring)``.

    Rings that are narrower than a pixel and hold none are left out.
    """
    side = stamps.shape[-1]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    number = np.minimum((np.hypot(x, y) * N_RING / (side / 2)).astype(int), N_RING).ravel()
    weight = np.stack([(number == k) / (number == k).sum() for k in range(N_RING) if (number == k).any()], axis=1)
    flat = stamps.reshape(*stamps.shape[:2], -1)
    found: Array = (flat @ weight).reshape(len(stamps), -1)
    return found


def profile_distance(made: NDArray[np.floating], taken: NDArray[np.floating]) -> tuple[float, tuple[float, float]]:
    """
    Mean over rings and channels of `wasserstein` of their brightness, with its 95 % interval by resampling stamps.

    It is not 0 for two sets of the same kind, as they are finite, but about ``1 / sqrt(n)``.

    Parameters
    ----------
    made, taken : arrays (n, channel, y, x) and (m, channel, y, x)
        Stretched stamps.
    """
    one, other = ring_means(made), ring_means(taken)
    rng = np.random.default_rng(0)
    drawn = [
        _mean_distance(one[rng.integers(0, len(one), len(one))], other[rng.integers(0, len(other), len(other))])
        for _ in range(N_RESAMPLE)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = _mean_distance(one, other)
    return value, (min(value, float(low)), max(value, float(high)))


def _mean_distance(one: Array, other: Array) -> float:
    return float(np.mean([wasserstein(a, b) for a, b in zip(one.T, other.T, strict=True)]))
