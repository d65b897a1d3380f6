"""Where the rows of a catalogue come from; what one task reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.catalog.columns import HEALPIX
from lenspipe.catalog.merge import demand_positions
from lenspipe.catalog.run_rows import Run, ranked
from lenspipe.sky.healpix import healpix29
from lenspipe.tables import open_parquet, read_footer


class Source(Protocol):
    """Some rows, all of which are in the catalogue already, or none."""

    @property
    def is_new(self) -> bool:
        """Whether the rows are to be added, rather than in the catalogue already."""
        ...

    def index(self) -> NDArray[np.int64]:
        """``_healpix_29`` of the rows."""
        ...

    def chunks(self, batch_rows: int | None = None) -> Iterator[pa.Table]:
        """The rows, at most so many at a time; at once where None."""
        ...


@dataclasses.dataclass(frozen=True)
class RunGroup:
    """A row group of a run's candidates, which are sorted by score."""

    path: Path
    group: int
    begun: int
    """Rows of the file before it."""
    run_id: str
    is_new: bool = True

    def index(self) -> NDArray[np.int64]:
        """See `Source`."""
        with open_parquet(self.path) as file:
            return _index(file.read_row_group(self.group, columns=["candidate_id", "ra", "dec"]))

    def chunks(self, batch_rows: int | None = None) -> Iterator[pa.Table]:
        """See `Source`; rows of candidates with `HEALPIX` and what `ranked` adds."""
        begun = self.begun
        for rows in _row_group(self.path, self.group, batch_rows):
            yield ranked(rows, run_id=self.run_id, begun=begun).append_column(HEALPIX, pa.array(_index(rows)))
            begun += rows.num_rows


@dataclasses.dataclass(frozen=True)
class TreeGroup:
    """A row group of catalogue rows."""

    path: Path
    group: int
    is_new: bool = True

    def index(self) -> NDArray[np.int64]:
        """See `Source`."""
        with open_parquet(self.path) as file:
            return np.asarray(file.read_row_group(self.group, columns=[HEALPIX])[HEALPIX].to_numpy())

    def chunks(self, batch_rows: int | None = None) -> Iterator[pa.Table]:
        """See `Source`."""
        return _row_group(self.path, self.group, batch_rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """Catalogue rows in the memory of this process."""

    rows: pa.Table
    is_new: bool = True

    def index(self) -> NDArray[np.int64]:
        """See `Source`."""
        return np.asarray(self.rows[HEALPIX].to_numpy())

    def chunks(self, batch_rows: int | None = None) -> Iterator[pa.Table]:
        """See `Source`."""
        step = batch_rows or max(1, self.rows.num_rows)
        return (self.rows.slice(start, step) for start in range(0, max(1, self.rows.num_rows), step))


def run_groups(run: Run) -> list[RunGroup]:
    """Row groups of a run's candidates."""
    path = (run.folder / "candidates.parquet").absolute()
    footer = read_footer(path)
    starts = np.cumsum([0, *(footer.row_group(group).num_rows for group in range(footer.num_row_groups))])
    return [RunGroup(path, group, int(start), run.run_id) for group, start in enumerate(starts[:-1])]


def tree_groups(files: Sequence[Path], *, is_new: bool = True) -> list[TreeGroup]:
    """Row groups of files of catalogue rows."""
    return [TreeGroup(path, group, is_new) for path in files for group in range(read_footer(path).num_row_groups)]


def _index(rows: pa.Table) -> NDArray[np.int64]:
    demand_positions(rows)
    return healpix29(rows["ra"].to_numpy(), rows["dec"].to_numpy())


def _row_group(path: Path, group: int, batch_rows: int | None) -> Iterator[pa.Table]:
    with open_parquet(path) as file:
        if batch_rows is None:
            yield file.read_row_group(group)
        else:
            for batch in file.iter_batches(batch_rows, row_groups=[group]):
                yield pa.Table.from_batches([batch])
