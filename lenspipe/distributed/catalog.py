"""The catalogue of a run that one machine does not hold, by Ray Data."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lenspipe.catalog import folder as names
from lenspipe.catalog.columns import catalog_schema
from lenspipe.catalog.finish import finish_catalog
from lenspipe.catalog.hats import MAX_ROWS
from lenspipe.catalog.match import with_known_lenses
from lenspipe.catalog.merge import demand_positions
from lenspipe.catalog.pieces import BATCH_ROWS
from lenspipe.catalog.provenance import Matching, check_append, record_of
from lenspipe.catalog.run_rows import Run, traces_of, unmerged_entries
from lenspipe.distributed.catalog_passes import sources_of
from lenspipe.distributed.catalog_tree import append_tree_ray, write_tree_ray
from lenspipe.sky.healpix import healpix29

OF_THE_RUN = ".run"


@dataclasses.dataclass(frozen=True, eq=False)
class RunRows:
    """A run's candidates as catalogue rows; each task makes its own."""

    run_id: str
    traces: pa.Table
    bands: tuple[str, ...]
    acronym: str
    matching: Matching | None
    batch_rows: int

    def index(self, source: dict[str, Any]) -> NDArray[np.int64]:
        """``_healpix_29`` of a row group."""
        with pq.ParquetFile(source["path"]) as file:
            rows = file.read_row_group(source["group"], columns=["candidate_id", "ra", "dec"])
        demand_positions(rows)
        return healpix29(rows["ra"].to_numpy(), rows["dec"].to_numpy())

    def chunks(self, source: dict[str, Any]) -> Iterator[pa.Table]:
        """Entries of a row group."""
        begun = source["begun"]
        with pq.ParquetFile(source["path"]) as file:
            for batch in file.iter_batches(self.batch_rows, row_groups=[source["group"]]):
                rows = unmerged_entries(
                    pa.Table.from_batches([batch]),
                    self.traces,
                    run_id=self.run_id,
                    begun=begun,
                    bands=self.bands,
                    acronym=self.acronym,
                )
                begun += rows.num_rows
                if self.matching:
                    rows = with_known_lenses(rows, self.matching.lenses, radius_arcsec=self.matching.radius_arcsec)
                yield rows


def write_catalog_ray(
    run: Run,
    out: Path,
    *,
    radius_arcsec: float,
    acronym: str,
    matching: Matching | None,
    append: bool = False,
    other_model: bool = False,
    max_rows: int = MAX_ROWS,
    batch_rows: int = BATCH_ROWS,
    n_worker: int | None = None,
) -> dict[str, Any]:
    """
    Write the catalogue of a run that one machine does not hold, or add the run to one, on the Ray that runs.

    The HATS tree, footprint, shards, tiles, known lenses and provenance of `lenspipe.catalog.write.write_catalog`;
    no single table of all rows. The driver holds the traces of shards, some columns of one pixel and eight bytes for
    each row.

    Parameters
    ----------
    run : Run
    out : Path
        Folder of the catalogue, on a disk that all nodes see.
    radius_arcsec, acronym, matching, append, other_model, max_rows
        As in `write_catalog`; ``max_rows`` counts rows before they are merged.
    batch_rows : int
        Rows that a task makes at a time.
    n_worker : int, optional
        CPUs to use; all where not given.

    Returns
    -------
    dict
        The record that is written as ``provenance.json``.

    Raises
    ------
    ConfigError
        Before anything is written: as `write_catalog`.
    """
    names.put_back(out)
    before = record_of(out) if append and out.exists() else None
    if before:
        check_append(run, out, before, radius_arcsec=radius_arcsec, matching=matching, other_model=other_model)
    schema = catalog_schema(run.bands)
    reader = RunRows(run.run_id, traces_of(run), run.bands, acronym, matching, batch_rows)
    how: dict[str, Any] = {"name": out.name, "max_rows": max_rows}
    merging: dict[str, Any] = {"radius_arcsec": radius_arcsec, "n_worker": n_worker}
    with names.replaced_folder(out, replace=before is not None) as new:
        tree = new / (OF_THE_RUN if before else names.HATS)
        sources = sources_of([(run.folder / "candidates.parquet").absolute()])
        pixels = write_tree_ray(sources, tree, schema=schema, reader=reader, close_ranks=True, **how, **merging)
        n_new = sum(pq.read_metadata(tree / "dataset" / pixel.path).num_rows for pixel in pixels)
        n_merged = run.record["counts"]["candidates"] - n_new
        if before:
            added = sources_of([tree / "dataset" / pixel.path for pixel in pixels])
            result = append_tree_ray(out / names.HATS, added, new / names.HATS, **how, **merging)
            n_new, n_merged = result.n_new, n_merged + result.n_merged
            shutil.rmtree(tree)
        return finish_catalog(
            new,
            run,
            out=out,
            before=before,
            n_new=n_new,
            n_merged=n_merged,
            radius_arcsec=radius_arcsec,
            acronym=acronym,
            matching=matching,
        )
