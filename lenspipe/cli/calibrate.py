"""`lenspipe calibrate`: the map from score to probability, fitted on held-out stamps and stored on the card."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from lenspipe.errors import ConfigError


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True,
              help="Data set of labelled stamps.")  # fmt: skip
@click.option("--split", default="validation", show_default=True, help="Rows of this split; 'all' for every row.")
@click.option("--method", type=click.Choice(["platt", "temperature", "isotonic"]), default="platt", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder of the calibrated copy.")
@click.option("--in-place", is_flag=True, help="Write the calibration into the card of MODEL itself.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def command(model: str, data: Path, split: str, method: str, out: Path | None, in_place: bool, device: str) -> int:
    """
    Fit the probability of a lens given the score of MODEL (a shipped name or a folder) on stamps it has not seen.

    Weights are not touched. Without --out and --in-place the fit is shown and nothing is written.
    """
    from lenspipe.assess.calibration import calibrate_finder
    from lenspipe.assess.stream import open_members
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.nn.card import CARD_FILE, WEIGHTS_FILE, write_card
    from lenspipe.stamps.format import StampSet

    if out is not None and in_place:
        raise ConfigError("give --out or --in-place, not both")
    if out is not None and out.exists():
        raise ConfigError("the folder of the calibrated copy exists; choose another --out", out=str(out))
    stamps = StampSet.open(data)
    member = open_members([model], stamps, device=device)[0]
    with ShownProgress("stamp") as shown:
        fitted = calibrate_finder(
            member, stamps, split=None if split == "all" else split, method=method,  # type: ignore[arg-type]
            progress=shown.counter("Scoring"),
        )  # fmt: skip
    card = member.card.model_copy(update={"calibration": fitted.calibration})
    c = fitted.calibration
    click.echo(f"{member.name}: {c.method} on {c.n_lens} lenses and {c.n_other} others ({c.data})")
    if c.method == "isotonic":
        click.echo(f"  {len(c.scores)} knots")
    else:
        click.echo(f"  log odds of the probability = {c.slope:.4f} x log odds of the score {c.intercept:+.4f}")
    click.echo(f"  raw score: ECE {fitted.before['ece']:.4f}, Brier {fitted.before['brier']:.4f}")
    if fitted.after is None:
        click.echo("  too few stamps to judge it on a half that it was not fitted on")
    else:
        click.echo(f"  calibrated on the other half: ECE {fitted.after['ece']:.4f}, Brier {fitted.after['brier']:.4f}")
    if out is not None:
        out.mkdir(parents=True)
        shutil.copyfile(member.folder / WEIGHTS_FILE, out / WEIGHTS_FILE)
        write_card(out, card)
        click.echo(f"{out / CARD_FILE}: written")
    elif in_place:
        write_card(member.folder, card)
        click.echo(f"{member.folder / CARD_FILE}: written")
    else:
        click.echo("Nothing was written: add --out DIR, or --in-place.")
    return 0
