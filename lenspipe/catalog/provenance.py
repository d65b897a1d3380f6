"""What a catalogue is made of: its record, and what may be added to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lenspipe import __version__
from lenspipe.catalog import folder as names
from lenspipe.catalog.columns import CONTAMINANT, added_columns, bands_of
from lenspipe.catalog.records import catalog_record
from lenspipe.catalog.run_rows import Run, same_files
from lenspipe.catalog.vectors import check_same_embedding
from lenspipe.errors import ConfigError
from lenspipe.rundir import utc_now
from lenspipe.schema import substructure_fields
from lenspipe.stats.calibrate import probability_record
from lenspipe.tables import read_schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matching:
    """Known lenses, and contaminants, to match with."""

    source: str
    """What the list is called in the record."""
    lenses: pa.Table
    radius_arcsec: float
    trained_on: pa.Table | None = None
    contaminants: pa.Table | None = None
    contaminants_source: str = ""

    @property
    def added(self) -> tuple[pa.Field, ...]:
        """Columns that it adds to a catalogue."""
        return () if self.contaminants is None else CONTAMINANT

    @property
    def text(self) -> str:
        """What is matched with what."""
        beside = f" and contaminants of {self.contaminants_source}" if self.contaminants_source else ""
        return f"{self.source}{beside} within {self.radius_arcsec:g} arcsec"


def record_of(out: Path) -> dict[str, Any]:
    """Record of the catalogue in a folder."""
    path = out / names.PROVENANCE
    if not path.exists():
        raise ConfigError("the folder holds no catalogue; choose another --out", out=str(out))
    return catalog_record(path)


def check_append(
    run: Run, out: Path, before: dict[str, Any], *, radius_arcsec: float, matching: Matching | None, other_model: bool
) -> None:
    """
    Refuse a run that cannot be added to the catalogue in ``out``.

    Raises
    ------
    ConfigError
        The run is in it already, whole or in part, has other bands or columns, was scored by another model, or the rows
        that are there were merged or matched otherwise.
    """
    if any(_holds(entry, run) for entry in before["runs"]):
        raise ConfigError(
            "the run is in the catalogue already; if it was resumed since, give --update in place of --append",
            run=str(run.folder),
            out=str(out),
        )
    bands = bands_of(read_schema(out / names.HATS / "dataset" / "_common_metadata"))
    if bands != run.bands:
        raise ConfigError(
            "the run has other bands than the catalogue; give it a catalogue of its own",
            catalogue=" ".join(bands),
            run=" ".join(run.bands),
        )
    if before["merge_radius_arcsec"] != radius_arcsec:
        raise ConfigError(
            "the catalogue was merged with another radius; append with the same --radius",
            catalogue=before["merge_radius_arcsec"],
            got=radius_arcsec,
        )
    check_matching(before, matching)
    check_same_embedding(run.record, before["runs"])
    digests = {r["model"]["digest"] if r["model"] else None for r in before["runs"]}
    check_model(run, digests, other_model=other_model)
    added = {f.name for f in added_of(out, bands)}
    expected = {f.name for f in (*run.added, *(matching.added if matching else ()))}
    if added - expected - _unfilled(before) or expected - added:
        raise ConfigError(
            "the models of the run fill other columns than the catalogue has; give it a catalogue of its own",
            catalogue=" ".join(sorted(added)),
            run=" ".join(sorted(expected)),
        )


def check_model(run: Run, digests: set[str | None], *, other_model: bool) -> None:
    """Raise `ConfigError` where other models than the run's scored the runs beside it, unless ``other_model``."""
    if digests - {run.model_digest} and not other_model:
        raise ConfigError(
            "the catalogue was scored by another model, and scores of two models cannot be compared; "
            "scan with the same model, or add --allow-other-model",
            catalogue=", ".join(sorted(str(d) for d in digests)),
            run=run.model_digest,
        )


def added_of(out: Path, bands: tuple[str, ...]) -> list[pa.Field]:
    """Columns of the catalogue in a folder that its models and lists have added."""
    return added_columns(read_schema(out / names.HATS / "dataset" / "_common_metadata"), bands)


def _unfilled(before: dict[str, Any]) -> set[str]:
    """Columns of substructure in the catalogue of an older version where no run has looked for it: all null."""
    looked = any(
        run.get("request", {}).get("config", {}).get("substructure", {}).get("models") for run in before["runs"]
    )
    return set() if looked else {f.name for f in substructure_fields()}


def check_matching(before: dict[str, Any], matching: Matching | None) -> None:
    """Raise `ConfigError` where a catalogue was matched with other known lenses or contaminants than now."""
    known = before["known_lenses"]
    beside = f" and contaminants of {known['contaminants']}" if known and known.get("contaminants") else ""
    was = "none" if known is None else f"{known['list']}{beside} within {known['radius_arcsec']:g} arcsec"
    now = "none" if matching is None else matching.text
    if was != now:
        raise ConfigError(
            "the rows that are there were matched with other known lenses; give the same --match, --contaminants and "
            "--match-radius",
            catalogue=was,
            got=now,
        )


def _holds(entry: dict[str, Any], run: Run) -> bool:
    """Whether an entry of a record is the run, a part of it or what it was before a resume."""
    # before request_id was written, run_id was what it is now
    same_request = entry.get("request_id", entry["run_id"]) == run.request_id
    return same_request and same_files(entry["inputs"] or [], run.record.get("inputs", []))


def provenance(
    run: Run,
    before: dict[str, Any] | None,
    kept: dict[str, int],
    added: dict[str, int],
    searched: pa.Table,
    radius_arcsec: float,
    acronym: str,
    matching: Matching | None,
    found: dict[str, Any] | None,
    catalogue_id: str,
) -> dict[str, Any]:
    """
    What a catalogue is made of, with counts that add up.

    Parameters
    ----------
    run : Run
        Run that is added.
    before : dict or None
        Record of the catalogue that it is added to.
    kept : dict
        ``rows``, ``scored_rows`` and ``detections`` (the sum of ``n_detection``) of the whole catalogue.
    added : dict
        ``rows`` and ``merged`` of this run.
    searched : pa.Table
        Shards of all runs.
    radius_arcsec, acronym, matching
        As in `write_catalog`.
    found : dict or None
        Recall of known lenses.
    catalogue_id : str
        What the catalogue is known by, whatever becomes of its runs.
    """
    keys = (
        "started",
        "finished",
        "status",
        "request",
        "versions",
        "bands",
        "model",
        "no_model",
        "probability",
        "embedder",
        "anomalies",
        "familiarity",
        "assumptions",
        "magnitudes",
        "inputs",
    )
    entry = {
        "run_id": run.run_id,
        "request_id": run.request_id,
        "folder": str(run.home),
        **{key: run.record.get(key) for key in keys},
        "counts": {**run.record["counts"], **added},
    }
    runs = [*(before["runs"] if before else []), entry]
    totals = {k: sum(r["counts"][k] for r in runs) for k in ("tiles", "shards", "shards_ok", "sources", "candidates")}
    removed = (before or {}).get("removed") or {"rows": 0, "detections": 0}
    totals |= {"merged": totals["candidates"] - kept["rows"] - removed["rows"], "rows": kept["rows"]}
    totals["scored_rows"] = kept["scored_rows"]
    detections = kept["detections"] + removed["detections"]
    merged = sum(r["counts"]["merged"] for r in runs)
    if detections != totals["candidates"] or merged != totals["merged"]:
        raise RuntimeError(f"the counts do not add up: {detections} detections, {merged} merged, {totals}")
    return {
        "format_version": 1,
        "catalogue_id": catalogue_id,
        "written": utc_now(),
        "lenspipe": __version__,
        "merge_radius_arcsec": radius_arcsec,
        "acronym": acronym,
        "probability": _probability(runs),
        "known_lenses": None
        if matching is None
        else {
            "list": matching.source,
            "radius_arcsec": matching.radius_arcsec,
            "recall": found,
            "contaminants": matching.contaminants_source or None,
        },
        "area": {"sum_of_shards_deg2": pc.sum(searched["area_deg2"]).as_py() or 0.0},
        "counts": totals,
        **({"removed": removed} if removed["rows"] else {}),
        "runs": runs,
    }


def _probability(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the runs say about their probabilities; where they differ, all of it, and no word for the whole."""
    stated = [r["probability"] or probability_record(None, None) for r in runs]
    distinct = [s for i, s in enumerate(stated) if s not in stated[:i]]
    if len(distinct) == 1:
        return distinct[0]
    return {
        "prior": None,
        "calibration": None,
        "of_runs": distinct,
        "why": "the runs differ; the columns prior and calibration say what holds for a row",
    }
