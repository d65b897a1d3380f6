"""One shard, one row: building, reading and failing the rows that travel from pixels to the ledger."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import LenspipeError
from lenspipe.scan.context import ShardTask
from lenspipe.schema import part_schema

CUTOUTS = pa.field("cutouts", pa.large_binary())
CUTOUT_SHAPE = pa.field("cutout_shape", pa.list_(pa.int32()))
CUTOUT_RMS = pa.field("cutout_rms_njy", pa.list_(pa.float64()))
"""Noise of the sky in each band of the cutouts; for a denoiser."""
WIDE = pa.field("substructure_cutouts", pa.large_binary())
WIDE_SHAPE = pa.field("substructure_cutout_shape", pa.list_(pa.int32()))
"""Cutouts for the models of substructure, which take other bands and sizes than the finder."""
WIRE = (CUTOUTS, CUTOUT_SHAPE, CUTOUT_RMS, WIDE, WIDE_SHAPE)


def wire_schema(bands: tuple[str, ...]) -> pa.Schema:
    """A ledger row with the cutouts that wait to be scored."""
    return pa.schema([*part_schema(bands), *WIRE], part_schema(bands).metadata)


def failed_row(
    task: ShardTask, bands: tuple[str, ...], stage: str, error: LenspipeError | str, *, kind: str = ""
) -> pa.Table:
    """Row of a shard that could not be done."""
    facts = error.facts if isinstance(error, LenspipeError) else {}
    values = {
        **identity(task),
        "status": "failed",
        "stage": stage,
        "error_type": kind or type(error).__name__,
        "message": str(error),
        "file": str(facts.get("file") or task.tile.file),
        "n_source": 0,
        "n_candidate": 0,
        "area_deg2": 0.0,
        "candidates": [],
    }
    return one_row(values, wire_schema(bands))


def identity(task: ShardTask) -> dict[str, object]:
    """The columns that the plan already knows."""
    core = task.shard.core
    return {
        "shard_id": task.shard.shard_id,
        "tile": task.shard.tile,
        "file": task.tile.file,
        "x0_px": core.x0,
        "y0_px": core.y0,
        "x1_px": core.x1,
        "y1_px": core.y1,
    }


def one_row(values: dict[str, object], schema: pa.Schema) -> pa.Table:
    """A table of one row; columns that are not given are null."""
    unknown = set(values) - set(schema.names)
    if unknown:
        raise KeyError(f"no such columns: {sorted(unknown)}")
    arrays = []
    for field in schema:
        value = values.get(field.name)
        arrays.append(value if isinstance(value, pa.Array) else pa.array([value], field.type))
    return pa.table(arrays, schema=schema)


def nested(candidates: pa.Table) -> pa.Array:
    """A table of candidates as the single value of a list column."""
    struct = pa.StructArray.from_arrays(
        [candidates.column(i).combine_chunks() for i in range(candidates.num_columns)], fields=list(candidates.schema)
    )
    return pa.ListArray.from_arrays(pa.array([0, len(struct)], pa.int32()), struct)


def pack_cutouts(cutouts: NDArray[np.float32], *, wide: bool = False) -> dict[str, object]:
    """
    Columns that carry cutouts (n, band, y, x), without a copy.

    Built from buffers: ``pa.array([memoryview])`` never lets go of what it has read (pyarrow 26).
    """
    flat = np.ascontiguousarray(cutouts)
    offsets = pa.py_buffer(np.array([0, flat.nbytes], np.int64))
    value = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(flat)])
    names = (WIDE, WIDE_SHAPE) if wide else (CUTOUTS, CUTOUT_SHAPE)
    return {names[0].name: value, names[1].name: list(cutouts.shape)}


def unpack_cutouts(table: pa.Table, row: int, *, wide: bool = False) -> NDArray[np.float32] | None:
    """Cutouts (n, band, y, x) of one row, read-only; None where the row has none."""
    pixels, shape_of = (WIDE, WIDE_SHAPE) if wide else (CUTOUTS, CUTOUT_SHAPE)
    shape = table[shape_of.name][row].as_py()
    if shape is None:
        return None
    return np.frombuffer(table[pixels.name][row].as_buffer(), np.float32).reshape(shape)


def set_scores(
    table: pa.Table,
    scores: list[NDArray[np.float64] | None],
    probabilities: list[NDArray[np.float64] | None] | None = None,
) -> pa.Table:
    """Put scores, and probabilities where there are any, of each row's candidates in their place (None: null)."""
    lengths = table["candidates"].combine_chunks().value_lengths().to_pylist()
    filled = {"score": _joined(scores, lengths)}
    if probabilities is not None:
        filled["probability"] = _joined(probabilities, lengths)
    return set_columns(table, filled)


def set_columns(table: pa.Table, filled: dict[str, pa.Array]) -> pa.Table:
    """Put columns of the candidates of all rows, one after the other, in their place."""
    column = table["candidates"].combine_chunks()
    structs = column.flatten()
    lengths = column.value_lengths().to_pylist()
    fields = list(structs.type)
    children = [filled.get(f.name, structs.field(i)) for i, f in enumerate(fields)]
    rebuilt = pa.StructArray.from_arrays(children, fields=fields)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    index = table.schema.get_field_index("candidates")
    return table.set_column(index, table.schema.field(index), pa.ListArray.from_arrays(offsets, rebuilt))


def _joined(values: list[NDArray[np.float64] | None], lengths: list[int]) -> pa.Array:
    arrays = [
        pa.nulls(n, pa.float64()) if v is None else pa.array(v, pa.float64())
        for v, n in zip(values, lengths, strict=True)
    ]
    return pa.concat_arrays(arrays) if arrays else pa.nulls(0, pa.float64())


def inputs_json(files: list[dict[str, object]]) -> str:
    """Files of a tile with size and checksum."""
    return json.dumps(files, separators=(",", ":"), sort_keys=True)
