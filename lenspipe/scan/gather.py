"""One pass over the ledger: what the tables of a run are made of is set down on disk, by kind."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.scan.ledger import iter_counted
from lenspipe.scan.spill import Spill
from lenspipe.schema import (
    EMBEDDING,
    FAILURES,
    PSF,
    added_fields,
    candidates_schema,
    measured_fields,
    nothing,
    shards_schema,
)
from lenspipe.tables import read_schema

BLOCK_ROWS, BLOCK_BYTES = 256, 32 << 20
"""Shards that are set down at a time, and bytes from which fewer are."""
CHUNK = 512
"""Shards whose rows are brought into order at a time: PSFs of about 20 MB."""


@dataclasses.dataclass
class Gathered:
    """What the rows of a ledger that count hold."""

    shards: Spill
    psf: Spill
    candidates: Spill
    vectors: Spill | None
    """Identifiers and vectors of the candidates that have one; None where no model gives any."""
    ids: list[pa.Array] = dataclasses.field(default_factory=list)
    """Shards in the order in which they came, block by block."""
    failures: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    inputs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    n_shown: int = 0
    """Candidates of the shards that a model was shown."""

    def in_order(self) -> Iterator[NDArray[np.int64]]:
        """Numbers of the shards, sorted by their identifiers, `CHUNK` at a time."""
        order = pc.sort_indices(pa.chunked_array(self.ids, pa.string())).to_numpy().astype(np.int64)
        for start in range(0, len(order), CHUNK):
            yield order[start : start + CHUNK]


@contextlib.contextmanager
def gathered(parts: list[Path], planned: Set[str], bands: tuple[str, ...], scratch: Path) -> Iterator[Gathered]:
    """
    Go through the ledger once.

    Parameters
    ----------
    parts : list of Path
        Parts of the ledger.
    planned : set of str
        Shards that count.
    bands : tuple of str
    scratch : Path
        Folder for what is set down; the caller makes and removes it.

    Raises
    ------
    DataError
        A part is damaged, or does not hold the candidates that it counts.
    """
    kind = read_schema(parts[-1]).field("candidates").type if parts else None  # of the session that ran last
    added = added_fields(bands, list(kind.value_type)) if kind else []
    vector = next((f for f in added if f.name == EMBEDDING), None)
    schema = candidates_schema(bands, [f for f in added if f.name != EMBEDDING])
    with contextlib.ExitStack() as stack:
        spill = {
            name: stack.enter_context(Spill(scratch / f"{name}.arrow", kind))
            for name, kind in (
                ("shards", shards_schema(bands)),
                ("psf", PSF),
                ("candidates", schema),
                *([] if vector is None else [("vectors", pa.schema([measured_fields(())[0], vector]))]),
            )
        }
        found = Gathered(spill["shards"], spill["psf"], spill["candidates"], spill.get("vectors"))
        for block in _blocks(_alike(table, kind) for table in iter_counted(parts, planned)):
            _set_down(block, found)
        yield found


def _alike(table: pa.Table, kind: pa.DataType) -> pa.Table:
    """Rows whose candidates have the columns of ``kind``: parts of an older version may have more, which are null."""
    place = table.schema.get_field_index("candidates")
    column = table.column(place).combine_chunks()
    if column.type == kind:
        return table
    structs, nested = column.flatten(), {f.name for f in column.type.value_type}
    children = [structs.field(f.name) if f.name in nested else nothing(f, len(structs)) for f in kind.value_type]
    counts = pc.fill_null(column.value_lengths(), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(children, fields=list(kind.value_type)))
    return table.set_column(place, table.schema.field(place).with_type(kind), lists.cast(kind))


def _blocks(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, many parts at a time: what is done to a table costs the same for one row and for a thousand."""
    held: list[pa.Table] = []
    n_row = n_byte = 0
    for table in tables:
        held.append(table)
        n_row, n_byte = n_row + table.num_rows, n_byte + table.nbytes
        if n_row >= BLOCK_ROWS or n_byte >= BLOCK_BYTES:
            yield pa.concat_tables(held)
            held, n_row, n_byte = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _set_down(block: pa.Table, found: Gathered) -> None:
    one = np.ones(block.num_rows, np.int64)
    found.ids.append(block["shard_id"].combine_chunks())
    found.shards.add(block.select(found.shards.schema.names).cast(found.shards.schema), one)
    found.inputs += [item for text in block["inputs"].drop_null().to_pylist() if text for item in json.loads(text)]
    failed = block.filter(pc.equal(block["status"], "failed"))
    found.failures += failed.select(FAILURES.names).to_pylist()
    shown = pc.and_(pc.is_valid(block["model"]), pc.not_equal(block["model"], ""))
    found.n_shown += pc.sum(block.filter(shown)["n_candidate"]).as_py() or 0
    found.psf.add(*_unnested(block, "psf", found.psf.schema))
    candidates, counts = _unnested(block, "candidates", found.candidates.schema)
    _demand_counted(block, candidates, counts)
    found.candidates.add(candidates, counts)
    if found.vectors is not None:
        name = found.vectors.schema.names[-1]
        vectors, counts = _unnested(block, "candidates", found.vectors.schema)
        there = pc.is_valid(vectors[name]).to_numpy()
        shard = np.repeat(np.arange(len(counts)), counts)
        found.vectors.add(vectors.filter(pa.array(there)), np.bincount(shard[there], minlength=len(counts)))


def _unnested(block: pa.Table, name: str, schema: pa.Schema) -> tuple[pa.Table, NDArray[np.int64]]:
    """Rows of a nested column, with columns of their shard's row where ``schema`` asks for them; and their counts."""
    column = block[name].combine_chunks()
    structs, parent = column.flatten(), pc.list_parent_indices(column)
    nested = {f.name for f in column.type.value_type}
    arrays = [
        structs.field(f.name) if f.name in nested else block[f.name].take(parent).cast(f.type).combine_chunks()
        for f in schema
    ]
    counts = pc.fill_null(column.value_lengths(), 0).to_numpy().astype(np.int64)
    return pa.table(arrays, schema=schema), counts


def _demand_counted(block: pa.Table, candidates: pa.Table, counts: NDArray[np.int64]) -> None:
    """Raise `DataError` where a shard holds another number of candidates than it says, or a candidate twice."""
    said = pc.fill_null(block["n_candidate"], 0).to_numpy()
    ids = candidates["candidate_id"]
    wrong = [*block["shard_id"].filter(pa.array(said != counts)).to_pylist()]
    if not wrong and pc.count_distinct(ids).as_py() != len(ids):
        times = ids.value_counts()
        twice = times.field("values").filter(pc.greater(times.field("counts"), 1))
        wrong = candidates["shard_id"].filter(pc.is_in(ids, twice)).to_pylist()
    if wrong:
        raise DataError(
            "a part of the run does not hold the candidates that it counts, or one twice; remove it and give the "
            "scan again with --resume",
            shard=wrong[0],
        )
