"""`lenspipe stamps describe | validate | convert | cut | merge | fit | readers`: data sets of labelled stamps."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lenspipe.cli import EXIT_DONE, EXIT_WITH_FAILURES, stamps_cut, stamps_fit
from lenspipe.cli.options import OUT_FOLDER, Group, assigned
from lenspipe.errors import ConfigError, did_you_mean
from lenspipe.plugins import READERS, entries
from lenspipe.toml import toml_text
from lenspipe.toml import validate as validate_options

if TYPE_CHECKING:
    from lenspipe.stamps.describe import ColumnFacts, PixelFacts
    from lenspipe.stamps.spec import ImageSpec

READER_NAMES = (
    "blends",
    "bologna1",
    "bologna2",
    "colour-npz",
    "deeplense",
    "euclid-q1",
    "fields",
    "fits-cubes",
    "fits-folder",
    "hdf5",
    "lsst2025",
    "npz",
    "pictures",
)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(cls=Group)
def command() -> None:
    """Describe, validate, convert, cut, merge or fit data sets of labelled stamps."""


command.add_command(stamps_cut.command)
command.add_command(stamps_fit.command)


@command.command()
@click.argument("folder", type=FOLDER)
def describe(folder: Path) -> int:
    """Count what a data set holds: classes by split, hosts, shapes, pixel ranges, parameters."""
    from lenspipe.stamps.describe import describe as describe_stamps
    from lenspipe.stamps.format import StampSet

    stamps = StampSet.open(folder)
    with _progress("reading", stamps.n) as progress:
        found = describe_stamps(stamps, progress=progress)
    console = _console()
    console.print(
        f"{folder}: {stamps.n} stamps, {found.n_host} hosts, {len(stamps.parts)} parts, "
        f"{found.size_bytes / 1e6:.1f} MB, "
        f"made by {', '.join(str(name) for name in sorted(found.recipes, key=str))}",
        soft_wrap=True,
    )
    console.print(_counts_table(found.counts))
    console.print(_images_table(stamps.images, found.pixels))
    if found.columns:
        console.print(_columns_table(found.columns))
    return EXIT_DONE


@command.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--radius-arcsec",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="Stamps of two splits nearer than this are a leak.",
)
def validate(folder: Path, radius_arcsec: float) -> int:
    """Look for NaN, duplicates, and hosts or sky positions in two splits. Exit code 3 where something is wrong."""
    from lenspipe.stamps.format import StampSet
    from lenspipe.stamps.validate import validate as validate_stamps

    stamps = StampSet.open(folder)
    with _progress("checking", stamps.n) as progress:
        problems = validate_stamps(stamps, radius_arcsec=radius_arcsec, progress=progress)
    console = _console()
    if not problems:
        console.print(f"{folder}: {stamps.n} stamps, no problems", soft_wrap=True)
        return EXIT_DONE
    table = Table("problem", "n", "for example", title=f"{folder}: {stamps.n} stamps")
    for problem in problems:
        table.add_row(problem.check, str(problem.n), "\n".join(problem.examples))
    console.print(table)
    return EXIT_WITH_FAILURES


@command.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--from",
    "reader",
    type=click.Choice([*READER_NAMES, *entries(READERS)]),
    required=True,
    help="Layout of the folder.",
)
@click.option("--out", type=OUT_FOLDER, required=True, help="New data set.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the reader in TOML: size_px=64, 'bands={g=0,r=1}'. May be repeated.",
)
@click.option("--options", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TOML file of options.")
@click.option("--split", default="train=0.8,validation=0.1,test=0.1", show_default=True, help="Fractions of the hosts.")
@click.option("--seed", default=0, show_default=True, help="Seed of the splits.")
@click.option(
    "--margin-arcsec",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Least distance between stamps of different splits.",
)
def convert(
    folder: Path,
    reader: str,
    out: Path,
    settings: tuple[str, ...],
    options: Path | None,
    split: str,
    seed: int,
    margin_arcsec: float,
) -> int:
    """Convert other people's stamps. `lenspipe stamps readers` lists the layouts and their options."""
    from lenspipe.stamps.convert import convert as convert_stamps
    from lenspipe.stamps.readers import reader_of
    from lenspipe.stamps.spec import image_specs

    chosen = reader_of(reader)
    raw = _options(options) if options else {}
    raw |= assigned(settings)
    stream = chosen.read(folder, validate_options(raw, chosen.options, origin=f"options of {reader}"))
    with _progress("converting", stream.n) as progress:
        done = convert_stamps(
            stream, out, seed=seed, fractions=fractions_of(split), margin_arcsec=margin_arcsec, progress=progress
        )
    console = _console()
    console.print(f"{out}: {done.n} stamps written, {len(done.dropped)} dropped", soft_wrap=True)
    for note in done.notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False)
    units = {spec.unit for spec in image_specs(stream.schema, where=reader).values()}
    if stretched := sorted(unit for unit in units if "stretch" in unit):
        console.print(
            f"Pixels are in {', '.join(stretched)}: display values, not flux. Nothing measures magnitudes in them, "
            "and a network that was taught on flux cannot judge them.",
            soft_wrap=True,
        )
    if not done.dropped:
        return EXIT_DONE
    table = Table("dropped", "why")
    for name, reason in done.dropped[:20]:
        table.add_row(name, reason)
    console.print(table)
    return EXIT_WITH_FAILURES


@command.command()
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER FOLDER...", type=FOLDER)
@click.option("--out", type=OUT_FOLDER, required=True, help="New data set.")
def merge(folders: tuple[Path, ...], out: Path) -> int:
    """Write several data sets as one: splits and columns are kept, and data_set says where each stamp is from."""
    from lenspipe.stamps.merge import merge as merge_stamps

    with _progress("merging", None) as progress:
        merged = merge_stamps(folders, out, progress=progress)
    console = _console()
    parts = ", ".join(f"{n} of {name}" for name, n in merged.n.items())
    console.print(f"{out}: {sum(merged.n.values())} stamps, {parts}", soft_wrap=True)
    if torn := merged.hosts_in_two_splits:
        console.print(
            f"{len(torn)} hosts are in one split here and in another there, such as {torn[0]}: if they are the same "
            "galaxies, a network is judged on what it has seen",
            soft_wrap=True,
        )
        return EXIT_WITH_FAILURES
    return EXIT_DONE


@command.command()
@click.argument("name", required=False)
def readers(name: str | None) -> int:
    """List the layouts that convert reads, with their options; that of NAME alone where it is given."""
    from lenspipe.stamps.readers import READERS

    if name is not None and name not in READERS:
        hint = did_you_mean(name, READERS) or f"Readers: {', '.join(READERS)}."
        raise ConfigError(f"no such reader. {hint}", got=name)
    table = Table("layout", "option", "default", "meaning")
    for layout, reader in READERS.items() if name is None else [(name, READERS[name])]:
        table.add_row(layout, "", "", reader.summary, style="bold")
        for key, field in reader.options.model_fields.items():
            default = "required" if field.is_required() else repr(field.default)
            table.add_row("", key, default, " ".join((field.description or "").split()))
    _console().print(table)
    return EXIT_DONE


@contextmanager
def _progress(what: str, n: int | None) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, markup=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=n)
        yield lambda done: bar.update(task, completed=done)


def _counts_table(counts: dict[tuple[str | None, str | None], int]) -> Table:
    labels = sorted({label for label, _ in counts}, key=str)
    splits = sorted({split for _, split in counts}, key=str)
    table = Table("class", *(split or "no split" for split in splits), "all")
    for label in labels:
        row = [counts.get((label, split), 0) for split in splits]
        table.add_row(label or "not known", *map(str, row), str(sum(row)))
    return table


def _images_table(specs: Mapping[str, ImageSpec], facts: Mapping[str, PixelFacts]) -> Table:
    table = Table("pixels of", *specs)
    table.add_row("shape (band, y, x)", *("×".join(map(str, spec.shape)) for spec in specs.values()))
    table.add_row("bands", *(" ".join(spec.bands) for spec in specs.values()))
    table.add_row("pixel scale, arcsec", *(f"{spec.pixel_scale_arcsec:.4g}" for spec in specs.values()))
    table.add_row("unit", *(spec.unit for spec in specs.values()))
    table.add_row("lowest … highest", *(f"{facts[name].lowest:.4g} … {facts[name].highest:.4g}" for name in specs))
    table.add_row("pixels that are 0", *(f"{facts[name].zero_fraction:.2%}" for name in specs))
    table.add_row("stamps not finite", *(str(facts[name].n_not_finite) for name in specs))
    return table


def _columns_table(columns: Iterable[ColumnFacts]) -> Table:
    table = Table("column", "unit", "5 %", "median", "95 %", "null")
    for fact in columns:
        numbers = (f"{value:.4g}" for value in (fact.low, fact.median, fact.high))
        table.add_row(fact.name, fact.unit, *numbers, str(fact.n_null))
    return table


def _console() -> Console:
    return Console(markup=False, highlight=False)  # messages hold [facts='in brackets'], which are no markup


def _options(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(toml_text(file))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the file of options is not TOML: {error}", file=str(file)) from error


def fractions_of(text: str) -> dict[str, float]:
    """Fractions by split of ``NAME=FRACTION,...``; raises `ConfigError` where the text is not that."""
    try:
        pairs = (item.split("=") for item in text.split(","))
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        raise ConfigError("--split needs NAME=FRACTION,...", got=text) from None
