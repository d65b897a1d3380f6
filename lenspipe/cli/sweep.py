"""`lenspipe sweep`: many trainings compared."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lenspipe.cli.options import OUT_FOLDER, Command, data_of, data_option, set_option, settings_of

if TYPE_CHECKING:
    from lenspipe.learn.sweep.run import Runner

LOG_COLUMNS = 110
"""Width of the table where it is not printed on a terminal, which knows its own."""


@click.command(cls=Command)
@data_option("Data set of stamps with splits (or [[base.data]] in the space)", required=False)
@click.option(
    "--space", "space_file", required=True, metavar="FILE.toml", help="What to try (`lenspipe settings sweep`)."
)
@set_option("base.optim.epochs=5", settings="sweep")
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the sweep.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the search and the trainings."
)
@click.option("--max-concurrent", type=click.IntRange(min=1), default=None, help="Trials at a time. [default: CPUs]")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Ray workers per trial.")
@click.option(
    "--gpus-per-trial", type=float, default=0.0, show_default=True, help="Part of a GPU per trial; 0 trains on CPUs."
)
@click.option(
    "--runner",
    type=click.Choice(["ray", "local"]),
    default="ray",
    show_default=True,
    help="Ray, or one trial after the other.",
)
@click.option("--resume", is_flag=True, help="Resume the sweep in --out.")
def command(
    folders: tuple[str, ...],
    space_file: str,
    assignments: tuple[str, ...],
    out: Path,
    seed: int,
    max_concurrent: int | None,
    workers: int,
    gpus_per_trial: float,
    runner: str,
    resume: bool,
) -> int:
    """
    Train every point of a space and rank them.

    Exit code: 0 done, 2 bad request, 3 done with crashed trials.
    """
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.cli.train import sources_of
    from lenspipe.distributed.session import on_ray
    from lenspipe.evaluate.audit import largest_changes
    from lenspipe.learn.sweep.run import PLAIN, sweep
    from lenspipe.learn.sweep.space import SweepSpace

    space = settings_of(SweepSpace, space_file, assignments)
    data = data_of(folders) if folders else sources_of(space.base)
    load = partial(_on_ray, gpus_per_trial, max_concurrent)
    start = PLAIN if runner == "local" else on_ray(load, keep_idle=True)
    with ShownProgress("trial") as progress:
        table = sweep(
            data,
            space,
            out,
            seed=seed,
            runner=start,
            n_worker=workers,
            audit=largest_changes,
            resume=resume,
            progress=progress,
        )
    rows = table.to_pylist()
    print_rows(rows, space.metric_name)
    click.echo(f"{out / 'trials.parquet'}, {out / 'index.html'}" + (f", {out / 'best'}" if _ranked(rows) else ""))
    return 3 if any(row["status"] in ("error", "unfinished") for row in rows) else 0


def _on_ray(gpus_per_trial: float, max_concurrent: int | None, n_cpu: int) -> Runner:
    from lenspipe.distributed.sweep import sweep_ray

    return partial(sweep_ray, gpus_per_trial=gpus_per_trial, max_concurrent=max_concurrent)


def print_rows(rows: list[dict[str, Any]], metric: str) -> None:
    """The table of trials, ranked ones first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("rank", "trial", "status", metric, "95 %", "parameters", "epochs", "seconds"):
        text = name in ("trial", "status")
        table.add_column(name, justify="left" if text else "right", overflow="fold", no_wrap=name != "trial")
    for row in rows:
        rank = "chance" if row["at_chance"] and row["status"] == "done" else str(row["rank"] or "")
        low, high = row["metric_low"], row["metric_high"]
        table.add_row(
            rank,
            row["trial"],
            row["status"],
            "" if row["metric"] is None else f"{row['metric']:.4f}",
            "" if low is None or high is None else f"{low:.4f}-{high:.4f}",
            str(row["parameters"] or ""),
            str(row["epochs"] or 0),
            f"{row['seconds'] or 0:.0f}",
        )
    console = Console(markup=False)
    (console if console.is_terminal else Console(width=LOG_COLUMNS, markup=False)).print(table)
    for row in rows:
        if row["error"]:
            click.echo(f"{row['trial']}: {row['error']}")


def _ranked(rows: list[dict[str, Any]]) -> bool:
    return any(row["rank"] == 1 for row in rows)
