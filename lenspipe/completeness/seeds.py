"""Random numbers that depend on a seed and names alone, so that no split over workers changes them."""

from __future__ import annotations

import hashlib

import numpy as np


def rng_of(seed: int, *names: str | int) -> np.random.Generator:
    """
    Generator of a seed and names.

    Examples
    --------
    >>> bool(rng_of(1, "a", 2).integers(100) == rng_of(1, "a", 2).integers(100))
    True
    """
    return np.random.default_rng([seed, *_words(*names)])


def share_of(seed: int, *names: str | int) -> float:
    """A number from 0 to 1 that names get once and for all: what is below a fraction is in a sample."""
    return _words(seed, *names)[0] / 2**32


def _words(*names: str | int) -> list[int]:
    digest = hashlib.sha256("\n".join(map(str, names)).encode()).digest()
    return [int.from_bytes(digest[k : k + 4], "big") for k in (0, 4, 8)]
