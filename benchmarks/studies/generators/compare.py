"""
Generators of six families on small stamps: their gates, and the same classifier without and with what they make.

    python -m benchmarks.studies.generators.compare --out WORK

Whatever is done is kept in WORK, and the same command resumes: the stamps, a classifier whose features describe them,
a generator per family with its gates, then generators of a part of the training stamps alone, whose stamps a classifier
of the same part is given as well. Writes what WORK has, over what is recorded of the others, to
`results/generators.json`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.evaluate.judges.contract import CalibrateSettings, JudgeSettings
from lenspipe.evaluate.judges.generate import GenerateJudge
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.infer.generate import Generator
from lenspipe.infer.generated_set import write_generated
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import CARD_FILE, write_card
from lenspipe.rundir import write_json
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.simulate.sheet import write_contact_sheet
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.stamps.joined import Source

COUNT = 3000


@dataclass(frozen=True)
class Trial:
    """Settings of one training."""

    model: dict[str, Any]
    rate: float
    """Learning rate."""
    steps: int
    told: tuple[str, ...] | None = None
    """Numbers that it is told beside the class; where None it is told nothing and learns lenses alone."""
    precision: str = "float32"
    log_sigma: float = -0.3
    upon: str | None = None
    """The trial whose weights it begins with."""


THETA_E = ("theta_e_arcsec",)
GALAXY = (*THETA_E, "lens_mag_r", "lens_radius_arcsec", "lens_n", "axis_ratio", "arc_mag_VIS")
"""What a catalogue says of a galaxy and of its arcs: brightness, size, profile and shape, not how it is turned."""
FAMILIES = {
    "diffusion": Trial({"width": 16}, 3e-3, 4500, THETA_E),
    "diffusion-told": Trial({"width": 32, "steps": 24}, 2e-3, 3600, GALAXY, "bfloat16"),
    "diffusion-told-fine": Trial(
        {"width": 32, "steps": 24}, 1e-3, 1000, GALAXY, "bfloat16", log_sigma=-1.0, upon="diffusion-told"
    ),
    "diffusion-told-finer": Trial(
        {"width": 32, "steps": 24}, 1e-3, 2500, GALAXY, "bfloat16", log_sigma=-1.0, upon="diffusion-told"
    ),
    "gan": Trial({"width": 128}, 2e-4, 2400),
    "conditional": Trial({"width": 12}, 5e-4, 1200, THETA_E),
    "dcgan": Trial({"width": 12}, 5e-4, 1200),
    "wgan": Trial({"width": 12}, 5e-4, 2400),
    "stylegan": Trial({"width": 12}, 2e-3, 500),
}
"""A few minutes of one core each. What follows a hyphen tells apart settings of one family."""
HELPING = {"diffusion": Trial({"width": 16}, 3e-3, 800, GALAXY), "conditional": Trial({"width": 12}, 5e-4, 480, GALAXY)}
"""Generators of a part of the stamps, which a classifier is given; both make both classes."""
VALIDATION = "validation-"
"""Before the names of gates on the validation split, of which no training learns: another draw of stamps and noise."""
PARTS, SEEDS = (0.01, 0.1), (1, 2, 3)
HELPED = ("part", "seed", "given")
N_MADE = 600
CLASSIFIER = {"model": {"width": 8, "dropout": 0.0}, "optim": {"epochs": 4, "learning_rate": 3e-3, "threads": 1}}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for stamps and models.")
@click.option("--count", default=COUNT, show_default=True, help="Stamps that are simulated.")
@click.option("--shorter", default=1.0, show_default=True, help="Factor on all steps, for a trial.")
@click.option(
    "--family", "families", multiple=True, type=click.Choice([*FAMILIES]), help="These alone, helping nobody."
)
@click.option("--helping", is_flag=True, help="What a classifier gains alone, and no gates.")
@click.option(
    "--again", type=click.Choice(tuple(FAMILIES)), help="Gates of this on the validation split, and no training."
)
@click.option("--minutes", default=None, type=float, help="Begin no training after so many. [default: no limit]")
@click.option("--finished", is_flag=True, help="Record what is finished, and make nothing.")
@record.keep_option
def main(
    out: Path,
    count: int,
    shorter: float,
    families: tuple[str, ...],
    helping: bool,
    again: str | None,
    minutes: float | None,
    finished: bool,
    keep: bool,
) -> None:
    """Simulate, train, judge, record."""
    out.mkdir(parents=True, exist_ok=True)
    if again is not None:
        write_json(out / f"{VALIDATION}{again}.json", _judged(out, out / "stamps", again, "validation"))
    elif not finished:
        _make(out, count, shorter, () if helping else families or tuple(FAMILIES), helping or not families, minutes)
    kept = {file.stem: _kept(file) for file in sorted(out.glob("*.json")) if not file.stem.startswith("help-")}
    before = json.loads((record.RESULTS / "generators.json").read_text())["result"]
    here = {name: gate for name, gate in kept.items() if not name.startswith(VALIDATION)}
    gates = before["families"] | here
    others = before["validation"] | {n.removeprefix(VALIDATION): gate for n, gate in kept.items() if n not in here}
    helped = [_kept(file) for file in sorted(out.glob("help-*.json"))]
    known = [tuple(row[key] for key in HELPED) for row in helped]
    helped = [row for row in before["help"] if tuple(row[key] for key in HELPED) not in known] + helped
    passed = sum(_follows(gate) for gate in gates.values())
    aims = [record.at_least("generators that pass memorisation and physics", passed, 1)]
    record.write(
        "generators", {"count": count, "families": gates, "validation": others, "help": helped}, aims, keep=keep
    )


def _make(
    out: Path, count: int, shorter: float, families: tuple[str, ...], helping: bool, minutes: float | None
) -> None:
    stamps, clock = _stamps(out, count), Clock()
    finder = out / "finder"
    if not (finder / CARD_FILE).exists():
        _classify(stamps, finder, 150, shorter, seed=1)
    for file, make in _pieces(out, stamps, shorter, families, helping):
        if not file.exists():
            if minutes is not None and clock.wall_s > 60 * minutes:
                break
            write_json(file, make())
            print(file.stem, "done", flush=True)


def _pieces(
    out: Path, stamps: Path, shorter: float, families: tuple[str, ...], helping: bool
) -> Iterator[tuple[Path, Callable[[], dict[str, Any]]]]:
    """Each file, and what makes its content."""
    for family in families:
        yield out / f"{family}.json", partial(_gated, out, stamps, family, shorter)
    for given in ("nothing", *HELPING) if helping else ():
        for part, seed in itertools.product(PARTS, SEEDS):
            file = out / f"help-{part:g}-{seed}-{given}.json"
            yield file, partial(_helped, out, stamps, given, part, seed, shorter)


def _follows(gate: dict[str, Any]) -> bool:
    return bool(gate["physics"]["passed"]) and all(copied["passed"] for copied in gate["memorisation"].values())


def _kept(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _stamps(out: Path, count: int) -> Path:
    folder = out / "stamps"
    recipe = read_recipe(str(Path(__file__).with_name("recipe.toml")))
    simulate(recipe, count=count, seed=1, out=folder, resume=folder.exists())
    return folder


def _classify(data: Any, out: Path, steps: int, shorter: float, seed: int, fraction: float = 1.0) -> None:
    sampling = {"batch_size": 32, "steps_per_epoch": max(2, int(steps * shorter)), "fraction": fraction}
    settings = TrainSettings.model_validate(CLASSIFIER | {"sampling": sampling})
    train(data, model="small-cnn", task="find", out=out, settings=settings, seed=seed)


def _generator(data: Path, out: Path, family: str, trial: Trial, shorter: float, seed: int) -> Path:
    labels: dict[str, Any] = {"classes": ("lens",)} if trial.told is None else {"targets": trial.told}
    epochs = 20
    settings = TrainSettings.model_validate(
        {
            "model": trial.model,
            "labels": labels,
            "sampling": {"batch_size": 32, "steps_per_epoch": max(2, int(trial.steps * shorter) // epochs)},
            "optim": {
                "epochs": epochs,
                "learning_rate": trial.rate,
                "ema_decay": 0.99,
                "threads": 1,
                "weight_decay": 0.0,
                "precision": trial.precision,
                "frozen_epochs": 0,
            },
            "generate": {"watched": 16, "log_sigma": trial.log_sigma},
        }
    )
    begun = None if trial.upon is None else str(out.parent / trial.upon / "weights.safetensors")
    train(
        data, model=family.partition("-")[0], task="generate", out=out, settings=settings, seed=seed, pretrained=begun
    )
    return out


def _gated(out: Path, stamps: Path, family: str, shorter: float) -> dict[str, Any]:
    whole = not (out / family).exists()  # of a training that was taken up again the time is not known
    with Clock() as clock:
        folder = _generator(stamps, out / family, family, FAMILIES[family], shorter, 1)
    data = StampSet.open(stamps)
    (member,) = open_members([folder], data)
    settings = CalibrateSettings(split="test", features=str(out / "finder"))
    found = GenerateJudge.calibrate(member, data, settings, lambda *_: None)
    write_card(folder, found.card)
    print(family, *found.said, f"{clock.cpu_s:.0f} s", sep="\n", flush=True)
    write_generated(
        Generator(folder), out / f"{family}-made", count=240, seed=1, sheet=lambda new: write_contact_sheet(new)
    )
    gate: dict[str, Any] = found.card.metrics["gate"]
    card = found.card
    cpu_s = round(clock.cpu_s) if whole else None
    facts = {"n_parameter": card.training["n_parameter"], "steps": card.training["steps"], "cpu_s": cpu_s}
    return facts | {"told": FAMILIES[family].told} | gate


def _judged(out: Path, stamps: Path, family: str, split: str) -> dict[str, Any]:
    """A trained generator's gates on a split; its card stays as it is."""
    data = StampSet.open(stamps)
    (member,) = open_members([out / family], data)
    settings = CalibrateSettings(split=split, features=str(out / "finder"))
    gate: dict[str, Any] = GenerateJudge.calibrate(member, data, settings, lambda *_: None).card.metrics["gate"]
    return gate


def _part(out: Path, stamps: Path, part: float, seed: int) -> Path:
    """A data set of a part of the training stamps of each class, with the validation split whole."""
    folder = out / f"part-{part:g}-{seed}"
    if not folder.exists():
        data = StampSet.open(stamps)
        split, label = data.column("split"), data.column("label")
        rng = np.random.default_rng([seed, int(1000 * part)])
        rows = [np.flatnonzero(split == "validation")]
        for name in np.unique(label):
            of_class = np.flatnonzero((split == "train") & (label == name))
            rows.append(rng.permutation(of_class)[: max(1, round(part * len(of_class)))])
        chosen = np.sort(np.concatenate(rows))
        whole = pa.concat_tables(list(data.iter_batches(batch_size=1000))).combine_chunks()
        write_part(whole.take(pa.array(chosen)), folder, "part")
    return folder


def _helped(out: Path, stamps: Path, given: str, part: float, seed: int, shorter: float) -> dict[str, Any]:
    """Area under the ROC curve on the test split of a classifier of a part, alone or with a generator's stamps."""
    some = _part(out, stamps, part, seed)
    data: Any = some
    if given != "nothing":
        folder = _generator(some, out / f"{some.name}-{given}", given, HELPING[given], shorter, seed)
        made = out / f"{some.name}-{given}-made"
        if not made.exists():
            write_generated(Generator(folder), made, count=N_MADE, seed=seed)
        data = (Source(str(some), 1.0), Source(str(made), 1.0))
    model = out / f"{some.name}-{given}-finder"
    _classify(data, model, 60, shorter, seed)
    judge = StampSet.open(stamps)
    members = open_members((str(model),), judge)
    metrics = judged(members, judge, JudgeSettings(split="test")).metrics()[members[0].name]
    kept = {key: metrics[key] for key in ("n_lens", "n_other", "auroc", "auroc_interval95")}
    return {"part": part, "seed": seed, "given": given} | kept


if __name__ == "__main__":
    main()
