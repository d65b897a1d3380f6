"""`lenspipe shots`: a finder of a handful of graded examples."""

from __future__ import annotations

from pathlib import Path

import click

from lenspipe.cli.options import OUT_FOLDER, Command, FolderType

RULES = ("prototypes", "linear")


@click.command(cls=Command)
@click.argument("model", metavar="MODEL")
@click.option(
    "--shots",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Graded candidates, lenses and others: files of the page, a CSV with ra, dec, grade, or a folder of stamps.",
)
@click.option("--run", type=FolderType(writes=False, exists=True), help="Run that positions are cut from.")
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the finder.")
@click.option(
    "--rule",
    type=click.Choice(RULES),
    default=RULES[0],
    show_default=True,
    help="Nearest mean of examples, or a logistic regression.",
)
@click.option("--lens-from", type=float, default=2.0, show_default=True, help="Mean grade from which one is a lens.")
@click.option("--nonlens-to", type=float, default=0.5, show_default=True, help="Mean grade up to which it is none.")
def command(
    model: str, shots: tuple[Path, ...], run: Path | None, out: Path, rule: str, lens_from: float, nonlens_to: float
) -> int:
    """
    Make a finder that knows a lens by a handful of graded examples, without training.

    MODEL is a finder, a classifier or an embedding: its trunk stays, its last layer follows from the examples. The
    folder is what `lenspipe scan --model` takes. Exit code: 0 done, 2 bad request.
    """
    from lenspipe.catalog.grades import demand_apart
    from lenspipe.finder.settings import GradeSettings
    from lenspipe.finder.shots import finder_of_shots
    from lenspipe.report.page import with_interval

    demand_apart(lens_from=lens_from, nonlens_to=nonlens_to)
    settings = GradeSettings(lens_from=lens_from, nonlens_to=nonlens_to)
    card = finder_of_shots(model, shots, out, run=run, rule=rule, settings=settings)
    found = card.metrics["left_out"]
    area = with_interval(found["auc"], found["interval95"])
    click.echo(
        f"{out}: {found['n_lens']} lenses and {found['n_other']} others; AUC of each example by the rest {area}. "
        f"Scan with it: lenspipe scan TILES --model {out}"
    )
    return 0
