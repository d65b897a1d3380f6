"""Arrow tables as astropy's, with units and descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from astropy.table import Table


def astropy_table(table: pa.Table) -> Table:
    """An Arrow table as astropy's: missing values are masked, units and descriptions are those of the columns."""
    from astropy.table import MaskedColumn, Table

    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        missing = column.is_null().to_numpy()
        filled = column if not column.null_count else _filled(column)
        values = filled.to_numpy(zero_copy_only=False) if not _is_list(field.type) else np.array(filled.to_pylist())
        if values.dtype == object:
            values = values.astype(str)
        metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        mask = None if not column.null_count else missing
        if mask is not None and values.ndim > 1:
            mask = np.broadcast_to(mask[:, None], values.shape)
        columns.append(
            MaskedColumn(
                values,
                name=field.name,
                mask=mask,
                unit=metadata.get("unit") or None,
                description=metadata.get("description"),
            )
        )
    return Table(columns, masked=False)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        gap = pa.scalar([0] * kind.list_size, kind)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        gap = pa.scalar("", kind)
    else:
        gap = pa.scalar(0).cast(kind)
    return column.fill_null(gap)
