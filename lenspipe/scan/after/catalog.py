"""The last step of a scan: its catalogue, beside its tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe.catalog.folder import PROVENANCE
from lenspipe.catalog.known import SCHEMA, read_known_lenses, read_positions
from lenspipe.catalog.magnitudes import magnitude_differences
from lenspipe.catalog.provenance import Matching
from lenspipe.catalog.records import catalog_record
from lenspipe.catalog.run_rows import Run, open_run_folder
from lenspipe.catalog.write import write_catalog
from lenspipe.disk import locked_beside
from lenspipe.errors import ConfigError
from lenspipe.rundir import read_json, write_json
from lenspipe.scan.after.known import examine_absent
from lenspipe.scan.config import CatalogSettings
from lenspipe.scan.finalize import CANDIDATES
from lenspipe.tables import open_parquet

FOLDER, RUN = "catalog", "run.json"
MAX_ROWS_IN_MEMORY = 2_000_000
"""Candidates that a scan makes a catalogue of by itself; it takes about 1 GiB for a million (docs/catalog.md)."""
MAX_COMPARED = 1_000_000
"""Candidates, the best first, whose magnitudes are compared with a list's."""
MAX_EXAMINED = 50
"""Known lenses that are no candidates, up to which a scan measures their shards again before it ends."""


def matching_of(settings: CatalogSettings) -> Matching | None:
    """The known lenses and contaminants that settings name, read."""
    if not (settings.lists or settings.contaminants):
        return None
    others = [read_known_lenses(file) for file in settings.contaminants]
    return Matching(
        source=", ".join(settings.lists) or "no lens",
        lenses=pa.concat_tables([SCHEMA.empty_table(), *map(read_known_lenses, settings.lists)]),
        contaminants=pa.concat_tables(others) if others else None,
        contaminants_source=", ".join(settings.contaminants),
        radius_arcsec=settings.match_radius_arcsec,
        trained_on=read_known_lenses(settings.trained_on) if settings.trained_on else None,
    )


def compare_magnitudes(run: Run, lists: Sequence[str]) -> None:
    """
    Compare the run's magnitudes with those of lists that have any; the result goes into its record and ``run.json``.

    `lenspipe.catalog.magnitudes.magnitude_lines` says it.
    """
    columns = ["ra", "dec", *(f"mag_{band}" for band in run.bands)]
    files = [file for file in lists if file != "lenscat"]  # which has none
    found = {}
    if files:
        candidates = open_parquet(run.folder / CANDIDATES)
        first = itertools.islice(candidates.iter_batches(MAX_COMPARED, columns=columns), 1)
        ours = pa.Table.from_batches(first, pa.schema([candidates.schema_arrow.field(name) for name in columns]))
        found = {file: magnitude_differences(ours, read_positions(file), run.bands) for file in files}
    run.record["magnitudes"] = {file: by_band for file, by_band in found.items() if by_band}
    if files:
        write_json(run.folder / RUN, read_json(run.folder / RUN) | {"magnitudes": run.record["magnitudes"]})


def catalog_run(run: Path, lists: Sequence[str] = ()) -> dict[str, Any] | None:
    """
    Write ``run/catalog`` by the defaults, or leave it as it is where it holds all that the run holds.

    Parameters
    ----------
    run : Path
        A finished run.
    lists : sequence of str
        Lists to match with, in place of the default.

    Returns
    -------
    dict or None
        The catalogue's record; None where the run has more candidates than `MAX_ROWS_IN_MEMORY`.
    """
    settings = CatalogSettings(lists=tuple(lists)) if lists else CatalogSettings()
    opened, out = open_run_folder(run), run / FOLDER
    if opened.record["counts"]["candidates"] > MAX_ROWS_IN_MEMORY:
        return None
    with locked_beside(out):
        return _catalog(opened, out, settings)


def catalogue_of(folder: Path) -> Path:
    """
    The catalogue that a folder is, or that a run has; of a finished run without one it is written by the defaults.

    Raises
    ------
    ConfigError
        The run has not ended, or holds more candidates than `MAX_ROWS_IN_MEMORY` and no catalogue.
    """
    if not (folder / RUN).exists() or (folder / FOLDER / PROVENANCE).exists():
        return folder / FOLDER if (folder / RUN).exists() else folder
    if catalog_run(folder) is None:
        raise ConfigError(
            "the run has no catalogue and is too large to make one of here; give `lenspipe catalog RUN --out CATALOGUE "
            "--distributed`, then the page of that",
            run=str(folder),
        )
    return folder / FOLDER


def _catalog(opened: Run, out: Path, settings: CatalogSettings) -> dict[str, Any]:
    if (out / PROVENANCE).exists():
        before = catalog_record(out / PROVENANCE)
        counts = before["runs"][0]["counts"]
        known = (before["known_lenses"] or {}).get("list")
        same = before["runs"][0]["run_id"] == opened.run_id and known == (", ".join(settings.lists) or None)
        if same and opened.record["counts"].items() <= counts.items():
            return before
    compare_magnitudes(opened, settings.lists)
    return write_catalog(
        opened,
        out,
        radius_arcsec=settings.radius_arcsec,
        acronym=settings.acronym,
        matching=matching_of(settings),
        replace=True,
        last=partial(_examine_some, opened),
    )


def _examine_some(opened: Run, new: Path, record: dict[str, Any]) -> dict[str, Any]:
    known = record["known_lenses"]
    return examine_absent(opened, new, record) if known and n_absent(known["recall"]) <= MAX_EXAMINED else record


def n_absent(recall: dict[str, Any]) -> int:
    """Known lenses inside the footprint that are no candidates."""
    return int(recall["counted"] - recall["candidates"])
