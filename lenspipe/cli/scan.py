"""`lenspipe scan`: survey tiles in, ranked candidates out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenspipe import plugins
from lenspipe.cli import complete
from lenspipe.cli.options import (
    OUT_FOLDER,
    Command,
    assigned,
    for_survey,
    gpus_options,
    runner_option,
    set_option,
    settings_of,
    workers_option,
)
from lenspipe.errors import ConfigError
from lenspipe.toml import put_over

if TYPE_CHECKING:
    from lenspipe.runner import RunnerName, Workers


@click.command(cls=Command)
@click.argument("tiles", nargs=-1, metavar="TILES...")
@click.option(
    "--survey",
    shell_complete=complete.surveys,
    default=None,
    metavar="NAME|FILE",
    help="Survey layout: a shipped name or a .toml file. [default: generic]",
)
@click.option("--out", type=OUT_FOLDER, default=None, help="Run folder. [default: a new runs/NAME-UTC]")
@click.option(
    "--model",
    "models",
    shell_complete=complete.models,
    multiple=True,
    metavar="NAME|DIR",
    help="Model or committee that scores; 'none' for no scores. Several models score as a committee. "
    "[default: a shipped one that fits]",
)
@click.option(
    "--engine",
    type=click.Choice(["torch", "onnx"]),
    default=None,
    help="What runs the model: torch, or ONNX Runtime on CPUs (lenspipe[onnx]). [default: torch]",
)
@click.option(
    "--denoiser",
    shell_complete=complete.models,
    default=None,
    metavar="NAME|DIR",
    help="Denoiser that cutouts go through before the model. [default: none]",
)
@click.option(
    "--substructure",
    multiple=True,
    metavar="NAME|DIR",
    help="Classifier or regression of dark matter, for probable lenses; one of each at most (docs/substructure.md).",
)
@click.option(
    "--substructure-above",
    type=click.FloatRange(0, 1),
    default=None,
    help="Probability from which a candidate is looked at by --substructure. [default: 0.5]",
)
@click.option(
    "--embed",
    default=None,
    metavar="DIR",
    help="Embedding whose vector of each candidate is kept, for `lenspipe similar` (docs/embedding.md).",
)
@click.option(
    "--anomaly",
    default=None,
    metavar="DIR",
    help="Model that says how unlike normal stamps a candidate is (docs/anomaly.md).",
)
@click.option(
    "--anomaly-above",
    type=click.FloatRange(0, 1),
    default=None,
    help="Probability from which a candidate is looked at by --anomaly. [default: all, or that of --substructure]",
)
@click.option(
    "--prior",
    default=None,
    metavar="FRACTION|DIR",
    help="Fraction of lenses among candidates, for probability, or the folder of a selection function that measured "
    "it. [default: from the survey's lenses_per_deg2]",
)
@runner_option()
@workers_option("CPUs to use")
@gpus_options
@click.option("--resume", is_flag=True, help="Resume the run in --out.")
@click.option("--config", "config_file", default=None, metavar="FILE", help="Settings (`lenspipe settings scan`).")
@set_option("detect.threshold_sigma=2 or survey.zero_point.ab=25", settings="scan")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Scan only the first N tiles.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--sample", is_flag=True, help="Scan a small simulated survey that is made on the spot.")
@click.option(
    "--shard-px", type=click.IntRange(min=64, max=16384), default=None, help="Side of a shard's core, pixels."
)
@click.option(
    "--zero-point-ab",
    type=float,
    default=None,
    help="Zero-point for images that have none (recorded as an assumption).",
)
@click.option(
    "--detector",
    type=click.Choice(["sep", "photutils", *plugins.entries(plugins.DETECTORS)]),
    default=None,
    help="Source detection. [default: sep]",
)
@click.option(
    "--match",
    "lists",
    multiple=True,
    metavar="FILE",
    help="Lists that the last step matches with, and compares magnitudes with where they have any. [default: lenscat]",
)
@click.option("--catalog/--no-catalog", default=True, show_default=True, help="Write RUN/catalog as the last step.")
def command(
    tiles: tuple[str, ...],
    survey: str | None,
    out: Path | None,
    models: tuple[str, ...],
    engine: str | None,
    denoiser: str | None,
    substructure: tuple[str, ...],
    substructure_above: float | None,
    embed: str | None,
    anomaly: str | None,
    anomaly_above: float | None,
    prior: str | None,
    runner: RunnerName,
    workers: int | Workers | None,
    gpus: int | Workers | None,
    scorers_per_gpu: int,
    resume: bool,
    config_file: str | None,
    assignments: tuple[str, ...],
    limit: int | None,
    dry_run: bool,
    sample: bool,
    shard_px: int | None,
    zero_point_ab: float | None,
    detector: str | None,
    lists: tuple[str, ...],
    catalog: bool,
) -> int:
    """
    Scan survey TILES (files, folders, globs, URLs, or a manifest) into a candidate catalogue.

    Exit code: 0 done, 2 bad request, 3 done with failures.
    """
    from lenspipe.api.run import absolute_tiles, model_setting, path_or_name, run_folder, start_of
    from lenspipe.catalog.known import read_known_lenses
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.cli.scan_summary import print_end, print_plan, print_result, print_sample_end, print_sample_truth
    from lenspipe.completeness.prior import stated_prior
    from lenspipe.scan.after.catalog import FOLDER
    from lenspipe.scan.config import ScanConfig
    from lenspipe.scan.request import ScanRequest
    from lenspipe.scan.run import run_scan
    from lenspipe.survey.layout import read_layout

    if sample and tiles:
        raise ConfigError("--sample makes its own tiles; leave TILES out", tiles=tiles[0])
    if not sample and not tiles:
        raise ConfigError("nothing to scan: give TILES, or --sample")
    if lists and not catalog:
        raise ConfigError("--match is about the catalogue; leave --no-catalog out")
    for name in lists:
        read_known_lenses(name)  # a list that cannot be read is refused before the scan
    if resume and out is None:
        raise ConfigError("--resume needs the --out of the run to resume")
    assignments_to_config, assignments_to_layout = for_survey(assignments)
    layout = read_layout(survey or ("sample" if sample else "generic"))
    layout = put_over(layout, assigned(assignments_to_layout), origin="--set survey")
    if substructure_above is not None and not (substructure or config_file):
        raise ConfigError("--substructure-above is about --substructure, which is not given")
    config = settings_of(
        ScanConfig,
        config_file,
        assignments_to_config,
        {
            "score.model": model_setting(models),
            "score.engine": engine,
            "score.denoiser": denoiser and path_or_name(denoiser),
            "score.prior": None if prior is None else stated_prior(prior),
            "substructure.models": tuple(map(path_or_name, substructure)) or None,
            "substructure.above": substructure_above,
            "embedder": embed and path_or_name(embed),
            "anomalies.model": anomaly and path_or_name(anomaly),
            "anomalies.above": anomaly_above,
            "shard.core_px": shard_px,
            "zero_point_ab": zero_point_ab,
            "detect.detector": detector,
        },
    )
    folder = run_folder(out, layout.name)
    with ShownProgress("shard") as progress:
        start = start_of(
            "local" if dry_run else runner,
            workers,
            progress.say,
            gpus=None if dry_run else gpus,
            scorers_per_gpu=1 if dry_run else scorers_per_gpu,
        )
        if sample:
            from lenspipe.scan.sample import make_sample

            progress.say("Making the sample survey: simulated g r i tiles with injected lenses")
            tiles = (str(make_sample(folder / "sample")),)
        request = ScanRequest(absolute_tiles(tiles), layout, config, limit)
        if dry_run:
            print_plan(request, runner, workers)
            return 0
        result = run_scan(request, folder, start, progress, resume=resume)
    print_result(result, request)
    if sample:
        print_sample_truth(result)
    if catalog:
        _catalog(result.folder, lists)
        if sample and result.totals.scored:
            print_sample_end(result)
        elif result.totals.candidates and (result.folder / FOLDER).exists():
            print_end(result)
    return result.exit_code


def _catalog(run: Path, lists: tuple[str, ...]) -> None:
    from lenspipe.cli.catalog import print_catalog
    from lenspipe.scan.after.catalog import FOLDER, MAX_ROWS_IN_MEMORY, catalog_run

    record = catalog_run(run, lists)
    if record is None:
        click.echo(
            f"No catalogue yet: there are more than {MAX_ROWS_IN_MEMORY:,} candidates. Write it by "
            f"`lenspipe catalog {run} --out DIR` (about 1 GiB of memory a million), or with --distributed on a cluster."
        )
        return
    print_catalog(run / FOLDER, record)
