"""The last step of a scan: its catalogue, beside its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe.catalog.folder import PROVENANCE
from lenspipe.catalog.known import read_known_lenses
from lenspipe.catalog.provenance import Matching
from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.write import write_catalog
from lenspipe.rundir import read_json
from lenspipe.scan.after.known import examine_absent
from lenspipe.scan.config import CatalogSettings

FOLDER = "catalog"
MAX_ROWS_IN_MEMORY = 2_000_000
"""Candidates that a scan makes a catalogue of by itself; it takes about 1 GiB for a million (docs/catalog.md)."""
MAX_EXAMINED = 50
"""Known lenses that are no candidates, up to which a scan measures their shards again before it ends."""


def matching_of(settings: CatalogSettings) -> Matching | None:
    """The known lenses that settings name, read."""
    if not settings.lists:
        return None
    return Matching(
        source=", ".join(settings.lists),
        lenses=pa.concat_tables([read_known_lenses(file) for file in settings.lists]),
        radius_arcsec=settings.match_radius_arcsec,
        trained_on=read_known_lenses(settings.trained_on) if settings.trained_on else None,
    )


def catalog_run(run: Path) -> dict[str, Any] | None:
    """
    Write ``run/catalog`` by the defaults, or leave it as it is where it holds all that the run holds.

    Returns
    -------
    dict or None
        The catalogue's record; None where the run has more candidates than `MAX_ROWS_IN_MEMORY`.
    """
    settings = CatalogSettings()
    opened, out = open_run_folder(run), run / FOLDER
    if opened.record["counts"]["candidates"] > MAX_ROWS_IN_MEMORY:
        return None
    if (out / PROVENANCE).exists():
        before: dict[str, Any] = read_json(out / PROVENANCE)
        counts = before["runs"][0]["counts"]
        if before["runs"][0]["run_id"] == opened.run_id and opened.record["counts"].items() <= counts.items():
            return before
    record = write_catalog(
        opened,
        out,
        radius_arcsec=settings.radius_arcsec,
        acronym=settings.acronym,
        matching=matching_of(settings),
        replace=True,
    )
    if (known := record["known_lenses"]) and n_absent(known["recall"]) <= MAX_EXAMINED:
        record = examine_absent(opened, out, record)
    return record


def n_absent(recall: dict[str, Any]) -> int:
    """Known lenses inside the footprint that are no candidates."""
    return int(recall["counted"] - recall["candidates"])
