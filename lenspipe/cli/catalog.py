"""`lenspipe catalog`: a run becomes the catalogue that astronomers open."""

from __future__ import annotations

import functools
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lenspipe.cli.options import OUT_FOLDER, RUN_FOLDER, Command, set_option, settings_of, workers_option
from lenspipe.runner import Workers
from lenspipe.tables import read_parquet

if TYPE_CHECKING:
    from lenspipe.catalog.executor import Executor
    from lenspipe.scan.config import CatalogSettings


@click.command(cls=Command)
@click.argument("run", type=RUN_FOLDER, required=False)
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the catalogue.")
@click.option("--config", "config_file", default=None, metavar="FILE", help="Settings (`lenspipe settings catalog`).")
@set_option("radius_arcsec=0.5", settings="catalog")
@click.option("--append", is_flag=True, help="Add the run to the catalogue in --out.")
@click.option(
    "--update",
    is_flag=True,
    help="Put the run, resumed since or scanned again, in the place of what --out holds of it.",
)
@click.option(
    "--of",
    "replaced",
    default=None,
    metavar="RUN_ID",
    help="With --update: the run that is replaced, where it is another.",
)
@click.option("--remove", is_flag=True, help="Write --out as it would be without RUN (its folder or identifier).")
@click.option(
    "--remove-rows",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="Remove the rows that a CSV or Parquet table names by candidate_id (and run_id).",
)
@click.option("--versions", is_flag=True, help="List the versions that --out keeps: one from before each change.")
@click.option("--back", type=click.IntRange(min=1), default=None, metavar="N", help="Make version N what --out is.")
@click.option("--partial", is_flag=True, help="Take what is done of a run that has not ended.")
@click.option("--radius", "radius_arcsec", type=float, default=None, help="Merge within, arcsec. [default: 1]")
@click.option(
    "--match",
    "lists",
    multiple=True,
    metavar="FILE",
    help="Known lenses; 'none' for none. Magnitudes in it are compared. [default: lenscat]",
)
@click.option(
    "--contaminants",
    multiple=True,
    metavar="FILE",
    help="Published contaminants: a row near one is flagged with its name, kind and source.",
)
@click.option(
    "--match-radius", "match_radius_arcsec", type=float, default=None, help="Match within, arcsec. [default: 2]"
)
@click.option("--trained-on", metavar="FILE", default=None, help="Positions used in training, left out of the recall.")
@click.option("--acronym", default=None, help="Leading word of the names. [default: LPC]")
@click.option("--allow-other-model", is_flag=True, help="Append or update by a run that another model scored.")
@click.option("--distributed", is_flag=True, help="With Ray, for more rows than a machine holds: the HATS tree only.")
@workers_option("CPUs for --distributed")
def command(
    run: Path | None,
    out: Path,
    config_file: str | None,
    assignments: tuple[str, ...],
    append: bool,
    update: bool,
    replaced: str | None,
    remove: bool,
    remove_rows: Path | None,
    versions: bool,
    back: int | None,
    partial: bool,
    radius_arcsec: float | None,
    lists: tuple[str, ...],
    contaminants: tuple[str, ...],
    match_radius_arcsec: float | None,
    trained_on: str | None,
    acronym: str | None,
    allow_other_model: bool,
    distributed: bool,
    workers: int | Workers | None,
) -> int:
    """
    Write the catalogue of RUN: HATS, VOParquet, FITS, footprint, known lenses, provenance.

    A change (--append, --update, --remove, --remove-rows, --back) keeps the catalogue as it was as a version.

    Exit code: 0 done, 2 bad request.
    """
    from lenspipe.catalog.run_rows import open_run_folder
    from lenspipe.catalog.write import PLAIN, write_catalog
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.disk import locked_beside
    from lenspipe.distributed.session import on_ray
    from lenspipe.errors import ConfigError
    from lenspipe.scan.after.catalog import compare_magnitudes, matching_of
    from lenspipe.scan.after.known import examine_absent
    from lenspipe.scan.config import CatalogSettings

    modes = {"--append": append, "--update": update, "--remove": remove, "--remove-rows": remove_rows is not None,
             "--versions": versions, "--back": back is not None}  # fmt: skip
    chosen = [name for name, given in modes.items() if given]
    if len(chosen) > 1:
        raise ConfigError("one change at a time", got=" ".join(chosen))
    if (run is None) != (chosen[:1] in (["--remove-rows"], ["--versions"], ["--back"])):
        raise ConfigError(
            "name the RUN, unless rows are removed or versions asked for", got=str(run), change=" ".join(chosen)
        )
    if replaced and not update:
        raise ConfigError("--of is about --update, which is not given")
    if chosen and chosen != ["--append"] and (partial or distributed):
        raise ConfigError(f"{chosen[0]} takes neither --partial nor --distributed")
    if distributed and partial:
        raise ConfigError("--distributed takes runs that have ended; leave --partial out, or finish the run")
    out = out.resolve()  # of a link that is named, what it points to is written
    settings = settings_of(
        CatalogSettings,
        config_file,
        assignments,
        {
            "radius_arcsec": radius_arcsec,
            "acronym": acronym,
            "lists": () if lists == ("none",) else lists or None,
            "contaminants": contaminants or None,
            "match_radius_arcsec": match_radius_arcsec,
            "trained_on": trained_on,
        },
    )
    if versions:
        _print_versions(out)
        return 0
    if chosen and chosen != ["--append"]:
        record = _revised(out, settings, run, update=update, of=replaced, remove=remove, rows=remove_rows, back=back,
                          other_model=allow_other_model)  # fmt: skip
        print_catalog(out, record)
        return 0
    assert run is not None
    with locked_beside(out), tempfile.TemporaryDirectory() as scratch, ShownProgress("task") as progress:
        opened = open_run_folder(_partial(run, Path(scratch) / "run") if partial else run)
        compare_magnitudes(opened, settings.lists)
        record = write_catalog(
            opened,
            out,
            radius_arcsec=settings.radius_arcsec,
            acronym=settings.acronym,
            append=append,
            other_model=allow_other_model,
            matching=matching_of(settings),
            executor=on_ray(_on_ray, n_worker=workers) if distributed else PLAIN,
            flat=not distributed,
            last=_as_it_is if distributed else functools.partial(examine_absent, opened),
            progress=progress,
        )
    print_catalog(out, record)
    return 0


def _revised(
    out: Path,
    settings: CatalogSettings,
    run: Path | None,
    *,
    update: bool,
    of: str | None,
    remove: bool,
    rows: Path | None,
    back: int | None,
    other_model: bool,
) -> dict[str, Any]:
    """Carry out the change that is asked for."""
    from lenspipe.catalog.provenance import record_of
    from lenspipe.catalog.revise import Revision, read_keys
    from lenspipe.catalog.run_rows import open_run_folder
    from lenspipe.scan.after.catalog import matching_of
    from lenspipe.scan.after.known import examine_absent

    if back is not None:
        return Revision(out=out).go_back(back)
    revision = Revision(
        out=out, matching=matching_of(settings), last=lambda opened: functools.partial(examine_absent, opened)
    )
    if rows is not None:
        return revision.remove_rows(read_keys(rows))
    assert run is not None
    before = {entry["run_id"] for entry in record_of(out)["runs"]}
    opened = None if remove else open_run_folder(run)
    record = revision.update(opened, of=of, other_model=other_model) if opened else revision.remove_run(str(run))
    for entry in record["runs"]:
        if entry["run_id"] not in before and not (opened and entry["run_id"] == opened.run_id):
            click.echo(f"Note: {entry['folder']} was resumed since, and is taken as it is now ({entry['run_id']}).")
    return record


def _print_versions(out: Path) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from lenspipe.catalog.provenance import record_of
    from lenspipe.catalog.versions import described

    record_of(out)  # says what is wrong where there is no catalogue
    table = Table("version", "written", "rows", "removed", "runs", box=box.SIMPLE)
    for one in described(out):
        name = "now" if one["version"] is None else str(one["version"])
        table.add_row(name, one["written"], str(one["rows"]), str(one["removed"]), " ".join(one["runs"]))
    Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False).print(table)


def _as_it_is(new: Path, record: dict[str, Any]) -> dict[str, Any]:
    return record


def _on_ray(n_worker: int) -> Executor:
    from lenspipe.distributed.catalog import RayTasks

    return RayTasks(n_worker)


def _partial(run: Path, scratch: Path) -> Path:
    from lenspipe.catalog.records import run_record
    from lenspipe.scan.after.partial import finalize_partial

    if not (run / "run.json").exists() or run_record(run / "run.json")["status"] != "running":
        return run  # it has ended, or is none: the ordinary way says so
    done, planned = finalize_partial(run, scratch)
    click.echo(f"Partial: {done} of {planned} shards are done.")
    return scratch


def print_catalog(out: Path, record: dict[str, Any]) -> None:
    """Print what a catalogue holds and where its files are."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from lenspipe.catalog.magnitudes import magnitude_lines

    counts, area = record["counts"], record["area"]
    table = Table(title="Catalogue", title_justify="left", show_header=False, box=box.SQUARE)
    table.add_row("runs", f"{len(record['runs'])}")
    table.add_row("detections", f"{counts['candidates']}, {counts['merged']} merged into others")
    table.add_row("rows", f"{counts['rows']}, {counts['scored_rows']} scored")
    unmasked = f"unmasked, summed over shards {area['sum_of_shards_deg2']:.5f} deg2"
    table.add_row("footprint", f"{area['footprint_deg2']:.5f} deg2; {unmasked}")
    for text in _about_probability(record["probability"]):
        table.add_row("probability", text)
    if known := record["known_lenses"]:
        found = known["recall"]
        table.add_row(
            "known lenses",
            f"{found['candidates']} of {found['counted']} inside are candidates ({known['list']}, "
            f'{known["radius_arcsec"]:g}"), {found["left_out"]} left out',
        )
        for fate, number in found["fates"].items():
            table.add_row("", f"{number} {fate}")
        if beside := known.get("contaminants"):
            table.add_row("contaminants", f"{flagged(out)} rows are near one ({beside})")
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    console.print(table)
    for line in magnitude_lines(record["runs"][-1].get("magnitudes") or {}):
        console.print(f"Note: {line}", markup=False, soft_wrap=True)
    for file, what in (
        (".", "HATS collection"),
        ("candidates.parquet", "VOParquet, best first"),
        ("candidates.fits", "the same as FITS"),
        ("footprint.moc.fits", "area searched, MOC 2.0"),
        ("shards.parquet", "depth and area, one row per shard"),
        ("known_lenses.parquet", "fate of each known lens inside"),
        ("provenance.json", "inputs, versions, model, counts"),
    ):
        if (out / file).exists():
            console.print(f"{out / file}  {what}", soft_wrap=True)


def flagged(out: Path) -> int:
    """Rows of a catalogue that are near a contaminant."""

    from lenspipe.catalog.columns import CONTAMINANT
    from lenspipe.catalog.hats import read_pixels

    files = [out / "hats" / "dataset" / pixel.path for pixel in read_pixels(out / "hats")]
    near = (read_parquet(file, columns=[CONTAMINANT[-1].name]).column(0) for file in files)
    return sum(len(column) - column.null_count for column in near)


def _about_probability(stated: dict[str, Any]) -> list[str]:
    from lenspipe.scan.prior import prior_line

    if runs := stated.get("of_runs"):
        return [f"{stated['why']}:", *(text for one in runs for text in _about_probability(one))]
    return [prior_line(stated)]
