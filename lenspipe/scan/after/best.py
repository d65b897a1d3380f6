"""The best candidates of a run with the rank that its catalogue gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from lenspipe.catalog.merge import merge_duplicates
from lenspipe.scan.config import CatalogSettings
from lenspipe.scan.finalize import CANDIDATES
from lenspipe.sky.sphere import chord, first_of_each, unit_vectors
from lenspipe.tables import open_parquet

SAME_SOURCE_ARCSEC = 3.0
"""Closer than this, two rows are one object: seen by two tiles, or a deflector and its own arc."""
REACH_ARCSEC = 10.0
"""Farther than this from a row, none has a say in whether it stays when duplicates are merged."""
BATCH_ROWS = 200_000


def ranked_rows(folder: Path, n: int) -> pa.Table:
    """
    The first rows of a run's candidates that stay in its catalogue, with their ``rank`` there.

    Duplicates in overlapping shards and tiles are merged as the catalogue of the run merges them, by the rows close to
    these, wherever in the file they stand; memory holds those and a batch.

    Parameters
    ----------
    folder : Path
        A run whose candidates are written, with or without a catalogue.
    n : int
        Rows of the file that are looked at; fewer stay.

    Returns
    -------
    pa.Table
        Columns of the run and ``rank``, null without a score.
    """
    with open_parquet(folder / CANDIDATES) as file:
        head = next(file.iter_batches(batch_size=n), None)
        if head is None:
            return _with_rank(file.schema_arrow.empty_table())
        first = pa.Table.from_batches([head])
        tree = cKDTree(unit_vectors(first["ra"].to_numpy(), first["dec"].to_numpy()))
        near, begun = [first], 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            beyond = pa.Table.from_batches([batch]).slice(max(0, n - begun))
            begun += batch.num_rows
            apart, _ = tree.query(
                unit_vectors(beyond["ra"].to_numpy(), beyond["dec"].to_numpy()),
                distance_upper_bound=chord(REACH_ARCSEC),
            )
            near.append(beyond.filter(pa.array(np.isfinite(apart))))
    rows = pa.concat_tables(near)
    named = rows.append_column("run_id", pa.array([""] * rows.num_rows, pa.string()))
    kept = merge_duplicates(named, radius_arcsec=CatalogSettings().radius_arcsec).kept[: first.num_rows]
    return _with_rank(first.filter(pa.array(kept)))


def _with_rank(rows: pa.Table) -> pa.Table:
    unscored = pc.is_null(rows["score"], nan_is_null=True).to_numpy()
    return rows.append_column("rank", pa.array(np.arange(1, rows.num_rows + 1), pa.int64(), mask=unscored))


def best_candidates(folder: Path, n: int) -> pa.Table:
    """The best ``n`` of `ranked_rows`; of those within `SAME_SOURCE_ARCSEC` the best one, so that ranks have gaps."""
    table = ranked_rows(folder, 20 * n)
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    return table.take(first_of_each(ra, dec, radius_arcsec=SAME_SOURCE_ARCSEC)[:n])
