"""Candidates against known lenses: the nearest lens of each candidate, and what became of each lens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lenspipe.catalog.columns import CONTAMINANT, KNOWN
from lenspipe.catalog.footprint import inside
from lenspipe.schema import field
from lenspipe.sky.sphere import arcsec_of_chord, chord, nearest, unit_vectors

if TYPE_CHECKING:
    from mocpy import MOC

RANKED, UNSCORED, ABSENT = "ranked", "candidate without a score", "not a candidate"
FATES = pa.schema(
    [
        field("name", pa.string(), "Name of the known lens", ucd="meta.id;meta.main"),
        field("ra", pa.float64(), "Right ascension, ICRS", unit="deg", ucd="pos.eq.ra;meta.main"),
        field("dec", pa.float64(), "Declination, ICRS", unit="deg", ucd="pos.eq.dec;meta.main"),
        field("grade", pa.string(), "Grade in its list", ucd="meta.code.qual"),
        field("reference", pa.string(), "Where it was published", ucd="meta.bib"),
        field("left_out", pa.bool_(), "Used in training, so left out of the recall", ucd="meta.code"),
        field("fate", pa.string(), "ranked, candidate without a score, or why it is not a candidate", ucd="meta.code"),
        field("candidate_id", pa.string(), "Its best-ranked candidate", ucd="meta.id.cross"),
        field("run_id", pa.string(), "Run of that candidate", ucd="meta.id;meta.dataset"),
        field("rank", pa.int64(), "Rank of that candidate", ucd="meta.number"),
        field("score", pa.float64(), "Raw score of that candidate", ucd="stat.value"),
        field("separation_arcsec", pa.float64(), "Distance to that candidate", unit="arcsec", ucd="pos.angDistance"),
    ]
)


def with_known_lenses(rows: pa.Table, lenses: pa.Table, *, radius_arcsec: float) -> pa.Table:
    """Fill the columns `KNOWN` of catalogue rows with the nearest lens; null where none is within the radius."""
    return _with_nearest(rows, lenses, KNOWN, radius_arcsec)


def with_contaminants(rows: pa.Table, contaminants: pa.Table, *, radius_arcsec: float) -> pa.Table:
    """Fill the columns `CONTAMINANT` of catalogue rows with the nearest contaminant; null where none is near."""
    return _with_nearest(rows, contaminants, [f.name for f in CONTAMINANT], radius_arcsec)


def _with_nearest(rows: pa.Table, listed: pa.Table, names: Sequence[str], radius_arcsec: float) -> pa.Table:
    near, apart = nearest(*_positions(rows), *_positions(listed), radius_arcsec=radius_arcsec)
    index = pa.array(near, mask=near < 0)
    values = [listed[name].combine_chunks().take(index) for name in ("name", "grade", "reference")]
    for name, value in zip(names, [*values, pa.array(apart, mask=near < 0)], strict=True):
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), value.cast(rows.schema.field(place).type))
    return rows


def fates(
    rows: pa.Table, lenses: pa.Table, moc: MOC, *, radius_arcsec: float, trained_on: pa.Table | None = None
) -> pa.Table:
    """
    What became of each known lens inside the footprint.

    Its candidate is the best-ranked one within the radius, the nearest one where none has a score.

    Parameters
    ----------
    rows : pa.Table
        Catalogue rows.
    lenses : pa.Table
        Known lenses (`lenspipe.catalog.known`).
    moc : MOC
        Area searched.
    radius_arcsec : float
        Radius of the match.
    trained_on : pa.Table or None
        Positions that the model was trained on: lenses within the radius of one are ``left_out``.

    Returns
    -------
    pa.Table
        With `FATES`, one row per lens of the footprint.
    """
    lenses = lenses.filter(pa.array(inside(moc, *_positions(lenses))))
    n = lenses.num_rows
    left_out = np.zeros(n, bool)
    if trained_on is not None:
        left_out = nearest(*_positions(lenses), *_positions(trained_on), radius_arcsec=radius_arcsec)[0] >= 0
    chosen, apart = _best_candidate(rows, lenses, radius_arcsec)
    index = pa.array(chosen, mask=chosen < 0)
    of = {name: rows[name].combine_chunks().take(index) for name in ("candidate_id", "run_id", "rank", "score")}
    ranked = of["score"].is_valid().to_numpy(zero_copy_only=False)
    fate = np.where(chosen < 0, ABSENT, np.where(ranked, RANKED, UNSCORED))
    known = {name: lenses[name] for name in ("name", "ra", "dec", "grade", "reference")}
    columns = {
        **known,
        **of,
        "left_out": pa.array(left_out),
        "fate": pa.array(fate.tolist(), pa.string()),
        "separation_arcsec": pa.array(apart, mask=chosen < 0),
    }
    return pa.table([columns[name] for name in FATES.names], schema=FATES)


def with_earlier_words(table: pa.Table, before: pa.Table) -> pa.Table:
    """Fates in which a lens that is not a candidate keeps what an earlier look at its pixels said."""
    key = ("name", "ra", "dec")
    words = {tuple(row[k] for k in key): row["fate"] for row in before.to_pylist() if not row["candidate_id"]}
    fate = [
        words.get(tuple(row[k] for k in key), ABSENT) if row["fate"] == ABSENT else row["fate"]
        for row in table.select([*key, "fate"]).to_pylist()
    ]
    return table.set_column(table.schema.get_field_index("fate"), FATES.field("fate"), pa.array(fate, pa.string()))


def _best_candidate(
    rows: pa.Table, lenses: pa.Table, radius_arcsec: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    chosen, apart = np.full(lenses.num_rows, -1), np.full(lenses.num_rows, np.nan)
    if not rows.num_rows or not lenses.num_rows:
        return chosen, apart
    positions, at = unit_vectors(*_positions(rows)), unit_vectors(*_positions(lenses))
    near = cKDTree(positions).query_ball_point(at, chord(radius_arcsec))
    rank = rows["rank"].to_numpy()  # NaN where there are nulls
    for i, members in enumerate(near):
        if members:
            distance = np.linalg.norm(positions[members] - at[i], axis=1)
            place = np.where(np.isfinite(rank[members]), rank[members], np.inf)
            best = int(np.lexsort((distance, place))[0])
            chosen[i], apart[i] = members[best], arcsec_of_chord(distance[best])
    return chosen, apart


def recall(table: pa.Table) -> dict[str, Any]:
    """
    Recall of known lenses, those used in training left out.

    Returns
    -------
    dict
        ``inside`` lenses in the footprint, ``left_out``, ``counted``, ``candidates`` and ``ranked`` of the counted,
        how many are among the first 10, 100 and 1000 of their run, and the numbers by fate.
    """
    counted = table.filter(pc.invert(table["left_out"]))
    rank = counted["rank"]
    found = pc.sum(pc.is_valid(counted["separation_arcsec"])).as_py() or 0
    by_fate = {row["values"]: row["counts"] for row in pc.value_counts(counted["fate"]).to_pylist()}
    return {
        "inside": table.num_rows,
        "left_out": table.num_rows - counted.num_rows,
        "counted": counted.num_rows,
        "candidates": found,
        "ranked": by_fate.get(RANKED, 0),
        "recall": found / counted.num_rows if counted.num_rows else None,
        "within_rank": {str(k): pc.sum(pc.less_equal(rank, k)).as_py() or 0 for k in (10, 100, 1000)},
        "fates": dict(sorted(by_fate.items())),
    }


def _positions(table: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return table["ra"].to_numpy(), table["dec"].to_numpy()
