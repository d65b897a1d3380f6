"""A run becomes a catalogue folder, or is added to one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe import __version__
from lenspipe.catalog import folder as names
from lenspipe.catalog.collection import write_collection
from lenspipe.catalog.columns import catalog_schema
from lenspipe.catalog.executor import Executor, Here
from lenspipe.catalog.finish import finish_catalog
from lenspipe.catalog.hats import MAX_ROWS, read_pixels
from lenspipe.catalog.order import best_first
from lenspipe.catalog.provenance import Matching, added_of, check_append, record_of
from lenspipe.catalog.records import lasting_id
from lenspipe.catalog.run_rows import Entries, Run, traces_of
from lenspipe.catalog.sources import run_groups
from lenspipe.catalog.summary import write_summary
from lenspipe.catalog.tree import TreeWriter
from lenspipe.catalog.vectors import EMBEDDINGS, write_vectors
from lenspipe.catalog.versions import keep_version
from lenspipe.catalog.votable import write_fits, write_voparquet
from lenspipe.disk import locked_beside, put_back, replaced_folder
from lenspipe.errors import ConfigError
from lenspipe.runner import SILENT, Progress, Start, here
from lenspipe.tables import read_footer, read_parquet, read_schema

DESCRIPTION = "Strong-lens candidates, one row per object; score is raw, probability is calibrated."
MAX_CANDIDATES = 20_000_000
"""Detections of which one process makes a catalogue: columns of words end at 2 GiB, which is 30 million checksums."""
OF_THE_RUN, SCRATCH = ".run", ".made"
PLAIN: Start[Executor] = here(Here())


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
    executor: Start[Executor] = PLAIN,
    flat: bool = True,
    versions: bool = True,
    last: Callable[[Path, dict[str, Any]], dict[str, Any]] = lambda new, record: record,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """
    Write the catalogue of a run, or add the run to one.

    Parameters
    ----------
    run : Run
    out : Path
        Folder of the catalogue, on a disk that all tasks of the executor see; appears, or changes, as a whole.
    radius_arcsec : float
        Radius within which rows of different shards are one object.
    acronym : str
        Leading word of the names.
    matching : Matching or None
        Known lenses, and contaminants, to match with.
    append : bool
        Add to the catalogue in ``out``.
    replace : bool
        Put the new catalogue in the place of the one in ``out``.
    other_model : bool
        Add although another model scored the rows that are there.
    max_rows : int
        Rows of a HATS pixel; before they are merged where ``flat`` is not set.
    executor : Start, optional
        What carries out the tasks; this process by default.
    flat : bool
        Write tables of all rows too, which takes an executor that holds all rows in one task.
    versions : bool
        With ``append``, keep the catalogue as it was as a version (`lenspipe.catalog.versions`).
    last : callable
        Given the finished folder, before it takes the place of ``out``, and its record; gives the record as it is then.
    progress : Progress, optional

    Returns
    -------
    dict
        The record that is written as ``provenance.json``.

    Raises
    ------
    ConfigError
        Before anything is written: there are more than `MAX_CANDIDATES`, ``out`` exists without ``append`` or is no
        catalogue (or one without the flat table that is to be added to), the run is in it already, has other bands,
        was scored by another model, or the rows that are there were merged or matched otherwise.
    """
    with locked_beside(out):  # from the reading of the record to the last rename
        put_back(out, ours=names.CATALOG_FILE.fullmatch)
        before = record_of(out) if append and out.exists() else None
        ours = _anything if before else names.CATALOG_FILE.fullmatch
        if before:
            check_append(run, out, before, radius_arcsec=radius_arcsec, matching=matching, other_model=other_model)
        if flat:
            _check_flat(run, out, before)
        beside = tuple(added_of(out, run.bands)) if before else (*run.added, *(matching.added if matching else ()))
        schema, sources = catalog_schema(run.bands, beside), run_groups(run)
        lenses, radius = (matching.lenses, matching.radius_arcsec) if matching else (None, 0.0)
        contaminants = matching.contaminants if matching else None
        finish = Entries(traces_of(run), run.bands, acronym, lenses, radius, beside, contaminants)
        with replaced_folder(out, replace=replace or before is not None, ours=ours) as new, executor() as tasks:
            writer = TreeWriter(
                name=out.name, radius_arcsec=radius_arcsec, max_rows=max_rows, executor=tasks, progress=progress
            )
            if before and versions:
                keep_version(out, new)
            if before:
                added, n_own = writer.merge(sources, schema=schema, finish=finish, scratch=new / OF_THE_RUN)
                result = writer.append(out / names.HATS, added, new / names.HATS)
                shutil.rmtree(new / OF_THE_RUN, ignore_errors=True)
                n_new, n_merged = result.n_new, result.n_merged
                rows = None
            else:
                pixels, rows = writer.write(sources, new / names.HATS, schema=schema, finish=finish)
                n_own = n_new = sum(read_footer(new / names.HATS / "dataset" / p.path).num_rows for p in pixels)
                n_merged = 0
            n_merged += run.record["counts"]["candidates"] - n_own
            run_file = run.folder / EMBEDDINGS
            there, old = run_file.exists(), out / names.VECTORS
            if there or (before and old.exists()):
                write_vectors(
                    new / names.HATS,
                    new / names.VECTORS,
                    run_id=run.run_id,
                    run_file=run_file.absolute() if there else None,
                    old=old if before and old.exists() else None,
                    name=out.name,
                    executor=tasks,
                    scratch=new / OF_THE_RUN,
                )
                shutil.rmtree(new / OF_THE_RUN, ignore_errors=True)
            write_collection(new, name=out.name, executor=tasks, scratch=new / OF_THE_RUN)
            if flat:
                write_flat(new, rows, run.run_id, name=out.name, radius_arcsec=radius_arcsec)
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
                catalogue_id=_id_of(out, run),
            )
            record = last(new, record)
            write_summary(new, record, name=out.name)
            return record


def _id_of(out: Path, run: Run) -> str:
    """What the catalogue is known by: what it was, or its first run."""
    try:
        return lasting_id(record_of(out))
    except ConfigError:  # there is none yet, or it is damaged and being replaced
        return run.run_id


def _anything(path: str) -> bool:
    """Of a catalogue that a run is added to, all that is in its folder goes on in the new one."""
    return True


def _check_flat(run: Run, out: Path, before: dict[str, Any] | None) -> None:
    if before and not (out / names.FLAT).exists():
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


def write_flat(new: Path, rows: pa.Table | None, run_id: str, *, name: str, radius_arcsec: float) -> None:
    """Write the tables of all rows, best first, naming the last run; rows of the tree where none are given."""
    if rows is None:
        rows = read_tree(new / names.HATS)
        rows = rows.take(best_first(rows))
    facts = {"lenspipe": __version__, "run_id": run_id, "merge_radius_arcsec": f"{radius_arcsec:g}"}
    write_voparquet(rows, new / names.FLAT, name=name, description=DESCRIPTION, facts=facts)
    write_fits(rows, new / names.FITS, name="candidates", facts=facts)


def read_tree(root: Path) -> pa.Table:
    """All rows of a HATS tree, by position."""
    schema = read_schema(root / "dataset" / "_common_metadata")
    tables = [read_parquet(root / "dataset" / p.path).cast(schema) for p in read_pixels(root)]
    return pa.concat_tables([schema.empty_table(), *tables])
