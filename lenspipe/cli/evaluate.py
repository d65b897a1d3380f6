"""`lenspipe evaluate`: models on labelled stamps, with the numbers that count at low false positive rates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenspipe.cli.options import OUT_FOLDER, Command, data_of, data_option
from lenspipe.errors import ConfigError

if TYPE_CHECKING:
    from lenspipe.evaluate.report import Report

RULES = click.Choice(["mean", "product", "calibrated", "logits"])


@click.command(cls=Command)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@data_option("Data set of labelled stamps")
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the report.")
@click.option("--split", default="test", show_default=True, help="Rows of this split; 'all' for every row.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Score from which a source is called a lens.",
)
@click.option(
    "--beta",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Weight of recall in F_beta.",
)
@click.option(
    "--committee",
    "committees",
    type=RULES,
    multiple=True,
    help="Judge all models together as well, by this rule. May be repeated.",
)
@click.option("--views", type=RULES, default=None, help="Judge the eight orientations combined by this rule as well.")
@click.option("--audit", is_flag=True, help="Measure the change under turns, mirrors and sub-pixel shifts.")
@click.option("--audit-stamps", type=click.IntRange(min=1), default=200, show_default=True, help="Stamps of the audit.")
@click.option(
    "--denoiser",
    default=None,
    metavar="NAME|DIR",
    help="Run the gate of this denoiser with the models as finders, instead of the report.",
)
@click.option(
    "--features",
    default=None,
    metavar="NAME|DIR",
    help="Generators: model whose features describe stamps. [default: a shipped one that takes them]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=None, help="Stamps per batch. [default: by the device]"
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of a CPU.")
@click.option("--overwrite", is_flag=True, help="Write over a report in --out.")
def command(
    models: tuple[str, ...],
    folders: tuple[str, ...],
    out: Path,
    split: str,
    threshold: float,
    beta: float,
    committees: tuple[str, ...],
    views: str | None,
    audit: bool,
    audit_stamps: int,
    denoiser: str | None,
    features: str | None,
    device: str,
    batch_size: int | None,
    threads: int,
    overwrite: bool,
) -> int:
    """
    Judge models (shipped names, folders of models or of committees, all of one task) on a data set and write a report.

    The report: metrics.json, models.csv, scores.parquet, plots/ and report.html. Exit code: 0 done, 2 bad request.
    """
    data = data_of(folders)
    if denoiser is not None:
        if not isinstance(data, str):
            raise ConfigError("the gate of a denoiser takes one data set", data=" ".join(folders))
        return print_gate(models, denoiser, Path(data), out, None if split == "all" else split, device)
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.evaluate.report import PAGE, ReportSettings, evaluate_models

    settings = ReportSettings(
        split=None if split == "all" else split,
        threshold=threshold,
        beta=beta,
        committees=committees,  # type: ignore[arg-type]
        views=views,  # type: ignore[arg-type]
        features=features,
        n_audit=audit_stamps if audit else 0,
        device=device,
        batch_size=batch_size,
        threads=threads,
    )
    with ShownProgress("stamp") as shown:
        report = evaluate_models(models, data, out, settings, overwrite=overwrite, progress=shown.counters())
    print_report(report)
    click.echo(f"{out / PAGE}")
    return 0


def print_gate(models: tuple[str, ...], denoiser: str, data: Path, out: Path, split: str | None, device: str) -> int:
    """Run a denoiser's gate and print its verdict with the reasons."""
    from lenspipe.evaluate.denoiser_report import REPORT, gate_report

    report = gate_report(models, denoiser, data, out, split=split, device=device)
    for rate, gain in report["finder"]["tpr_gain"].items():
        low, high = gain["interval95"]
        click.echo(f"TPR at FPR {rate}: {gain['value']:+.3f} [{low:+.3f}, {high:+.3f}] through {report['denoiser']}")
    click.echo(f"Verdict: {'passed' if report['passed'] else 'FAILED'}")
    for reason in report["reasons"]:
        click.echo(f"  {reason}")
    click.echo(f"{out / REPORT}")
    return 0


def print_report(report: Report) -> None:
    """Print the numbers that count, as the judge gives them."""
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table

    data, printed = report.record["data"], report.printed
    table = Table(box=box.SIMPLE, title=f"{data['folder']}, split {data['split'] or 'all'}")
    for heading in printed.heading:
        table.add_column(heading)
    for row in printed.rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    console.print(table)
    if printed.note:
        console.print(printed.note)
