"""Show the candidates of shards to the readers of a scan."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from lenspipe.scan import attempts
from lenspipe.scan.context import ScanContext
from lenspipe.scan.readers.contract import Candidates, Work
from lenspipe.scan.rows import ASKED, set_columns, unpack_cutouts
from lenspipe.schema import part_schema

PART = 512
"""Candidates that are shown at a time: whole batches on CPU and GPU, and what a model makes of the cutouts of a crowded
shard takes as much room as its pixels."""


class ScoreShards:
    """
    Rows with cutouts in, ledger rows with what the readers say out; a model is loaded at its first call.

    What a reader says of a candidate does not depend on what it is shown with: batches have a fixed size and networks
    treat each stamp on its own.
    """

    def __init__(self, context: ScanContext) -> None:
        self.context = context
        self._schema = part_schema(context.bands, context.added)
        self._work: dict[int, Work] = {}

    def __call__(self, table: pa.Table) -> pa.Table:
        """Read a table of `wire_schema` rows; returns `part_schema` rows in the same order."""
        folder = self.context.attempts
        waiting = [i for i in range(table.num_rows) if table[ASKED.name][i].is_valid]
        ids = [table["shard_id"][i].as_py() for i in range(table.num_rows)]
        died = {i: attempts.deaths(folder, "score", ids[i]) for i in waiting}
        suspects = [i for i in waiting if died[i]]
        done: dict[int, pa.Table] = {}
        # After a death the shards of the call are tried one at a time, so that only the guilty one dies again.
        for group in [[i for i in waiting if not died[i]], *([i] for i in suspects)]:
            if not group:
                continue
            if died[group[0]] >= attempts.MAX_DEATHS:
                done[group[0]] = self._give_up(table.slice(group[0], 1), died[group[0]])
                continue
            for i in group:
                attempts.begin(folder, "score", ids[i])
            self._load(table, group)  # once per process, and not what a shard takes
            started = time.perf_counter()
            read = [self._read(table.slice(i, 1)) for i in group]
            elapsed = (time.perf_counter() - started) / len(group)
            for i, row in zip(group, read, strict=True):
                done[i] = _with(row, "score_s", elapsed)
                attempts.clear(folder, "score", ids[i])
        rows = [done.get(i, table.slice(i, 1)).select(self._schema.names) for i in range(table.num_rows)]
        return pa.concat_tables(rows).cast(self._schema)

    def _read(self, row: pa.Table) -> pa.Table:
        """One shard's row with the columns of its readers."""
        asked, cutouts = row[ASKED.name][0].as_py(), unpack_cutouts(row, 0)
        scale, n = row["pixel_scale_arcsec"][0].as_py(), row["n_candidate"][0].as_py()
        bands = self.context.bands
        rms, fwhm = (
            {band: row[name.format(band)][0].as_py() for band in bands}
            for name in ("sky_rms_{}_njy", "psf_fwhm_{}_arcsec")
        )
        columns: dict[str, list[pa.Array]] = {}
        for start in range(0, n, PART):
            part = {key: pixels[start : start + PART] for key, pixels in cutouts.items()}
            candidates = Candidates(min(PART, n - start), scale, rms, fwhm, part, {})
            for k in asked:
                said = self._work[k](candidates)
                candidates.said.update(said)
                for f in self.context.models[k].fields():
                    columns.setdefault(f.name, []).append(_as_array(said[f.name], f.type))
        return set_columns(row, {name: pa.concat_arrays(parts) for name, parts in columns.items()})

    def _load(self, table: pa.Table, group: list[int]) -> None:
        """Load the readers that these shards have candidates for."""
        for k in sorted({k for i in group if table["n_candidate"][i].as_py() for k in table[ASKED.name][i].as_py()}):
            if k not in self._work:
                self._work[k] = self.context.models[k].load(self.context.config.score.device)

    def _give_up(self, row: pa.Table, died: int) -> pa.Table:
        """A failed row in place of a shard that kills the scorer."""
        message = f"{died} worker processes died while scoring this shard; see the Ray logs"
        fixed = {
            "status": "failed",
            "stage": "score",
            "error_type": "WorkerDied",
            "message": message,
            "n_source": 0,
            "n_candidate": 0,
            "area_deg2": 0.0,
            "candidates": [],
        }
        for name, value in fixed.items():
            row = _with(row, name, value)
        return row


def _with(row: pa.Table, name: str, value: Any) -> pa.Table:
    """A row with another value in a column."""
    index = row.schema.get_field_index(name)
    return row.set_column(index, row.schema.field(index), pa.array([value], row.schema.field(index).type))


def _as_array(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)
