"""Which split a stamp belongs to: by a hash of its host or its place on the sky, never by its row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import ConfigError
from lenspipe.sky.healpix import cells_of
from lenspipe.sky.sphere import ring_around
from lenspipe.stamps.spec import SPLITS

Half = Literal["even", "odd"]
DEFAULT_FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
SKY_ORDER = 6
"""HEALPix order of the cells that stay together: 0.92 degrees, larger than a tile's shared conditions."""


def half_of(name: str) -> Half:
    """
    Half that a name belongs to for good, whatever the seed: by whether its SHA-256 is even or odd.

    For real objects of which one half is learnt from or chosen on, and the other is kept for a test.
    """
    return "odd" if hashlib.sha256(name.encode()).digest()[-1] % 2 else "even"


def splits_by_key(
    keys: Iterable[str], *, seed: int, fractions: Mapping[str, float] = DEFAULT_FRACTIONS
) -> NDArray[np.object_]:
    """
    Split of each key ``(n,)``: the same key always gets the same split, whatever the other rows are.

    A key's 64-bit BLAKE2b hash with the seed is a number in [0, 1), which the cumulated fractions cut.

    Parameters
    ----------
    keys : iterable of str
        Host of each stamp.
    seed : int
        Another seed deals the hosts anew.
    fractions : mapping
        Fraction of the hosts by split; they add up to 1.

    Raises
    ------
    ConfigError
        A split is unknown, or the fractions do not add up to 1.
    """
    if (
        set(fractions) - set(SPLITS)
        or any(not f >= 0 for f in fractions.values())
        or abs(sum(fractions.values()) - 1) > 1e-9
    ):
        text = ",".join(f"{name}={value}" for name, value in fractions.items())
        raise ConfigError("split fractions must add up to 1", got=text, splits=",".join(SPLITS))
    names = [name for name in SPLITS if name in fractions]
    edges = np.cumsum([fractions[name] for name in names])
    salt = str(int(seed)).encode()
    digests = [hashlib.blake2b(key.encode(), digest_size=8, key=salt).digest() for key in keys]
    uniform = np.array([int.from_bytes(d, "big") for d in digests], dtype=np.float64) / 2.0**64
    place = np.minimum(np.searchsorted(edges, uniform, side="right"), len(names) - 1)
    return np.array(names, dtype=object)[place]


def splits_by_position(
    ra_deg: ArrayLike,
    dec_deg: ArrayLike,
    *,
    seed: int,
    margin_arcsec: float,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    order: int = SKY_ORDER,
) -> NDArray[np.object_]:
    """
    Split of each position ``(n,)`` by its HEALPix cell; None in a margin between different splits.

    Two stamps less than ``margin_arcsec`` apart never lie in two splits: where a circle of that radius reaches into
    a cell of another split, the stamp is in none. That costs about 0.2 % of the sky at 5".

    Parameters
    ----------
    ra_deg, dec_deg : arrays (n,)
        ICRS position, degrees.
    seed : int
        Another seed deals the cells anew.
    margin_arcsec : float
        Least distance between stamps of different splits, arcsec.
    fractions : mapping
        As in `splits_by_key`.
    order : int
        HEALPix order of the cells; a higher one for stamps of a small part of the sky.
    """
    ra, dec = np.atleast_1d(np.asarray(ra_deg, float)), np.atleast_1d(np.asarray(dec_deg, float))
    splits = _splits_of_cells(cells_of(ra, dec, order), order, seed, fractions)
    for near_ra, near_dec in ring_around(ra, dec, radius_arcsec=margin_arcsec, n=16):
        splits[_splits_of_cells(cells_of(near_ra, near_dec, order), order, seed, fractions) != splits] = None
    return splits


def _splits_of_cells(cells: NDArray[Any], order: int, seed: int, fractions: Mapping[str, float]) -> NDArray[np.object_]:
    distinct, inverse = np.unique(cells, return_inverse=True)
    return splits_by_key([f"hpx{order}/{cell}" for cell in distinct], seed=seed, fractions=fractions)[inverse]
