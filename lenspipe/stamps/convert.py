"""Other people's stamps into the Parquet format, one bounded table at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lenspipe.disk import new_folder
from lenspipe.errors import DataError
from lenspipe.readme import write_readme
from lenspipe.stamps.format import write_part
from lenspipe.stamps.readers.stream import StampStream
from lenspipe.stamps.splits import splits_by_key, splits_by_position


@dataclass(frozen=True)
class Converted:
    """What a conversion did."""

    n: int
    """Stamps written."""
    dropped: tuple[tuple[str, str], ...]
    """``(stamp, reason)`` of those that could not be read."""
    notes: tuple[str, ...] = ()
    """What the files did not tell (`StampStream.notes`)."""


def convert(
    stream: StampStream,
    out: Path,
    *,
    seed: int,
    fractions: Mapping[str, float],
    margin_arcsec: float,
    progress: Callable[[int], None] = lambda _: None,
) -> Converted:
    """
    Write a reader's stamps as a data set.

    Splits that the data assign are kept; the others follow from the sky position where the reader knows it
    (`splits_by_position`), else from the host (`splits_by_key`). The folder appears when it is complete.

    Parameters
    ----------
    stream : StampStream
        From a reader.
    out : path
        The new data set; it must not exist, or be empty.
    seed : int
        Seed of the splits.
    fractions : mapping
        Fraction of the hosts by split.
    margin_arcsec : float
        Least distance between stamps of different splits, arcsec.
    progress : callable
        Called with the number of stamps done after each part.

    Raises
    ------
    ConfigError
        ``out`` holds something already.
    DataError
        No stamp could be read.
    """
    n = 0
    with new_folder(out) as scratch:
        for part, table in enumerate(stream.tables):
            write_part(_with_splits(table, seed, fractions, margin_arcsec), scratch, f"part-{part:05d}")
            n += len(table)
            progress(n)
        if n == 0:
            stamp, reason = stream.dropped[0] if stream.dropped else ("", "there is none")
            raise DataError(f"not one stamp could be read: {reason}", stamp=stamp, dropped=len(stream.dropped))
        write_readme(scratch, "stamps")
    return Converted(n, tuple(stream.dropped), stream.notes)


def _with_splits(table: pa.Table, seed: int, fractions: Mapping[str, float], margin_arcsec: float) -> pa.Table:
    given = np.array(table.column("split").to_pylist(), dtype=object)
    hosts = table.column("host").to_pylist()
    splits = splits_by_key(hosts, seed=seed, fractions=fractions)
    if {"ra_deg", "dec_deg"} <= set(table.schema.names):
        ra_deg, dec_deg = (table.column(name).to_numpy() for name in ("ra_deg", "dec_deg"))
        known = np.isfinite(ra_deg) & np.isfinite(dec_deg)
        splits[known] = splits_by_position(
            ra_deg[known], dec_deg[known], seed=seed, margin_arcsec=margin_arcsec, fractions=fractions
        )
    final = [mine if stated is None else stated for stated, mine in zip(given, splits, strict=True)]
    at = table.schema.get_field_index("split")
    return table.set_column(at, table.schema.field(at), pa.array(final, pa.string()))
