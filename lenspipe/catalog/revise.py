"""Changes of a catalogue beside append: runs replaced or removed, rows removed, versions gone back to."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from lenspipe import __version__
from lenspipe.catalog import folder as names
from lenspipe.catalog.collection import write_collection
from lenspipe.catalog.columns import RUN_ID
from lenspipe.catalog.executor import Here
from lenspipe.catalog.finish import carry_over, fates_of, sums_of
from lenspipe.catalog.folder import link_or_copy
from lenspipe.catalog.hats import read_pixels, write_metadata, write_pixel
from lenspipe.catalog.provenance import Matching, check_matching, check_model, record_of
from lenspipe.catalog.records import lasting_id
from lenspipe.catalog.run_rows import Run, open_run_folder
from lenspipe.catalog.summary import write_summary
from lenspipe.catalog.versions import keep_version, link_tree, version_folder
from lenspipe.catalog.write import OF_THE_RUN, SCRATCH, write_catalog, write_flat
from lenspipe.disk import locked_beside, put_back, replaced_folder
from lenspipe.errors import ConfigError, DataError
from lenspipe.rundir import utc_now, write_json
from lenspipe.schema import field
from lenspipe.store.place import place_at, shown
from lenspipe.store.urls import is_remote
from lenspipe.tables import read_parquet, read_schema, write_table

REMOVED_SCHEMA = pa.schema(
    [
        field("candidate_id", pa.string(), "Row that was removed", ucd="meta.id;meta.main"),
        RUN_ID,
        field(
            "n_detection",
            pa.int32(),
            "Detections that it stood for; 0 where no row is to be left out, since another stands for its object now",
            ucd="meta.number;obs",
        ),
    ]
)
Last = Callable[[Run], Callable[[Path, dict[str, Any]], dict[str, Any]]]
"""Given a run, what is done at the end of writing it (`lenspipe.catalog.write.write_catalog`)."""


def _nothing(run: Run) -> Callable[[Path, dict[str, Any]], dict[str, Any]]:
    return lambda new, record: record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Revision:
    """Changes a catalogue; each change appears as a whole and leaves the state before it as a version."""

    out: Path
    matching: Matching | None = None
    """Known lenses and contaminants; those that the catalogue was matched with."""
    last: Last = _nothing

    def update(self, run: Run, *, of: str | None = None, other_model: bool = False) -> dict[str, Any]:
        """
        Put a run in the place of what the catalogue holds of it: before a resume, a part, or another run.

        Nothing happens where the catalogue holds the run as it is. Other runs that were resumed since are taken as they
        are now.

        Parameters
        ----------
        run : Run
        of : str, optional
            Identifier of the run that it takes the place of; needed where they were not asked for the same.
        other_model : bool
            Take it although another model scored the runs that stay.

        Raises
        ------
        ConfigError
            The catalogue holds nothing of the run, another model scored it, or a run that stays cannot be opened any
            more.
        """
        with locked_beside(self.out):
            before = self._before()
            entries = before["runs"]
            mine = [
                k
                for k, entry in enumerate(entries)
                if (entry["run_id"] == of if of else entry.get("request_id", entry["run_id"]) == run.request_id)
            ]
            if not mine:
                raise ConfigError(
                    "the catalogue holds no such run; name the replaced one by --of, or add this one by --append",
                    of=of or run.request_id,
                    runs=" ".join(entry["run_id"] for entry in entries),
                )
            if any(k not in mine and entry["run_id"] == run.run_id for k, entry in enumerate(entries)):
                raise ConfigError("the catalogue holds this run beside the other one already", run=run.run_id)
            held = entries[mine[0]]
            if (
                len(mine) == 1
                and held["run_id"] == run.run_id
                and run.record["counts"].items() <= held["counts"].items()
            ):
                return before
            if run.model_digest not in _digests([entries[k] for k in mine]):
                check_model(run, _digests([e for k, e in enumerate(entries) if k not in mine]), other_model=other_model)
            runs = [run if k == mine[0] else entry for k, entry in enumerate(entries) if k not in mine[1:]]
            return self._rebuild(before, runs, {entries[k]["run_id"]: run.run_id for k in mine})

    def remove_run(self, run: str) -> dict[str, Any]:
        """
        Write the catalogue as it would be without a run, given by its folder, URL or identifier.

        Raises
        ------
        ConfigError
            The catalogue does not hold it, or nothing else, or a run that stays cannot be opened any more.
        """
        with locked_beside(self.out):
            before = self._before()
            stay = [e for e in before["runs"] if run != e["run_id"] and _home(run) != _home(e["folder"])]
            if len(stay) == len(before["runs"]):
                known = " ".join(entry["run_id"] for entry in before["runs"])
                raise ConfigError("the catalogue holds no such run", run=run, runs=known)
            if not stay:
                raise ConfigError("nothing would be left: the catalogue holds this run alone", out=str(self.out))
            return self._rebuild(before, stay)

    def remove_rows(self, keys: pa.Table) -> dict[str, Any]:
        """
        Take rows out of a catalogue; runs that are added later may show their objects again.

        Parameters
        ----------
        keys : pa.Table
            ``candidate_id``, and ``run_id`` where one identifier is in several runs.

        Raises
        ------
        ConfigError
            A row is not in the catalogue, or is in several runs and none is named.
        """
        with locked_beside(self.out):
            before = self._before()
            gone = _rows_of(self.out / names.HATS, keys)
            with replaced_folder(self.out, replace=True, ours=_anything) as new:
                keep_version(self.out, new)
                return self._without(before, gone, self.out, new, _removed_of(self.out))

    def go_back(self, number: int) -> dict[str, Any]:
        """Make a version what the catalogue is; what it was is a version then too."""
        with locked_beside(self.out):
            put_back(self.out, ours=_anything)
            version, flat = version_folder(self.out, number), (self.out / names.FLAT).exists()
            with replaced_folder(self.out, replace=True, ours=_anything) as new:
                keep_version(self.out, new)
                for entry in sorted(version.iterdir()):
                    link_tree(entry, new / entry.name)
                record = {**record_of(new), "catalogue_id": lasting_id(record_of(self.out))}
                write_json(new / names.PROVENANCE, record)
                self._made_again(new, record, flat=flat)
                carry_over(self.out, new)
                write_summary(new, record, name=self.out.name)
                return record

    def _before(self) -> dict[str, Any]:
        put_back(self.out, ours=_anything)
        before = record_of(self.out)
        check_matching(before, self.matching)
        return before

    def _rebuild(
        self, before: dict[str, Any], runs: Sequence[Run | dict[str, Any]], renamed: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The catalogue of some runs, written anew, less the rows of them that were removed; ``renamed`` to now."""
        held, renamed = {entry["run_id"] for entry in before["runs"]}, dict(renamed or {})
        with contextlib.ExitStack() as stack, replaced_folder(self.out, replace=True, ours=_anything) as new:
            opened = []
            for run in runs:
                opened.append(run if isinstance(run, Run) else _open(run, held, stack))
                if not isinstance(run, Run):
                    renamed[run["run_id"]] = opened[-1].run_id
            keep_version(self.out, new)
            made = new / SCRATCH / self.out.name
            for k, run in enumerate(opened):
                record = write_catalog(
                    run,
                    made,
                    radius_arcsec=before["merge_radius_arcsec"],
                    acronym=before["acronym"],
                    matching=self.matching,
                    append=k > 0,
                    other_model=True,  # `update` has looked
                    flat=(self.out / names.FLAT).exists(),
                    last=self.last(run),
                    versions=False,
                )
            for entry in made.iterdir():
                os.replace(entry, new / entry.name)
            shutil.rmtree(new / SCRATCH)
            record = {**record, "catalogue_id": lasting_id(before)}
            write_json(new / names.PROVENANCE, record)
            keys = _renamed(_removed_of(self.out), renamed)
            if keys.num_rows:
                half = new / SCRATCH
                half.mkdir()
                for entry in list(new.iterdir()):
                    if entry.name not in (SCRATCH, names.VERSIONS):
                        os.replace(entry, half / entry.name)
                record = self._without(record, _rows_of(half / names.HATS, keys, missing_ok=True), half, new, keys)
                shutil.rmtree(half)
            carry_over(self.out, new)
            return record

    def _without(
        self, before: dict[str, Any], gone: pa.Table, old: Path, new: Path, earlier: pa.Table
    ) -> dict[str, Any]:
        """Write into ``new`` the catalogue in ``old`` without some rows; ``earlier`` are those that were removed."""
        for tree in (names.HATS, names.VECTORS):
            if (old / tree).is_dir():
                name = self.out.name if tree == names.HATS else f"{self.out.name}_embedding"
                _filter_tree(old / tree, new / tree, gone, name=name)
        for name in (names.SHARDS, names.TILES, names.FOOTPRINT):
            link_or_copy(old / name, new / name)
        removed = pa.concat_tables([earlier.filter(pc.invert(pc.is_in(_joined(earlier), _joined(gone)))), gone])
        write_table(removed, new / names.REMOVED)
        kept, near = sums_of(new / names.HATS)
        record = {**before, "written": utc_now(), "lenspipe": __version__}
        away = removed.filter(pc.greater(removed["n_detection"], 0))
        record["removed"] = {"rows": away.num_rows, "detections": pc.sum(away["n_detection"]).as_py() or 0}
        record["counts"] = {**before["counts"], "rows": kept["rows"], "scored_rows": kept["scored_rows"]}
        if self.matching:
            found = fates_of(near, self.matching, old, new)
            record["known_lenses"] = {**before["known_lenses"], "recall": found}
        write_json(new / names.PROVENANCE, record)
        self._made_again(new, record, flat=(old / names.FLAT).exists())
        carry_over(old, new)
        write_summary(new, record, name=self.out.name)
        return record

    def _made_again(self, new: Path, record: dict[str, Any], *, flat: bool) -> None:
        write_collection(new, name=self.out.name, executor=Here(), scratch=new / OF_THE_RUN)
        if flat:
            write_flat(new, None, record["runs"][-1]["run_id"], name=self.out.name,
                       radius_arcsec=record["merge_radius_arcsec"])  # fmt: skip


def read_keys(file: Path) -> pa.Table:
    """
    Rows that are named in a CSV or a Parquet table: ``candidate_id``, and ``run_id`` where it has that.

    Raises
    ------
    ConfigError
        The file cannot be read or has no such column.
    """
    try:
        if file.suffix == ".parquet":
            table = read_parquet(file)
        else:
            words = {name: pa.string() for name in ("candidate_id", "run_id")}
            table = pacsv.read_csv(file, convert_options=pacsv.ConvertOptions(column_types=words))
    except (OSError, pa.ArrowInvalid, DataError) as error:
        raise ConfigError(f"cannot read the rows to remove: {error}", file=str(file)) from error
    if "candidate_id" not in table.column_names:
        raise ConfigError("the list of rows has no column candidate_id", file=str(file))
    return table.select([name for name in ("candidate_id", "run_id") if name in table.column_names])


def _anything(path: str) -> bool:
    return True


def _digests(entries: Sequence[dict[str, Any]]) -> set[str | None]:
    return {entry["model"]["digest"] if entry["model"] else None for entry in entries}


def _home(folder: str) -> str:
    """A run's folder or URL in one form."""
    return folder.rstrip("/") if is_remote(folder) else shown(os.path.abspath(folder))


def _open(entry: dict[str, Any], held: set[str], stack: contextlib.ExitStack) -> Run:
    """A run that a catalogue holds, as it is now; ``held`` are the identifiers of all of them."""
    why = "it is not there any more"
    try:
        home = entry["folder"]
        run = open_run_folder(stack.enter_context(place_at(home, writes=False)) if is_remote(home) else Path(home))
        resumed = run.request_id == entry.get("request_id", entry["run_id"]) and run.run_id not in held
        if run.run_id == entry["run_id"] or resumed:
            return run
        why = "another run is there now (put that in its place by --update --of, or write the catalogue anew)"
    except (ConfigError, OSError) as error:
        why = str(error)
    raise ConfigError(
        f"the catalogue is written anew of the runs that stay, and one of them cannot be taken: {why}",
        run=entry["run_id"],
        folder=entry["folder"],
    )


def _removed_of(catalogue: Path) -> pa.Table:
    """Rows that were removed from a catalogue."""
    file = catalogue / names.REMOVED
    return read_parquet(file).cast(REMOVED_SCHEMA) if file.exists() else REMOVED_SCHEMA.empty_table()


def _renamed(removed: pa.Table, now: dict[str, str]) -> pa.Table:
    """Removed rows under what their runs are called now, of none yet known that there is one; less those of others."""
    rows = [{**row, "run_id": now[row["run_id"]], "n_detection": 0}
            for row in removed.to_pylist() if row["run_id"] in now]  # fmt: skip
    return pa.Table.from_pylist(list({(r["run_id"], r["candidate_id"]): r for r in rows}.values()), REMOVED_SCHEMA)


def _rows_of(root: Path, keys: pa.Table, *, missing_ok: bool = False) -> pa.Table:
    """Rows of a tree that are named, with what they stand for; in the order of the tree."""
    wanted = pa.array(keys["candidate_id"].to_pylist(), pa.string())
    columns, found = REMOVED_SCHEMA.names, [REMOVED_SCHEMA.empty_table()]
    for pixel in read_pixels(root):
        rows = read_parquet(root / "dataset" / pixel.path, columns=columns)
        found.append(rows.filter(pc.is_in(rows["candidate_id"], wanted)).select(columns).cast(REMOVED_SCHEMA))
    table = pa.concat_tables(found)
    if "run_id" in keys.column_names:
        table = table.filter(pc.is_in(_joined(table), _joined(keys)))
        lacking = _joined(keys).filter(pc.invert(pc.is_in(_joined(keys), _joined(table))))
    else:
        lacking = wanted.filter(pc.invert(pc.is_in(wanted, table["candidate_id"].combine_chunks())))
    if len(lacking) and not missing_ok:
        named = ", ".join(lacking.slice(0, 10).to_pylist())
        raise ConfigError("the catalogue has no such row", rows=named, lacking=len(lacking))
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["candidate_id"]).to_pylist()}
    if "run_id" not in keys.column_names and (twice := [i for i, n in counts.items() if n > 1]):
        raise ConfigError("several runs have this row; name them in a column run_id", candidate_id=twice[0])
    return table


def _joined(rows: pa.Table) -> pa.Array:
    both = pc.binary_join_element_wise(rows["run_id"].cast(pa.string()), rows["candidate_id"].cast(pa.string()), " ")
    return both.combine_chunks() if isinstance(both, pa.ChunkedArray) else both


def _filter_tree(old: Path, new: Path, gone: pa.Table, *, name: str) -> None:
    """A tree without some rows; files of pixels that do not change are linked."""
    (new / "dataset").mkdir(parents=True)
    names_of = _joined(gone)
    pixels = []
    for pixel in read_pixels(old):
        file = old / "dataset" / pixel.path
        keys = read_parquet(file, columns=["candidate_id", "run_id"])
        stays = np.invert(pc.is_in(_joined(keys), names_of).to_numpy(zero_copy_only=False))
        if stays.all():
            (new / "dataset" / pixel.path).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, new / "dataset" / pixel.path)
        elif stays.any():
            write_pixel(new / "dataset", pixel, read_parquet(file).filter(pa.array(stays)))
        if stays.any():
            pixels.append(pixel)
    write_metadata(new, read_schema(old / "dataset" / "_common_metadata"), pixels, name=name)
