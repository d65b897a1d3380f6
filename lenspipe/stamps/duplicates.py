"""Stamps that show the same pixels, also turned or mirrored: found by a fingerprint, confirmed exactly."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lenspipe.stamps.format import StampSet

CONFIRM_BYTES = 16 << 20
"""Bytes of stamps that are held at a time while duplicates are confirmed."""
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def fingerprints(stamps: NDArray[np.float32]) -> NDArray[np.uint64]:
    """
    A number a stamp ``(n,)`` that the eight turns and mirrors of a square leave unchanged.

    The bits of each pixel are mixed (the finaliser of splitmix64, Steele et al. 2014) and added up over a band
    modulo 2^64, so that the order of pixels does not count; bands are combined in their order. Different stamps may
    share a number, if rarely; the same pixels always do. Minus zero counts as zero.
    """
    bits = (stamps + np.float32(0)).view(np.uint32).astype(np.uint64)
    for shift, factor in zip((30, 27), _MIX, strict=True):
        bits = (bits ^ (bits >> np.uint64(shift))) * factor + np.uint64(0x9E3779B97F4A7C15)
    bands = (bits ^ (bits >> np.uint64(31))).sum(axis=(2, 3), dtype=np.uint64)
    total = np.zeros(len(stamps), np.uint64)
    for band in bands.T:
        total = total * _MIX[0] + band
    return total


def eight_views(stamp: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The stamp ``(band, y, x)`` in the eight orientations of the dihedral group D4, its own first."""
    for mirrored in (stamp, stamp[:, :, ::-1]):
        for turns in range(4):
            yield np.rot90(mirrored, turns, axes=(1, 2))


def copied_bands(stamps: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether two bands of a stamp hold the same pixels ``(n,)``; constant bands (masked whole) do not count."""
    found = np.zeros(len(stamps), bool)
    for one, other in itertools.combinations(range(stamps.shape[1]), 2):
        rows = np.flatnonzero((stamps[:, one, 0] == stamps[:, other, 0]).all(axis=1))
        a, b = stamps[rows, one], stamps[rows, other]
        found[rows] |= (a == b).all(axis=(1, 2)) & (np.ptp(a, axis=(1, 2)) > 0)
    return found


def canonical_digest(stamp: NDArray[np.float32]) -> bytes:
    """A digest of the pixels that is the same for all eight orientations and, but for hash collisions, for no other."""
    views = (hashlib.blake2b((view + np.float32(0)).tobytes(), digest_size=16) for view in eight_views(stamp))
    return min(view.digest() for view in views)


def duplicate_groups(stamps: StampSet, image: str, fingerprint: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
    """
    Rows of a data set that show the same pixels in any orientation, a sorted array for each group of two or more.

    Parameters
    ----------
    stamps : StampSet
        The data set.
    image : str
        Image column.
    fingerprint : array (n,)
        `fingerprints` of that column, in row order. Only rows that share one are read again.
    """
    _, inverse, counts = np.unique(fingerprint, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[inverse] > 1)
    rows_of: dict[bytes, list[int]] = {}
    step = stamps.rows_within(CONFIRM_BYTES)
    for start in range(0, len(suspects), step):
        rows = suspects[start : start + step]
        for row, stamp in zip(rows, stamps.read_images(image, rows), strict=True):
            rows_of.setdefault(canonical_digest(stamp), []).append(int(row))
    groups = [np.array(rows, np.int64) for rows in rows_of.values() if len(rows) > 1]
    return sorted(groups, key=lambda rows: int(rows[0]))
