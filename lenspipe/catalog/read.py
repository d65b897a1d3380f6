"""Reading catalogues, also those that `lenspipe catalog --distributed` wrote without a table of all rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from lenspipe.catalog import folder as names
from lenspipe.catalog.hats import read_pixels
from lenspipe.catalog.order import best_first
from lenspipe.tables import open_parquet, read_parquet, read_schema


def best_rows(catalogue: Path, count: int) -> pa.Table:
    """
    The best ``count`` rows of a catalogue, best score first; memory does not grow with the catalogue.

    Parameters
    ----------
    catalogue : Path
        Folder of a catalogue.
    count : int
        Rows at most.

    Returns
    -------
    pa.Table
    """
    if (catalogue / names.FLAT).exists():
        with open_parquet(catalogue / names.FLAT) as file:
            found = [file.schema_arrow.empty_table()]
            for batch in file.iter_batches(max(1, min(count, 100_000))):
                found.append(pa.Table.from_batches([batch]))
                if sum(t.num_rows for t in found) >= count:
                    break
        return pa.concat_tables(found).slice(0, count)
    root = catalogue / names.HATS / "dataset"
    best = read_schema(root / "_common_metadata").empty_table()
    for file in _files(catalogue):
        rows = pa.concat_tables([best, read_parquet(file).cast(best.schema)])
        best = rows.take(best_first(rows)[:count])
    return best


def runs_of_candidate(catalogue: Path, candidate_id: str) -> list[str]:
    """Runs of which a catalogue has a row of this identifier, sorted."""
    wanted = [("candidate_id", "=", candidate_id)]
    files = [catalogue / names.FLAT] if (catalogue / names.FLAT).exists() else _files(catalogue)
    found: set[str] = set()
    for file in files:
        found.update(read_parquet(file, columns=["candidate_id", "run_id"], filters=wanted)["run_id"].to_pylist())
    return sorted(found)


def _files(catalogue: Path) -> Iterator[Path]:
    root = catalogue / names.HATS
    return (root / "dataset" / pixel.path for pixel in read_pixels(root))
