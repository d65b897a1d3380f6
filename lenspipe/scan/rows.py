"""One shard, one row: building, reading and failing the rows that travel from pixels to the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import LenspipeError
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.readers.contract import CutoutKey
from lenspipe.schema import part_schema

ASKED = pa.field("asked", pa.list_(pa.int32()))
"""Which readers of the context are shown the candidates; null where none is."""


def wire_fields(n_cutout: int) -> list[pa.Field]:
    """
    Columns that travel from reading to scoring and are not stored.

    A kind of cutouts has columns of its own (pixels, shape, bands): one binary value per row is packed without a copy.
    """
    return [
        ASKED,
        *(
            field
            for k in range(n_cutout)
            for field in (
                pa.field(f"cutouts_{k}", pa.large_binary()),
                pa.field(f"cutout_shape_{k}", pa.list_(pa.int32())),
                pa.field(f"cutout_bands_{k}", pa.list_(pa.string())),
            )
        ),
    ]


def wire_schema(context: ScanContext) -> pa.Schema:
    """A ledger row with the cutouts that wait for the readers."""
    stored = part_schema(context.bands, context.added)
    n_cutout = sum(reader.n_cutout for reader in context.models)
    return pa.schema([*stored, *wire_fields(n_cutout)], stored.metadata)


def failed_row(
    task: ShardTask, context: ScanContext, stage: str, error: LenspipeError | str, *, kind: str = ""
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
        "psf": [],
        "candidates": [],
    }
    return one_row(values, wire_schema(context))


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


def pack_cutouts(cutouts: Mapping[CutoutKey, NDArray[np.float32]]) -> dict[str, object]:
    """
    Columns that carry cutouts (n, band, y, x), without a copy.

    Built from buffers: ``pa.array([memoryview])`` never lets go of what it has read (pyarrow 26).
    """
    packed: dict[str, object] = {}
    for k, (key, pixels) in enumerate(cutouts.items()):
        flat = np.ascontiguousarray(pixels)
        offsets = pa.py_buffer(np.array([0, flat.nbytes], np.int64))
        value = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(flat)])
        packed |= {f"cutouts_{k}": value, f"cutout_shape_{k}": list(pixels.shape), f"cutout_bands_{k}": list(key.bands)}
    return packed


def unpack_cutouts(table: pa.Table, row: int) -> dict[CutoutKey, NDArray[np.float32]]:
    """Cutouts (n, band, y, x) of one row, read-only, by what they are."""
    cutouts = {}
    for name in (name for name in table.column_names if name.startswith("cutouts_")):
        number = name.removeprefix("cutouts_")
        shape = table[f"cutout_shape_{number}"][row].as_py()
        if shape is not None:
            key = CutoutKey(tuple(table[f"cutout_bands_{number}"][row].as_py()), shape[-1])
            cutouts[key] = np.frombuffer(table[name][row].as_buffer(), np.float32).reshape(shape)
    return cutouts


def pack_note(table: pa.Table) -> bytes:
    """A table as one value of a row; `noted` gives it back."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def noted(rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Number of each row whose pixels were changed, with the table that was kept of it (`ReadShard.watch`)."""
    for i, value in enumerate(rows["noted"]):
        if value.is_valid:
            with pa.ipc.open_stream(value.as_buffer()) as stream:
                yield i, stream.read_all()


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


def inputs_json(files: list[dict[str, object]]) -> str:
    """Files of a tile with size and checksum."""
    return json.dumps(files, separators=(",", ":"), sort_keys=True)
