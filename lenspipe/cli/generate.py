"""`lenspipe generate`: labelled stamps from a trained generator."""

from __future__ import annotations

from pathlib import Path

import click

from lenspipe.cli.options import OUT_FOLDER, Command
from lenspipe.errors import ConfigError


@click.command(cls=Command)
@click.argument("model", metavar="MODEL")
@click.option("--count", type=click.IntRange(min=1), required=True, help="Stamps to make.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same stamps."
)
@click.option("--out", type=OUT_FOLDER, required=True, help="New data set of stamps.")
@click.option("--label", default=None, metavar="NAME", help="Make this label only. [default: as often as in training]")
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="COLUMN=LOW:HIGH",
    help="Ask for a number, uniform in a range (theta_e_arcsec=1:2). May be repeated. [default: as in training]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of a CPU.")
def command(
    model: str, count: int, seed: int, out: Path, label: str | None, ranges: tuple[str, ...], device: str, threads: int
) -> int:
    """
    Make labelled stamps with MODEL, a generator, for trainings alone: nothing is ever judged on them.

    A stamp is in nJy, depends on the model, the seed and its number only, and names its generator. Exit code: 0 done, 2
    bad request.
    """
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.infer.generate import Asked, Generator
    from lenspipe.infer.generated_set import write_generated
    from lenspipe.nn.card import find_model, verdict
    from lenspipe.simulate.sheet import write_contact_sheet

    numbers = [_range(text) for text in ranges]
    if len(dict(numbers)) < len(numbers):
        raise ConfigError("--range names a column twice", got=" ".join(ranges))
    asked = Asked(label, dict(numbers))
    generator = Generator(find_model(model), device=device, threads=threads)
    with ShownProgress("stamp") as progress:
        progress.stage("Generating", count, 0)
        done = [0]

        def count_up(now: int) -> None:
            progress.advance(now - done[0])
            done[0] = now

        stamps = write_generated(
            generator, out, count=count, seed=seed, asked=asked, sheet=write_contact_sheet, progress=count_up
        )
    said = verdict(generator.card)
    if said == "failed":
        reasons = "; ".join(generator.card.metrics["gate"]["reasons"])
        click.echo(f"This generator FAILED its gates: {reasons}")
    elif said == "none":
        click.echo("This generator was not judged: `lenspipe calibrate MODEL --data STAMPS --in-place` runs its gates.")
    click.echo(f"{stamps.n} stamps in the split train, marked as made by {generator.card.name}: {out}")
    return 0


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, _, numbers = text.partition("=")
    low, _, high = numbers.partition(":")
    try:
        return name.strip(), (float(low), float(high or low))
    except ValueError:
        raise ConfigError("--range needs COLUMN=LOW:HIGH", got=text) from None
