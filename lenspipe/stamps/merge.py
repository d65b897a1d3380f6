"""Several data sets of stamps written as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lenspipe.disk import new_folder
from lenspipe.errors import ConfigError, DataError
from lenspipe.readme import write_readme
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.stamps.joined import DATA_SET, JoinedStamps, Source

PART_BYTES = 64 << 20
"""Image bytes of a part."""


@dataclass(frozen=True)
class Merged:
    """What was written."""

    n: dict[str, int]
    """Stamps by the data set that they are from."""
    hosts_in_two_splits: tuple[str, ...]
    """Hosts that one data set has in one split and another in another."""


def merge(folders: Sequence[Path], out: Path, *, progress: Callable[[int], None] = lambda _: None) -> Merged:
    """
    Write data sets as one, whose column ``data_set`` says where each row is from; splits and all columns are kept.

    Parameters
    ----------
    folders : sequence of path
        Two or more data sets with one image specification.
    out : path
        The new data set; it must not exist, or be empty. It appears when it is complete.
    progress : callable
        Called with the number of stamps done.

    Raises
    ------
    ConfigError
        ``out`` holds something already, or a data set is named twice.
    DataError
        Two data sets differ in bands, size, pixel scale, unit or the type of a column (both are named), or a
        ``stamp_id`` occurs twice.
    """
    if len(folders) < 2:
        raise ConfigError("name the data sets to be merged: two or more", got=len(folders))
    stamps = JoinedStamps.join([Source(str(folder)) for folder in folders])
    _demand_unique(stamps)
    done = 0
    with new_folder(out) as scratch:
        for part, table in enumerate(stamps.iter_batches(batch_size=stamps.rows_within(PART_BYTES))):
            write_part(table, scratch, f"part-{part:05d}")
            done += table.num_rows
            progress(done)
        write_readme(scratch, "stamps")
    names = zip(stamps.names, stamps.members, strict=True)
    return Merged({name: member.n for name, member in names}, _torn_hosts(stamps))


def _demand_unique(stamps: JoinedStamps) -> None:
    seen: dict[str, str] = {}
    for name, member in zip(stamps.names, stamps.members, strict=True):
        for stamp in member.column("stamp_id"):
            other = seen.setdefault(stamp, name)
            if other is not name:
                raise DataError(
                    "two data sets have a stamp of the same name: leave one of them out, or rename its stamps",
                    stamp_id=stamp,
                    one=other,
                    other=name,
                )
        if len(set(member.column("stamp_id"))) < member.n:
            raise DataError("a data set has two stamps of the same name; see `lenspipe stamps validate`", data=name)


def _torn_hosts(stamps: StampSet) -> tuple[str, ...]:
    host, split, source = (stamps.column(name) for name in ("host", "split", DATA_SET))
    first: dict[str, tuple[str, str]] = {}
    torn = []
    for row in np.flatnonzero([bool(h) and s is not None for h, s in zip(host, split, strict=True)]):
        known = first.setdefault(host[row], (split[row], source[row]))
        if known[0] != split[row] and known[1] != source[row]:
            torn.append(host[row])
    return tuple(dict.fromkeys(torn))
