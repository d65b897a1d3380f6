"""A run becomes a catalogue folder, or is added to one."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lenspipe import __version__
from lenspipe.catalog import folder as names
from lenspipe.catalog.append import append_rows, link_or_copy
from lenspipe.catalog.columns import bands_of
from lenspipe.catalog.footprint import footprint, read_footprint, write_footprint
from lenspipe.catalog.hats import MAX_ROWS, read_pixels, write_tree
from lenspipe.catalog.match import fates, recall, with_earlier_words, with_known_lenses
from lenspipe.catalog.run_rows import Run, catalogue_rows
from lenspipe.catalog.votable import write_fits, write_voparquet
from lenspipe.errors import ConfigError
from lenspipe.evaluate.calibrate import probability_record
from lenspipe.rundir import read_json, utc_now, write_json
from lenspipe.schema import field

DESCRIPTION = "Strong-lens candidates, one row an object; score is raw, probability is calibrated."
FULL_SKY_DEG2 = 41252.96125
SORT_KEYS = [("score", "descending"), ("candidate_id", "ascending"), ("run_id", "ascending")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matching:
    """Known lenses to match with."""

    source: str
    """What the list is called in the record."""
    lenses: pa.Table
    radius_arcsec: float
    trained_on: pa.Table | None = None


def write_catalogue(
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
        Before anything is written: ``out`` exists without ``append`` or is no catalogue (or one without a flat table,
        by Ray), the run is in it already, has other bands, was scored by another model, or the rows that are there
        were merged or matched otherwise.
    """
    names.put_back(out)
    before = _record_of(out) if append and out.exists() else None
    if before:
        _check_append(run, out, before, radius_arcsec=radius_arcsec, matching=matching, other_model=other_model)
    rows = catalogue_rows(run, radius_arcsec=radius_arcsec, acronym=acronym)
    if matching:
        rows = with_known_lenses(rows, matching.lenses, radius_arcsec=matching.radius_arcsec)
    searched, tiles, moc = with_run_id(run.shards, run.run_id), tiles_of(run), footprint(run.shards)
    n_merged = run.record["counts"]["candidates"] - rows.num_rows
    added = {"rows": rows.num_rows, "merged": n_merged}
    with names.replaced_folder(out, replace=replace or before is not None) as new:
        if before:
            result = append_rows(
                out / names.HATS, rows, new / names.HATS, name=out.name, radius_arcsec=radius_arcsec, max_rows=max_rows
            )
            rows = read_tree(new / names.HATS)
            rows = rows.take(pc.sort_indices(rows.select([k for k, _ in SORT_KEYS]), sort_keys=SORT_KEYS))
            added = {"rows": result.n_new, "merged": n_merged + result.n_merged}
            searched = pa.concat_tables([pq.read_table(out / names.SHARDS), searched])
            tiles = pa.concat_tables([pq.read_table(out / names.TILES), tiles])
            moc = read_footprint(out / names.FOOTPRINT).union(moc)
        else:
            write_tree(rows, new / names.HATS, name=out.name, max_rows=max_rows)
        facts = {"lenspipe": __version__, "run_id": run.run_id, "merge_radius_arcsec": f"{radius_arcsec:g}"}
        write_voparquet(rows, new / names.FLAT, name=out.name, description=DESCRIPTION, facts=facts)
        write_fits(rows, new / names.FITS, name="candidates", facts=facts)
        pq.write_table(searched, new / names.SHARDS, compression="zstd")
        pq.write_table(tiles, new / names.TILES, compression="zstd")
        write_footprint(moc, new / names.FOOTPRINT)
        found = None
        if matching:
            table = fates(
                rows, matching.lenses, moc, radius_arcsec=matching.radius_arcsec, trained_on=matching.trained_on
            )
            if before and (out / names.KNOWN_LENSES).exists():
                table = with_earlier_words(table, pq.read_table(out / names.KNOWN_LENSES))
            pq.write_table(table, new / names.KNOWN_LENSES, compression="zstd")
            found = recall(table)
        kept = {
            "rows": rows.num_rows,
            "scored_rows": rows.num_rows - rows["score"].null_count,
            "detections": pc.sum(rows["n_detection"]).as_py() or 0,
        }
        record = provenance(run, before, kept, added, searched, radius_arcsec, acronym, matching, found)
        record["area"]["footprint_deg2"] = moc.sky_fraction * FULL_SKY_DEG2
        write_json(new / names.PROVENANCE, record)
        if before:
            _carry_over(out, new)
    return record


def read_tree(root: Path) -> pa.Table:
    """All rows of a HATS tree, by position."""
    schema = pq.read_schema(root / "dataset" / "_common_metadata")
    tables = [pq.read_table(root / "dataset" / p.path, partitioning=None).cast(schema) for p in read_pixels(root)]
    return pa.concat_tables([schema.empty_table(), *tables])


def _record_of(out: Path) -> dict[str, Any]:
    path = out / names.PROVENANCE
    if not path.exists():
        raise ConfigError("the folder holds no catalogue; choose another --out", out=str(out))
    record: dict[str, Any] = read_json(path)
    return record


def _check_append(
    run: Run, out: Path, before: dict[str, Any], *, radius_arcsec: float, matching: Matching | None, other_model: bool
) -> None:
    if not (out / names.FLAT).exists():
        raise ConfigError(
            "the catalogue was written by --distributed and cannot be added to; give the run a catalogue of its own",
            out=str(out),
        )
    if any(r["run_id"] == run.run_id for r in before["runs"]):
        raise ConfigError(
            "the run is in the catalogue already; if it was resumed since, write the catalogue anew without --append",
            run=str(run.folder), out=str(out),
        )  # fmt: skip
    bands = bands_of(pq.read_schema(out / names.FLAT))
    if bands != run.bands:
        raise ConfigError(
            "the run has other bands than the catalogue; give it a catalogue of its own",
            catalogue=" ".join(bands), run=" ".join(run.bands),
        )  # fmt: skip
    if before["merge_radius_arcsec"] != radius_arcsec:
        raise ConfigError(
            "the catalogue was merged with another radius; append with the same --radius",
            catalogue=before["merge_radius_arcsec"], got=radius_arcsec,
        )  # fmt: skip
    known = before["known_lenses"]
    was = "none" if known is None else f"{known['list']} within {known['radius_arcsec']:g} arcsec"
    now = "none" if matching is None else f"{matching.source} within {matching.radius_arcsec:g} arcsec"
    if was != now:
        raise ConfigError(
            "the rows that are there were matched with other known lenses; append with the same --match and "
            "--match-radius", catalogue=was, got=now,
        )  # fmt: skip
    digests = {r["model"]["digest"] if r["model"] else None for r in before["runs"]}
    if digests != {run.model_digest} and not other_model:
        raise ConfigError(
            "the catalogue was scored by another model, and scores of two models cannot be compared; "
            "scan with the same model, or add --allow-other-model",
            catalogue=", ".join(sorted(str(d) for d in digests)), run=run.model_digest,
        )  # fmt: skip


def with_run_id(shards: pa.Table, run_id: str) -> pa.Table:
    """Rows with the run that they come from as first column."""
    about = field("run_id", pa.string(), "Digest of the request, plan and model of the run", ucd="meta.id;meta.dataset")
    return shards.add_column(0, about, pa.array([run_id] * shards.num_rows, pa.string()))


def tiles_of(run: Run) -> pa.Table:
    """Files of each tile, as the plan has them; what pictures are cut from."""
    plan = run.plan.filter(pc.is_valid(run.plan["shard_id"]))
    tiles = (
        plan.group_by("tile", use_threads=False)
        .aggregate([("files", "first")])
        .rename_columns(["tile", "files"])
        .sort_by("tile")
    )
    return with_run_id(tiles, run.run_id)


def provenance(
    run: Run, before: dict[str, Any] | None, kept: dict[str, int], added: dict[str, int], searched: pa.Table,
    radius_arcsec: float, acronym: str, matching: Matching | None, found: dict[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
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
        As in `write_catalogue`.
    found : dict or None
        Recall of known lenses.
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
        "assumptions",
        "inputs",
    )
    entry = {
        "run_id": run.run_id,
        "folder": str(run.home),
        **{key: run.record.get(key) for key in keys},
        "counts": {**run.record["counts"], **added},
    }
    runs = [*(before["runs"] if before else []), entry]
    totals = {k: sum(r["counts"][k] for r in runs) for k in ("tiles", "shards", "shards_ok", "sources", "candidates")}
    totals |= {"merged": totals["candidates"] - kept["rows"], "rows": kept["rows"]}
    totals["scored_rows"] = kept["scored_rows"]
    detections = kept["detections"]
    merged = sum(r["counts"]["merged"] for r in runs)
    if detections != totals["candidates"] or merged != totals["merged"]:
        raise RuntimeError(f"the counts do not add up: {detections} detections, {merged} merged, {totals}")
    return {
        "format_version": 1,
        "written": utc_now(),
        "lenspipe": __version__,
        "merge_radius_arcsec": radius_arcsec,
        "acronym": acronym,
        "probability": _probability(runs),
        "known_lenses": None
        if matching is None
        else {"list": matching.source, "radius_arcsec": matching.radius_arcsec, "recall": found},
        "area": {"sum_of_shards_deg2": pc.sum(searched["area_deg2"]).as_py() or 0.0},
        "counts": totals,
        "runs": runs,
    }


def _probability(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the runs say about their probabilities; where they differ, all of it, and no word for the whole."""
    stated = [r["probability"] or probability_record(None, None) for r in runs]
    distinct = [s for i, s in enumerate(stated) if s not in stated[:i]]
    if len(distinct) == 1:
        return distinct[0]
    return {
        "prior": None, "calibration": None, "of_runs": distinct,
        "why": "the runs differ; the columns prior and calibration say what holds for a row",
    }  # fmt: skip


def _carry_over(out: Path, new: Path) -> None:
    """What else the old folder holds (a gallery) goes with it."""
    for entry in out.iterdir():
        target = new / entry.name
        if target.exists() or entry.name == names.KNOWN_LENSES or entry.name.startswith("."):
            continue  # a dot begins what a killed writer left
        if entry.is_dir():
            shutil.copytree(entry, target, copy_function=lambda a, b: link_or_copy(Path(a), Path(b)))
        else:
            link_or_copy(entry, target)
