"""What is wrong with a data set of stamps: NaN, duplicates, copied bands, hosts or sky positions in two splits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.sky.sphere import nearest
from lenspipe.stamps.duplicates import copied_bands, duplicate_groups, fingerprints
from lenspipe.stamps.format import StampSet, image_array
from lenspipe.stamps.spec import SPLITS

BATCH_BYTES = 4 << 20
EXAMPLES = 3


@dataclass(frozen=True)
class Problem:
    """One kind of fault, how often it occurs, and where to look."""

    check: str
    """What was checked."""
    n: int
    """How many stamps, hosts or pairs."""
    examples: tuple[str, ...]
    """The first few, by name."""


def validate(
    stamps: StampSet, *, radius_arcsec: float, progress: Callable[[int], None] = lambda _: None
) -> list[Problem]:
    """
    Problems of a data set; none where it is fine to train on.

    Images are read once, in batches, and rows that may be duplicates once more: beside a batch, memory holds some
    ten bytes per stamp and image, and names, hosts and splits.

    Parameters
    ----------
    stamps : StampSet
        The data set.
    radius_arcsec : float
        Stamps of different splits that are nearer than this on the sky are a leak (columns ra_deg, dec_deg).
    progress : callable
        Called with the number of stamps read.
    """
    names = stamps.column("stamp_id")
    splits = stamps.column("split")
    problems = [_repeated_names(names), _unknown_splits(names, splits)]
    marks = {image: np.empty(stamps.n, np.uint64) for image in stamps.images}
    broken = {image: np.empty(stamps.n, bool) for image in stamps.images}
    copied = {image: np.empty(stamps.n, bool) for image in stamps.images}
    row = 0
    for table in stamps.iter_batches(list(stamps.images), batch_size=stamps.rows_within(BATCH_BYTES)):
        here = slice(row, row + len(table))
        for image in stamps.images:
            pixels = image_array(table, image)
            marks[image][here] = fingerprints(pixels)
            copied[image][here] = copied_bands(pixels)
            broken[image][here] = ~np.isfinite(pixels).all(axis=(1, 2, 3))
        row += len(table)
        progress(row)
    for image in stamps.images:
        rows = np.flatnonzero(broken[image])
        problems.append(Problem(f"{image}: not finite (NaN or infinite pixels)", len(rows), _first(names[rows])))
        rows = np.flatnonzero(copied[image])
        problems.append(Problem(f"{image}: one band is a copy of another", len(rows), _first(names[rows])))
        problems += _duplicates(image, duplicate_groups(stamps, image, marks[image]), names, splits)
    problems.append(_shared_hosts(stamps.column("host"), splits))
    if {"ra_deg", "dec_deg"} <= set(stamps.schema.names):
        ra_deg, dec_deg = stamps.column("ra_deg"), stamps.column("dec_deg")
        problems.append(_shared_sky(names, splits, ra_deg, dec_deg, radius_arcsec))
    return [problem for problem in problems if problem.n]


def _first(names: NDArray[np.object_]) -> tuple[str, ...]:
    return tuple(str(name) for name in names[:EXAMPLES])


def _repeated_names(names: NDArray[np.object_]) -> Problem:
    counted = pa.array(names, pa.string()).value_counts()
    twice = counted.filter(pc.greater(counted.field("counts"), 1)).field("values").to_pylist()
    return Problem("stamp_id occurs more than once", len(twice), tuple(map(str, twice[:EXAMPLES])))


def _unknown_splits(names: NDArray[np.object_], splits: NDArray[np.object_]) -> Problem:
    rows = [i for i, split in enumerate(splits) if split is not None and split not in SPLITS]
    examples = tuple(f"{names[i]}: {splits[i]!r}" for i in rows[:EXAMPLES])
    return Problem(f"split is none of {', '.join(SPLITS)}", len(rows), examples)


def _duplicates(
    image: str, groups: list[NDArray[np.int64]], names: NDArray[np.object_], splits: NDArray[np.object_]
) -> list[Problem]:
    text = [" = ".join(str(names[row]) for row in rows[:4]) for rows in groups]
    leaks = [k for k, rows in enumerate(groups) if len({splits[row] for row in rows} - {None}) > 1]
    return [
        Problem(
            f"{image}: same pixels as an earlier stamp (in any of 8 orientations)",
            sum(len(rows) - 1 for rows in groups),
            tuple(text[:EXAMPLES]),
        ),
        Problem(f"{image}: same pixels in two splits", len(leaks), tuple(text[k] for k in leaks[:EXAMPLES])),
    ]


def _shared_hosts(hosts: NDArray[np.object_], splits: NDArray[np.object_]) -> Problem:
    first: dict[str, str] = {}
    shared: dict[str, set[str]] = {}
    for host, split in zip(hosts, splits, strict=True):
        if host and split is not None and first.setdefault(host, split) != split:
            shared.setdefault(host, {first[host]}).add(split)
    examples = tuple(f"{host}: {', '.join(sorted(where))}" for host, where in list(shared.items())[:EXAMPLES])
    return Problem("host in more than one split", len(shared), examples)


def _shared_sky(
    names: NDArray[np.object_],
    splits: NDArray[np.object_],
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    radius_arcsec: float,
) -> Problem:
    """Nearest stamp of another split for each stamp."""
    ra, dec = ra_deg.astype(float), dec_deg.astype(float)
    known = np.isfinite(ra) & np.isfinite(dec)
    rows = {split: np.flatnonzero(known & (splits == split)) for split in SPLITS}
    pairs: list[tuple[int, int]] = []
    for one, other in itertools.combinations(SPLITS, 2):
        here, there = rows[one], rows[other]
        close, _ = nearest(ra[there], dec[there], ra[here], dec[here], radius_arcsec=radius_arcsec)
        pairs += [(int(here[close[j]]), int(there[j])) for j in np.flatnonzero(close >= 0)]
    examples = tuple(f"{names[a]} ({splits[a]}) and {names[b]} ({splits[b]})" for a, b in pairs[:EXAMPLES])
    return Problem(f"sky position within {radius_arcsec:g} arcsec of a stamp in another split", len(pairs), examples)
