"""`lenspipe calibrate`: a finder's map from score to probability, a committee's, or a classifier's rule of silence."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenspipe.cli.options import OUT_FOLDER, Command, data_of, data_option
from lenspipe.errors import ConfigError
from lenspipe.store.urls import is_url

if TYPE_CHECKING:
    from lenspipe.stamps.format import StampSet


@click.command(cls=Command)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@data_option("Data set of labelled stamps")
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
@click.option(
    "--features",
    default=None,
    metavar="NAME|DIR",
    help="Generator: model whose features describe stamps. [default: a shipped one that takes them]",
)
@click.option(
    "--training-set",
    is_flag=True,
    help="Finder: instead of the map, keep how the stamps that it was trained on (split train of --data) look among "
    "its own features, by which a scan tells candidates that are unlike all of them; scores stay as they are.",
)
@click.option("--out", type=OUT_FOLDER, default=None, help="Folder of the calibrated copy.")
@click.option("--in-place", is_flag=True, help="Write the calibration into the card of MODEL itself.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def command(
    models: tuple[str, ...],
    folders: tuple[str, ...],
    split: str,
    method: str,
    accuracy: float | None,
    features: str | None,
    training_set: bool,
    out: Path | None,
    in_place: bool,
    device: str,
) -> int:
    """
    Fit what MODEL (a shipped name or a folder) needs beside its weights on stamps that it has not seen.

    Of a finder the probability of a lens given its score; of a classifier the rule when it abstains, whose cost is
    measured on the split test; of a generator the verdict of its gates; of several finders, or a committee's folder,
    the probability given the score that they have together, and --out is the committee's folder. Weights are not
    touched. Without --out and --in-place the fit is shown and nothing is written.
    """
    from lenspipe.disk import locked, locked_beside
    from lenspipe.nn.card import find_model
    from lenspipe.nn.committee import is_committee
    from lenspipe.stamps.joined import open_stamps

    if out is not None and in_place:
        raise ConfigError("give --out or --in-place, not both")
    if in_place and any(map(is_url, models)):
        raise ConfigError("a model at a URL is not changed in place; give --out", model=models[0])
    if out is not None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        with locked_beside(out):  # removes the lock that a killed one left
            raise ConfigError("the folder of the calibrated copy exists; choose another --out", out=str(out))
    stamps = open_stamps(data_of(folders), one_grid=False)
    if training_set:
        if len(models) > 1 or is_committee(models[0]):
            raise ConfigError("--training-set is about one model", models=" ".join(models))
        with locked(find_model(models[0])) if in_place else contextlib.nullcontext():
            return _keep_training_set(models[0], stamps, out, in_place, device)
    if len(models) > 1 or is_committee(models[0]):
        with locked(Path(models[0])) if in_place else contextlib.nullcontext():
            return _calibrate_committee(models, stamps, split, method, accuracy, out, in_place, device)
    (model,) = models
    with locked(find_model(model)) if in_place else contextlib.nullcontext():
        return _calibrate_model(model, stamps, split, method, accuracy, features, out, in_place, device)


def _calibrate_model(
    model: str,
    stamps: StampSet,
    split: str,
    method: str,
    accuracy: float | None,
    features: str | None,
    out: Path | None,
    in_place: bool,
    device: str,
) -> int:
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.disk import new_folder
    from lenspipe.evaluate.judges import judge_for
    from lenspipe.evaluate.judges.contract import CalibrateSettings
    from lenspipe.evaluate.judging import open_members
    from lenspipe.nn.card import CARD_FILE, files_of, write_card
    from lenspipe.readme import write_readme

    member = open_members([model], stamps, device=device)[0]
    settings = CalibrateSettings(
        split=None if split == "all" else split,
        method=method,  # type: ignore[arg-type]
        accuracy=accuracy,
        features=features,
    )
    with ShownProgress("stamp") as shown:
        fitted = judge_for(member.outputs).calibrate(member, stamps, settings, shown.counters())
    for line in fitted.said:
        click.echo(line)
    if out is not None:
        with new_folder(out) as new:
            for name in files_of(fitted.card)[:-1]:
                shutil.copyfile(member.folder / name, new / name)
            write_readme(new, "model")
            write_card(new, fitted.card)
        click.echo(f"{out / CARD_FILE}: written")
    elif in_place:
        write_card(member.folder, fitted.card)
        click.echo(f"{member.folder / CARD_FILE}: written")
    else:
        click.echo("Nothing was written: add --out DIR, or --in-place.")
    return 0


def _keep_training_set(model: str, stamps: StampSet, out: Path | None, in_place: bool, device: str) -> int:
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.disk import new_folder
    from lenspipe.evaluate.familiarity import learn_training_set
    from lenspipe.evaluate.judging import open_members
    from lenspipe.infer.training_set import write_training_set
    from lenspipe.nn.card import CARD_FILE, WEIGHTS_FILE, write_card
    from lenspipe.nn.outputs import Find
    from lenspipe.stamps.joined import digest_of_data

    member = open_members([model], stamps, device=device)[0]
    if not isinstance(member.outputs, Find):
        raise ConfigError("--training-set is about finders", model=member.name, task=member.card.task)
    with ShownProgress("stamp") as shown:
        familiar, n = learn_training_set(member, stamps, shown.counter("training set"))
    own = member.card.training.get("data_digest")
    same = own == digest_of_data(stamps)
    whose = "the data of its training" if same else "not the data of its training"
    data = f"{stamps.title} ({digest_of_data(stamps)}), {whose}"
    click.echo(
        f"{member.name}: {n} stamps of split train, {len(familiar.means)} labels, {len(familiar.held_out)} held out"
    )
    if not same:
        click.echo(f"These are not the stamps that the model was trained on ({own}); the card says so.")
    if out is None and not in_place:
        click.echo("Nothing was written: add --out DIR, or --in-place.")
        return 0
    with new_folder(out) if out is not None else contextlib.nullcontext(member.folder) as folder:
        if out is not None:
            shutil.copyfile(member.folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
        write_card(folder, write_training_set(folder, member.card, familiar, n=n, data=data))
    click.echo(f"{(out or member.folder) / CARD_FILE}: written")
    return 0


def _calibrate_committee(
    models: tuple[str, ...],
    stamps: StampSet,
    split: str,
    method: str,
    accuracy: float | None,
    out: Path | None,
    in_place: bool,
    device: str,
) -> int:
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.disk import new_folder
    from lenspipe.evaluate.committee import calibrate_committee
    from lenspipe.nn.committee import COMMITTEE_FILE, committee_of, open_committee, write_committee

    if accuracy is not None:
        raise ConfigError("--accuracy is about classifiers", models=" ".join(models))
    if in_place and len(models) > 1:
        raise ConfigError("several models become a committee in a folder of its own; name it by --out")
    committee = open_committee(models[0]) if len(models) == 1 else committee_of(models, name=out.name if out else None)
    with ShownProgress("stamp") as shown:
        fitted, said = calibrate_committee(
            committee,
            stamps,
            split=None if split == "all" else split,
            method=method,  # type: ignore[arg-type]
            device=device,
            progress=shown.counters(),
        )
    for line in said:
        click.echo(line)
    folder = Path(models[0]) if in_place else out
    if folder is None:
        click.echo("Nothing was written: add --out DIR, or --in-place.")
    else:
        with contextlib.nullcontext(folder) if in_place else new_folder(folder) as new:
            write_committee(new, fitted)
        click.echo(f"{folder / COMMITTEE_FILE}: written")
    return 0
