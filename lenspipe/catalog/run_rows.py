"""From a finished run folder to catalogue rows: traced, merged, ranked, named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.catalog.columns import added_columns, catalog_schema
from lenspipe.catalog.match import with_contaminants, with_known_lenses
from lenspipe.catalog.names import iau_names
from lenspipe.catalog.records import run_record
from lenspipe.errors import ConfigError, DataError
from lenspipe.schema import substructure_fields
from lenspipe.store.place import shown
from lenspipe.store.urls import is_url
from lenspipe.tables import demand_columns, read_parquet, read_schema, whole_table


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run folder, opened: its record and what identifies it."""

    folder: Path
    """Where its tables are."""
    run_id: str
    """Of what it holds (`run_id_of`)."""
    request_id: str
    """Of what it was asked for (`request_id_of`)."""
    record: dict[str, Any]
    bands: tuple[str, ...]
    shards: pa.Table
    plan: pa.Table

    @property
    def home(self) -> str:
        """Its lasting folder or URL, which a catalogue names: of a part that was taken of a run, the run's own."""
        part_of = self.record.get("part_of")
        return part_of if part_of and is_url(part_of) else shown(str(Path(part_of or self.folder).absolute()))

    @property
    def model_digest(self) -> str | None:
        """Digest of the model that scored; None where none did."""
        return self.record["model"]["digest"] if self.record["model"] else None

    @property
    def added(self) -> tuple[pa.Field, ...]:
        """
        Columns of its candidates that its models have added to those of every run.

        Runs of older versions have those of substructure, all null, where nothing looked for it; these do not count.
        """
        found = added_columns(read_schema(self.folder / "candidates.parquet"), self.bands)
        unfilled = set() if self.record.get("substructure") else {f.name for f in substructure_fields()}
        return tuple(f for f in found if f.name not in unfilled)


def open_run_folder(folder: Path) -> Run:
    """
    Open the folder of a run that is through.

    Raises
    ------
    ConfigError
        The folder holds no run, or one that has not ended; what is missing is said.
    """
    path = folder / "run.json"
    if not folder.exists():
        raise ConfigError("no such folder", run=str(folder))
    if not path.exists():
        raise ConfigError("not a run folder: it has no run.json; name the --out of a scan", run=str(folder))
    record = run_record(path)
    if record["status"] == "running":
        raise ConfigError(
            "the run has not ended; finish it with `lenspipe scan ... --resume`, or take what is done by --partial",
            run=str(folder),
        )
    plan = read_parquet(folder / "plan.parquet")
    demand_columns(plan, folder / "plan.parquet", words=("tile", "shard_id", "files"))
    _demand_boxes(plan, folder / "plan.parquet")
    found = folder / "candidates.parquet"
    demand_columns(read_schema(found), found, words=("candidate_id", "shard_id", "tile"), numbers=_PLACE)
    request_id = record.get("request_id") or request_id_of(record, plan)  # a part of a run has the whole run's
    run_id = run_id_of(request_id, record.get("inputs", []))
    planned = (plan.schema.metadata or {}).get(b"bands")
    if planned is not None and json.loads(planned) != record["bands"]:
        raise ConfigError(
            "the run's record and its plan are of other bands: one of the two was replaced; take both from a copy",
            file=str(path),
            bands=" ".join(record["bands"]),
            of_plan=planned.decode(),
        )
    shards = read_parquet(folder / "shards.parquet")
    demand_columns(shards, folder / "shards.parquet", words=("shard_id", "status"), numbers=("area_deg2",))
    return Run(folder, run_id, request_id, record, tuple(record["bands"]), shards, plan)


_PLACE = ("ra", "dec", "x_px", "y_px", "score")


def _demand_boxes(plan: pa.Table, file: Path) -> None:
    """Raise `DataError` where a shard of a plan has no core or window of four whole numbers."""
    for name in ("core", "window"):
        boxes = plan[name].combine_chunks() if name in plan.column_names else None
        if boxes is None or not (pa.types.is_list(boxes.type) or pa.types.is_fixed_size_list(boxes.type)):
            raise DataError("the table lacks a column of boxes", file=str(file), column=name)
        there = boxes.filter(pc.is_valid(plan["shard_id"]).combine_chunks())
        whole = pa.types.is_integer(boxes.type.value_type) and not there.null_count
        if not (whole and pc.all(pc.equal(pc.list_value_length(there), 4)).as_py() is not False):
            raise DataError("a shard has no box of four whole numbers", file=str(file), column=name)


def request_id_of(record: dict[str, Any], plan: pa.Table) -> str:
    """
    Digest of what a run was asked for: its request, shards and model; one for a run, its parts and its resumed form.

    Returns
    -------
    str
        12 hex digits.
    """
    model = record["model"]["digest"] if record["model"] else None
    shards = sorted(i for i in plan["shard_id"].to_pylist() if i)
    return _digest([record["request"], shards, model])


def run_id_of(request_id: str, inputs: list[dict[str, Any]]) -> str:
    """
    Digest of what a run holds: what it was asked for and the checksums of the files that it read.

    It is the same before and after a resume, unless that reads files that failed before.

    Returns
    -------
    str
        12 hex digits.
    """
    return _digest([request_id, sorted({(item["file"], item["checksum"]) for item in inputs})])


def same_files(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> bool:
    """Whether no file that both have read had another content."""
    was = {item["file"]: item["checksum"] for item in one}
    return all(was.get(item["file"], item["checksum"]) == item["checksum"] for item in two)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def ranked(rows: pa.Table, *, run_id: str, begun: int) -> pa.Table:
    """
    Candidates that follow each other in a run's file, which is sorted by score, with what merging asks for.

    Parameters
    ----------
    rows : pa.Table
        Some candidates; a score that is NaN becomes null.
    run_id : str
        Of `Run`.
    begun : int
        Rows of the file before them. ``rank`` counts on from it: it is the place among all candidates of the run, null
        without a score, so merging leaves gaps.

    Returns
    -------
    pa.Table
        With ``run_id``, ``n_detection`` (1) and ``rank``.
    """
    n = rows.num_rows
    score = pc.if_else(pc.is_nan(rows["score"]), None, rows["score"])
    rows = rows.set_column(rows.schema.get_field_index("score"), "score", score)
    rank = pa.array(np.arange(begun + 1, begun + n + 1), mask=score.is_null().to_numpy())
    return (
        rows.append_column("run_id", pa.array([run_id]).take(pa.array(np.zeros(n, np.int64))))
        .append_column("n_detection", pa.array(np.ones(n, np.int32)))
        .append_column("rank", rank)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Entries:
    """Makes catalogue entries of merged candidates: named, traced to their pixels, matched with known lenses."""

    traces: pa.Table
    """From `traces_of`."""
    bands: tuple[str, ...]
    acronym: str
    """Leading word of the names."""
    lenses: pa.Table | None = None
    """Known lenses to match with."""
    match_radius_arcsec: float = 0.0
    added: tuple[pa.Field, ...] = ()
    """Columns that the run's models have added (`Run.added`), and those of `contaminants`."""
    contaminants: pa.Table | None = None
    """Contaminants to match with."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        """
        Rows in `catalog_schema`, in the same order, of rows as `lenspipe.catalog.sources.RunGroup` gives them.

        Missing words are empty, here as in every table that is written.
        """
        traces, ra_deg, dec_deg = self.traces, rows["ra"].to_numpy(), rows["dec"].to_numpy()
        index = pc.index_in(rows["shard_id"], traces["shard_id"].combine_chunks())
        made: dict[str, pa.Array | pa.ChunkedArray] = {
            "name": iau_names(ra_deg, dec_deg, acronym=self.acronym),
            **{n: traces[n].combine_chunks().take(index) for n in traces.column_names if n != "shard_id"},
        }
        if "probability" in rows.column_names:
            stated = pc.if_else(pc.is_nan(rows["probability"]), None, rows["probability"])
            made["probability"] = stated
            for about in {"prior", "calibration"} & made.keys():
                made[about] = pc.if_else(pc.is_null(stated), None, made[about])
        schema = catalog_schema(self.bands, self.added)
        columns = []
        for f in schema:
            column = made[f.name] if f.name in made else rows[f.name] if f.name in rows.column_names else None
            columns.append(pa.nulls(rows.num_rows, f.type) if column is None else column.cast(f.type))
        entries = pa.table(columns, schema=schema)
        if self.lenses is not None:
            entries = with_known_lenses(entries, self.lenses, radius_arcsec=self.match_radius_arcsec)
        if self.contaminants is not None:
            entries = with_contaminants(entries, self.contaminants, radius_arcsec=self.match_radius_arcsec)
        return whole_table(entries)


def traces_of(run: Run) -> pa.Table:
    """What traces a candidate, one row per shard of the plan."""
    checksums = {item["file"]: item["checksum"] for item in run.record.get("inputs", [])}
    plan = run.plan.filter(pc.is_valid(run.plan["shard_id"])).select(["tile", "files", "shard_id", "window"])
    per_tile = {
        row["tile"]: _tile_checksum(row["files"], checksums)
        for row in plan.group_by("tile", use_threads=False)
        .aggregate([("files", "first")])
        .rename_columns(["tile", "files"])
        .to_pylist()
    }
    window = np.array(plan["window"].to_pylist(), np.int32).reshape(-1, 4)
    stated = run.record.get("probability") or {}
    return pa.table(
        {
            "shard_id": plan["shard_id"],
            "tile_checksum": pa.array([per_tile[tile] for tile in plan["tile"].to_pylist()], pa.string()),
            **{f"window_{edge}_px": window[:, i] for i, edge in enumerate(("x0", "y0", "x1", "y1"))},
            "prior": pa.array([stated.get("prior")] * plan.num_rows, pa.float64()),
            "calibration": pa.array([stated.get("calibration")] * plan.num_rows, pa.string()),
            "code_version": pa.array([run.record["versions"]["lenspipe"]] * plan.num_rows, pa.string()),
        }
    )


def _tile_checksum(files: str, checksums: dict[str, str]) -> str | None:
    """SHA-256 over ``checksum file-name`` lines, sorted; None where a file's checksum is not known."""
    planes = [b[key] for b in json.loads(files)["bands"] for key in ("image", "weight", "mask") if b[key]]
    names = sorted({plane["file"] for plane in planes})
    if any(name not in checksums for name in names):
        return None
    lines = "".join(f"{checksums[name]} {name.rsplit('/', 1)[-1]}\n" for name in names)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
