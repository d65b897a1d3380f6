"""`lenspipe completeness`: what a finder misses in a run, measured by lenses painted into its pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenspipe.cli import complete
from lenspipe.cli.options import OUT_FOLDER, Command, FolderType, runner_option, set_option, settings_of, workers_option
from lenspipe.runner import RunnerName, Workers

if TYPE_CHECKING:
    from lenspipe.completeness.finish import Outcome


@click.command(cls=Command)
@click.argument("run", type=FolderType(writes=False, exists=True))
@click.option(
    "--model",
    shell_complete=complete.models,
    required=True,
    metavar="NAME|DIR",
    help="Finder or committee whose misses are counted.",
)
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the selection function.")
@click.option("--count", type=click.IntRange(min=10), default=None, help="Lenses to paint. [default: 1000]")
@click.option(
    "--rate",
    "rates",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    help="Completeness where this part of the candidates passes. [default: 0.01 and 0.001]",
)
@click.option(
    "--first", type=click.IntRange(min=1), multiple=True, help="Completeness of the N best candidates. [default: 100]"
)
@click.option("--threshold", "thresholds", type=float, multiple=True, help="Completeness above a score.")
@click.option(
    "--real",
    type=click.Path(path_type=Path, exists=True),
    default=None,
    metavar="STAMPS|GRADES",
    help="Real lenses for the realism gate: a data set of labelled stamps, or grades of this run from its page.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same lenses."
)
@runner_option()
@workers_option("CPUs to use")
@click.option("--resume", is_flag=True, help="Resume the work in --out; thresholds and --real may differ now.")
@click.option(
    "--config", "config_file", default=None, metavar="FILE", help="Settings (`lenspipe settings completeness`)."
)
@set_option("hosts.mag=[17,21]", settings="completeness")
def command(
    run: Path,
    model: str,
    out: Path,
    count: int | None,
    rates: tuple[float, ...],
    first: tuple[int, ...],
    thresholds: tuple[float, ...],
    real: Path | None,
    seed: int,
    runner: RunnerName,
    workers: int | Workers | None,
    resume: bool,
    config_file: str | None,
    assignments: tuple[str, ...],
) -> int:
    """
    Paint lenses into the tiles of a finished RUN, search them as the scan did, and write the selection function.

    Exit code: 0 done, 2 bad request.
    """
    from lenspipe.api.run import start_of
    from lenspipe.catalog.run_rows import open_run_folder
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.completeness.config import CompletenessConfig
    from lenspipe.completeness.measure import measure_completeness, real_stamps

    config = settings_of(
        CompletenessConfig,
        config_file,
        assignments,
        {"count": count, "rates": rates or None, "first": first or None, "thresholds": thresholds or None},
    )
    opened = open_run_folder(run)
    named = os.path.abspath(model) if os.path.isdir(model) else model
    with ShownProgress("shard") as progress:
        outcome = measure_completeness(
            opened,
            named,
            Path(os.path.abspath(out)),
            config,
            seed=seed,
            real=None if real is None else real_stamps(real, opened, out, seed=seed),
            runner=start_of(runner, workers, progress.say),
            progress=progress,
            resume=resume,
        )
    _print(outcome, out)
    return 0


def _print(outcome: Outcome, out: Path) -> None:
    from lenspipe.completeness.page import PAGE
    from lenspipe.completeness.prior import prior_text
    from lenspipe.report.page import with_interval

    selection = outcome.selection
    click.echo(f"{selection.what.capitalize()}. Realism: {outcome.gate['why']}.")
    for row in outcome.rows:
        if row["quantity"] == "all":
            value = with_interval(row["value"], row["interval95"])
            click.echo(f"  {row['at']:<12} {row['kind']:<5} {value}  ({row['k']} of {row['n']})")
    prior = selection.record["prior"]
    click.echo(f"Prior: {prior_text(prior)}" + (f": lenspipe scan --prior {out}" if prior["value"] is not None else ""))
    for note in outcome.notes:
        click.echo(f"Note: {note}")
    click.echo(f"{out / PAGE}  page")
    click.echo(f"{out}  selection function: lenspipe.completeness.read({str(out)!r})")
