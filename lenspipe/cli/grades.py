"""`lenspipe grades`: bring grades back from the page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lenspipe.cli.options import OUT_FOLDER, Command
from lenspipe.tables import read_parquet

if TYPE_CHECKING:
    import pyarrow as pa

    from lenspipe.catalog.run_rows import Run


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--run", type=OUT_FOLDER, required=True, help="Run folder that was graded.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Table. [default: RUN/grades.parquet]")
@click.option("--lens-from", type=float, default=2.0, show_default=True, help="Mean grade from which it is a lens.")
@click.option("--nonlens-to", type=float, default=0.5, show_default=True, help="Mean grade up to which it is none.")
@click.option(
    "--stamps",
    type=click.Path(path_type=Path),
    default=None,
    help="New data set: stamps of labelled candidates, for `lenspipe calibrate` and `train`.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the splits of --stamps."
)
@click.option(
    "--next",
    "next_round",
    is_flag=True,
    help="Say what the rounds cost, a FILE each in order: looks per new lens. Nothing is written.",
)
def command(
    files: tuple[str, ...],
    run: Path,
    out: Path | None,
    lens_from: float,
    nonlens_to: float,
    stamps: Path | None,
    seed: int,
    next_round: bool,
) -> int:
    """
    Read grade FILEs exported by the page: agreement of the graders, mean grades, labels.

    A grade counts A 3, B 2, C 1, not a lens 0. The table holds a label for training and calibration where the mean
    is high or low enough; --stamps cuts those candidates again as labelled stamps.

    Exit code: 0 done, 2 bad request, 3 some candidates could not be cut.
    """
    import pyarrow.compute as pc

    from lenspipe.catalog.grades import agreement, labels_for, mean_grades, read_grades
    from lenspipe.catalog.run_rows import open_run_folder
    from lenspipe.disk import locked_beside
    from lenspipe.errors import ConfigError
    from lenspipe.rundir import atomic_path
    from lenspipe.tables import write_table

    opened = open_run_folder(run)
    if next_round:
        _say_rounds(files, opened, lens_from)
        return 0
    out = out or run / "grades.parquet"
    with locked_beside(out):
        grades = read_grades(list(files))
        means = mean_grades(grades, lens_from=lens_from, nonlens_to=nonlens_to)
        table = labels_for(means, read_parquet(run / "candidates.parquet"), run_id=opened.run_id)
        if not table.num_rows:
            raise ConfigError("no grade is for this run", run=str(run), run_id=opened.run_id)
        with atomic_path(out) as path:
            write_table(table, path)
    _print(agreement(grades.filter(pc.equal(grades["run_id"], opened.run_id))), table.to_pylist())
    click.echo(f"{out}  {table.num_rows} candidates; {means.num_rows - table.num_rows} of other runs left aside")
    return _write_stamps(opened, table, stamps, seed) if stamps else 0


def _say_rounds(files: tuple[str, ...], run: Run, lens_from: float) -> None:
    from lenspipe.catalog.looks import rounds_of
    from lenspipe.errors import ConfigError

    rounds = rounds_of(files, run, lens_from=lens_from)
    if not any(one.looks for one in rounds):
        raise ConfigError("no grade is for this run or lies in its sky", files=" ".join(files), run_id=run.run_id)
    for number, one in enumerate(rounds, 1):
        low, high = one.interval95
        cost = (
            f"{one.looks_per_lens:.1f} looks per new lens [{low:.1f}, {high:.1f}]"
            if one.looks_per_lens and high
            else f"no new lens; more than {low:.0f} looks per lens (95 %)"
            if one.looks
            else "nothing that was not graded before"
        )
        click.echo(f"round {number}: {one.looks} looks, {one.lenses} new lenses: {cost}  {one.file}")


def _write_stamps(run: Run, table: pa.Table, out: Path, seed: int) -> int:
    from lenspipe.scan.after.graded import graded_stamps

    done = graded_stamps(run, table, out, seed=seed)
    click.echo(f"{out}  {done.n} labelled stamps")
    for name, reason in done.dropped:
        click.echo(f"no stamp of {name}: {reason}", err=True)
    return 3 if done.dropped else 0


def _print(pairs: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from lenspipe.cli import printable

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    if pairs:
        table = Table("grader", "grader", "both graded", "equal", "weighted kappa", title="Agreement", box=box.SIMPLE)
        for pair in pairs:
            numbers = ["–" if pair[key] is None else f"{pair[key]:.3f}" for key in ("equal", "kappa")]
            table.add_row(printable(pair["first"]), printable(pair["second"]), str(pair["n"]), *numbers)
        console.print(table)
    table = Table("label", "candidates", "mean grade", title="Labels", box=box.SIMPLE)
    for word, label in (("lens", 1), ("not a lens", 0), ("undecided", None)):
        grades = [row["mean_grade"] for row in rows if row["label"] == label]
        table.add_row(word, str(len(grades)), f"{sum(grades) / len(grades):.2f}" if grades else "–")
    console.print(table)
