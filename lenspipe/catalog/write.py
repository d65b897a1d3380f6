"""A run becomes a catalogue folder, or is added to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lenspipe import __version__
from lenspipe.catalog import folder as names
from lenspipe.catalog.append import append_rows
from lenspipe.catalog.finish import finish_catalog
from lenspipe.catalog.hats import MAX_ROWS, read_pixels, write_tree
from lenspipe.catalog.match import with_known_lenses
from lenspipe.catalog.provenance import Matching, check_append, record_of
from lenspipe.catalog.run_rows import Run, catalog_rows
from lenspipe.catalog.votable import write_fits, write_voparquet
from lenspipe.errors import ConfigError

DESCRIPTION = "Strong-lens candidates, one row an object; score is raw, probability is calibrated."
MAX_CANDIDATES = 20_000_000
"""Detections of which one process makes a catalogue: columns of words end at 2 GiB, which is 30 million checksums."""
SORT_KEYS = [("score", "descending"), ("candidate_id", "ascending"), ("run_id", "ascending")]


def write_catalog(
    run: Run,
    out: Path,
    *,
    radius_arcsec: float,
    acronym: str,
    matching: Matching | None,
    append: bool = False,
    replace: bool = False,
    other_model: bool = False,
    max_rows: int = MAX_ROWS,
) -> dict[str, Any]:
    """
    Write the catalogue of a run, or add the run to one.

    Parameters
    ----------
    run : Run
    out : Path
        Folder of the catalogue; appears, or changes, as a whole.
    radius_arcsec : float
        Radius within which rows of different shards are one object.
    acronym : str
        Leading word of the names.
    matching : Matching or None
        Known lenses to match with.
    append : bool
        Add to the catalogue in ``out``.
    replace : bool
        Put the new catalogue in the place of the one in ``out``.
    other_model : bool
        Add although another model scored the rows that are there.
    max_rows : int
        Rows of a HATS pixel.

    Returns
    -------
    dict
        The record that is written as ``provenance.json``.

    Raises
    ------
    ConfigError
        Before anything is written: there are more than `MAX_CANDIDATES`, ``out`` exists without ``append`` or is no
        catalogue (or one without a flat table, by Ray), the run is in it already, has other bands, was scored by
        another model, or the rows that are there were merged or matched otherwise.
    """
    names.put_back(out)
    before = record_of(out) if append and out.exists() else None
    if before:
        check_append(run, out, before, radius_arcsec=radius_arcsec, matching=matching, other_model=other_model)
        if not (out / names.FLAT).exists():
            raise ConfigError(
                "the catalogue was written by --distributed and has no table of all rows; append with --distributed",
                out=str(out),
            )
    n_candidate = run.record["counts"]["candidates"] + (before["counts"]["candidates"] if before else 0)
    if n_candidate > MAX_CANDIDATES:
        raise ConfigError(
            "there are more candidates than one process makes a catalogue of; add --distributed",
            candidates=n_candidate,
            most=MAX_CANDIDATES,
        )
    rows = catalog_rows(run, radius_arcsec=radius_arcsec, acronym=acronym)
    if matching:
        rows = with_known_lenses(rows, matching.lenses, radius_arcsec=matching.radius_arcsec)
    n_new, n_merged = rows.num_rows, run.record["counts"]["candidates"] - rows.num_rows
    with names.replaced_folder(out, replace=replace or before is not None) as new:
        if before:
            result = append_rows(
                out / names.HATS, rows, new / names.HATS, name=out.name, radius_arcsec=radius_arcsec, max_rows=max_rows
            )
            n_new, n_merged = result.n_new, n_merged + result.n_merged
            rows = read_tree(new / names.HATS)
            rows = rows.take(pc.sort_indices(rows.select([k for k, _ in SORT_KEYS]), sort_keys=SORT_KEYS))
        else:
            write_tree(rows, new / names.HATS, name=out.name, max_rows=max_rows)
        facts = {"lenspipe": __version__, "run_id": run.run_id, "merge_radius_arcsec": f"{radius_arcsec:g}"}
        write_voparquet(rows, new / names.FLAT, name=out.name, description=DESCRIPTION, facts=facts)
        write_fits(rows, new / names.FITS, name="candidates", facts=facts)
        record = finish_catalog(
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
    return record


def read_tree(root: Path) -> pa.Table:
    """All rows of a HATS tree, by position."""
    schema = pq.read_schema(root / "dataset" / "_common_metadata")
    tables = [pq.read_table(root / "dataset" / p.path, partitioning=None).cast(schema) for p in read_pixels(root)]
    return pa.concat_tables([schema.empty_table(), *tables])
