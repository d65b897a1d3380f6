"""`lenspipe calibrate`: a finder's map from score to probability, or a classifier's rule when to abstain."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lenspipe.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lenspipe.evaluate.stream import Member
    from lenspipe.nn.card import ModelCard
    from lenspipe.stamps.format import StampSet


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Data set of labelled stamps.",
)
@click.option("--split", default="validation", show_default=True, help="Rows of this split; 'all' for every row.")
@click.option(
    "--method",
    type=click.Choice(["platt", "temperature", "isotonic"]),
    default="platt",
    show_default=True,
    help="Finder: form of the map.",
)
@click.option(
    "--accuracy",
    type=click.FloatRange(0, 1, min_open=True),
    default=None,
    help="Classifier: accuracy asked of the stamps that it keeps. [default: 0.8]",
)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder of the calibrated copy.")
@click.option("--in-place", is_flag=True, help="Write the calibration into the card of MODEL itself.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def command(
    model: str,
    data: Path,
    split: str,
    method: str,
    accuracy: float | None,
    out: Path | None,
    in_place: bool,
    device: str,
) -> int:
    """
    Fit what MODEL (a shipped name or a folder) needs beside its weights on stamps that it has not seen.

    Of a finder the probability of a lens given its score; of a classifier the rule when it abstains, whose cost is
    measured on the split test. Weights are not touched. Without --out and --in-place the fit is shown and nothing is
    written.
    """
    from lenspipe.evaluate.stream import open_members
    from lenspipe.nn.card import CARD_FILE, WEIGHTS_FILE, write_card
    from lenspipe.stamps.format import StampSet

    if out is not None and in_place:
        raise ConfigError("give --out or --in-place, not both")
    if out is not None and out.exists():
        raise ConfigError("the folder of the calibrated copy exists; choose another --out", out=str(out))
    stamps = StampSet.open(data)
    member = open_members([model], stamps, device=device)[0]
    rows = None if split == "all" else split
    if member.card.task == "classify":
        card = abstaining(member, stamps, rows, accuracy or 0.8)
    elif accuracy is not None:
        raise ConfigError("--accuracy is about classifiers", model=model, task=member.card.task)
    else:
        card = calibrated(member, stamps, rows, method)
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


def calibrated(member: Member, stamps: StampSet, split: str | None, method: str) -> ModelCard:
    """Card of a finder with its probabilities fitted; says how well they hold."""
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.evaluate.calibration import calibrate_finder

    with ShownProgress("stamp") as shown:
        fitted = calibrate_finder(
            member,
            stamps,
            split=split,
            method=method,  # type: ignore[arg-type]
            progress=shown.counter("Scoring"),
        )
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
    return member.card.with_outputs(calibration=c)


def abstaining(member: Member, stamps: StampSet, split: str | None, accuracy: float) -> ModelCard:
    """Card of a classifier with its rule of abstention fitted; says what the rule costs."""
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.evaluate.abstention import collect, cost_of, fit_abstention, widest_psf_of
    from lenspipe.evaluate.stream import count_rows

    held_out = "test" if split not in (None, "test") else None
    if held_out is not None:
        try:
            count_rows(stamps, held_out)
        except DataError:
            held_out = None
    with ShownProgress("stamp") as shown:
        fitted_on = collect(member, stamps, split=split, progress=shown.counter("Fitting"))
        judged_on = held_out and collect(member, stamps, split=held_out, progress=shown.counter("Judging"))
    card = member.card
    rule = fit_abstention(
        fitted_on,
        n_class=len(card.classes),
        accuracy=accuracy,
        data=f"{stamps.folder.name}, split {split or 'all'}, model {member.predictor.digest}",
        widest_psf=widest_psf_of(stamps, card.bands),
    )
    click.echo(f"{member.name} abstains by a rule from {rule.n} stamps ({rule.data})")
    psf = ", ".join(f'{width:g}" in {band}' for band, width in rule.widest_psf_arcsec.items()) or "not known"
    click.echo(f'  light: S/N from {rule.least_snr:g}, radius from {rule.least_radius_arcsec:g}"; PSF up to {psf}')
    if rule.least_confidence is None:
        click.echo(f"  no confidence gives an accuracy of {accuracy:g}: it always abstains")
    else:
        click.echo(f"  confidence from {rule.least_confidence:.4f}, for an accuracy of {accuracy:g}")
    facts = judged_on or fitted_on
    cost = cost_of(facts, rule) | {"split": held_out or split or "all"}
    kept, right, whole = (cost[name] for name in ("kept", "accuracy_kept", "accuracy_all"))
    click.echo(f"  split {cost['split']}: {kept['k']} of {kept['n']} kept")
    click.echo(f"  accuracy {_of(right)} of these, {_of(whole)} of all")
    return card.with_outputs(abstention=rule).model_copy(update={"metrics": {**card.metrics, "abstention": cost}})


def _of(part: dict[str, Any]) -> str:
    low, high = part["interval95"]
    return "-" if part["value"] is None else f"{part['value']:.3f} [{low:.3f}, {high:.3f}]"
