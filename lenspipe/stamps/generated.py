"""Stamps that a network made: how they are marked, and that they are learnt from and never judged on."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.errors import DataError
from lenspipe.stamps.spec import SPLITS

GENERATOR = "generator"
"""Column with the name and digest of the network that made a stamp; null, or no such column, where it was not made."""
LEARNT_FROM = SPLITS[0]
"""The only split that stamps which were made belong to."""
FIELD = pa.field(GENERATOR, pa.string(), metadata={"description": "network that made the stamp; null where none did"})


def demand_learnt_from(table: pa.Table, where: str) -> None:
    """
    Raise `DataError` where a stamp that a network made is of another split than that which is learnt from.

    Parameters
    ----------
    table : pyarrow.Table
        With the column ``split``.
    where : str
        Data set or part, for the message.
    """
    if GENERATOR not in table.schema.names or "split" not in table.schema.names:
        return
    made = pc.is_valid(table[GENERATOR])
    elsewhere = pc.and_(made, pc.not_equal(pc.fill_null(table["split"], ""), LEARNT_FROM))
    if n := int(pc.sum(elsewhere).as_py() or 0):
        raise DataError(
            "stamps that a generator made are for the split train alone: what is judged must have been taken",
            where=where,
            n=n,
        )


def refuse_made(table: pa.Table, where: str) -> None:
    """
    Raise `DataError` where a network made some of the stamps, which something is to be judged on.

    Parameters
    ----------
    table : pyarrow.Table
    where : str
        Data set, for the message.
    """
    if GENERATOR not in table.schema.names:
        return
    if n := table.num_rows - table[GENERATOR].null_count:
        made_by = ",".join(sorted({str(name) for name in pc.unique(table[GENERATOR]).to_pylist() if name}))
        raise DataError("nothing is judged on stamps that a generator made", where=where, n=n, generator=made_by)
