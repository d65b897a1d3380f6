"""The one order of candidates: in a run's table, its catalogue, its picture, its page and the terminal."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.bands import selection_band
from lenspipe.catalog.columns import bands_of
from lenspipe.catalog.merge import EDGE

UNSCORED, FAINT = 1e9, 1e3
"""What a row without a score begins at, and what one without a magnitude, or cut by an edge, has more."""


def sort_value(rows: pa.Table) -> NDArray[np.float64]:
    """
    A number per row that rises from the best to the last.

    The highest score comes first; rows without one come behind all that have one, the brightest first in the band that
    magnitude limits are in where none is named, and those that are cut by the edge of their tile last.

    Parameters
    ----------
    rows : pa.Table
        With ``score``; ``flags`` and magnitudes count where they are there.

    Returns
    -------
    array (n,)
    """
    score = rows["score"].to_numpy().astype(float)
    bands = bands_of(rows.schema)
    name = f"mag_{selection_band(bands)}" if bands else ""
    later = np.full(len(score), FAINT)
    if name in rows.column_names:
        mag = rows[name].to_numpy().astype(float)
        later = np.where(np.isfinite(mag), mag, FAINT)
    if "flags" in rows.column_names:
        cut = pc.fill_null(rows["flags"], 0).to_numpy() & EDGE != 0
        later = later + 2 * FAINT * cut
    return np.where(np.isnan(score), UNSCORED + later, -score)


def best_first(rows: pa.Table) -> pa.Array:
    """Numbers of the rows by `sort_value`, equal ones by ``candidate_id`` and ``run_id``."""
    names = [name for name in ("candidate_id", "run_id") if name in rows.column_names]
    keys = pa.table({"value": sort_value(rows), **{name: rows[name] for name in names}})
    return pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
