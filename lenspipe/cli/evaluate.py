"""`lenspipe evaluate`: models on labelled stamps, with the numbers that count at low false positive rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

RULES = click.Choice(["mean", "product", "calibrated"])


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Data set of labelled stamps.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the report.")
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
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--batch-size", type=click.IntRange(min=1), default=None, help="Stamps a batch. [default: by the device]")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of a CPU.")
@click.option("--overwrite", is_flag=True, help="Write over a report in --out.")
def command(
    models: tuple[str, ...],
    data: Path,
    out: Path,
    split: str,
    threshold: float,
    beta: float,
    committees: tuple[str, ...],
    views: str | None,
    audit: bool,
    audit_stamps: int,
    denoiser: str | None,
    device: str,
    batch_size: int | None,
    threads: int,
    overwrite: bool,
) -> int:
    """
    Judge models (shipped names or folders, all of one task) on a data set and write a report.

    The report: metrics.json, models.csv, scores.parquet, plots/ and report.html. Exit code: 0 done, 2 bad request.
    """
    if denoiser is not None:
        return print_gate(models, denoiser, data, out, None if split == "all" else split, device)
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.evaluate.report import PAGE, ReportSettings, evaluate_models

    settings = ReportSettings(
        split=None if split == "all" else split,
        threshold=threshold,
        beta=beta,
        committees=committees,  # type: ignore[arg-type]
        views=views,  # type: ignore[arg-type]
        n_audit=audit_stamps if audit else 0,
        device=device,
        batch_size=batch_size,
        threads=threads,
    )
    with ShownProgress("stamp") as shown:
        counters: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in counters:
                counters[stage] = shown.counter(stage.capitalize())
            counters[stage](done, total)

        record = evaluate_models(models, data, out, settings, overwrite=overwrite, progress=progress)
    print_report(record)
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


def print_report(record: dict[str, Any]) -> None:
    """Print the numbers that count, one row a model."""
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from lenspipe.report.page import number, with_interval

    task = record["task"]
    table = Table(box=box.SIMPLE, title=f"{record['data']['folder']}, split {record['data']['split'] or 'all'}")
    if task == "find":
        rates = list(record["tpr_at_fpr"])
        headings = ["model", "AUROC", *(f"TPR at {r}" for r in rates), "TPR0", "TPR10", "ECE"]
    elif task == "classify":
        headings = ["model", "accuracy", "AUROC macro", "micro", *record["data"]["classes"]]
    else:
        headings = ["model", "target", "MAE", "MSE", "RMSE", "RMSE of the mean / RMSE", "inside 1 sigma"]
    for heading in headings:
        table.add_column(heading)
    for result in record["models"]:
        m = result["metrics"]
        if task == "find":
            cells = [number(m["tpr_at_fpr"][r]["value"], 3) for r in rates]
            area = with_interval(m["auroc"], m["auroc_interval95"])
            table.add_row(result["name"], area, *cells, *(number(m[k], 3) for k in ("tpr0", "tpr10", "ece")))
        elif task == "classify":
            areas = [with_interval(c["auroc"], c["auroc_interval95"]) for c in m["per_class"].values()]
            found = (number(m[k]) for k in ("accuracy", "auroc_macro", "auroc_micro"))
            table.add_row(result["name"], *found, *areas)
        else:
            for target, t in m["targets"].items():
                held = (t["coverage"] or {}).get("1sigma")
                inside = with_interval(held["value"], held["interval95"]) if held else "-"
                found = (number(t[k]) for k in ("mae", "mse", "rmse", "mean_rmse_over_rmse"))
                table.add_row(result["name"], target, *found, inside)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    console.print(table)
    if task == "find":
        console.print(f"{record['n_lens']} lenses, {record['n_other']} others; - where a rate is not measurable.")
