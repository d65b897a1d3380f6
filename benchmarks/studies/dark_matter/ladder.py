"""
Networks that learn a recipe from heavier substructure down: a ladder of masses, each rung from the last.

    python -m benchmarks.studies.dark_matter.ladder --work FOLDER --model equivariant-c8 [--fraction 0.1]

The network is shown `SHOWN`: the root of the brightness, as it is and less its own blur, each brought to one spread,
so that what bends the smooth counts as much as the smooth. The first rung has ten to thirty times the published mass,
where a vortex can be seen; each ends by a clock: a learning rate that falls to nothing. A part of the stamps takes the
same steps, ``--part-of-steps`` so many times the steps of each rung. Each rung is judged on its own test split, and all
of them on that of the last; recorded at once; what was cut off is gone on with. `--model` names a family of
`jobs/dark_matter.toml`, with its first settings there; ``--model NAME+`` its second ones (`timm:resnet18+` as it is).
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import dataclasses
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.metrics import roc_curve

from benchmarks import record
from benchmarks.studies.dark_matter.cells import DataTable, cell_of
from benchmarks.studies.dark_matter.cells import stamps_of as simulated
from benchmarks.studies.substructure.judge import micro_interval
from benchmarks.timing import Clock
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import stamp_input
from lenspipe.learn.finish import HISTORY_FILE
from lenspipe.learn.fit_state import STATE_FILE
from lenspipe.learn.sweep.space import Trial
from lenspipe.learn.train import train
from lenspipe.simulate.recipe import read_recipe
from lenspipe.stamps.format import StampSet
from lenspipe.toml import put_over


@dataclasses.dataclass(frozen=True)
class Rung:
    """A data set of the recipe with so many times the mass, and how long it is trained on."""

    times: tuple[float, float]
    """Of the mass that the recipe has."""
    count: int | None
    seed: int | None
    """Those of the queue where None."""
    steps: int
    """Of 32 stamps, in epochs of `STEPS`."""
    learning_rate: float
    """The highest; warmed up to, and down from by a cosine."""

    def __str__(self) -> str:
        return "-".join(f"{value:g}" for value in sorted(set(self.times)))


N_SHOWN = 300
"""Stamps whose features are kept."""
STEPS = 200
SINGLE = (
    Rung((10, 30), 24000, 11, 600, 0.004),
    Rung((3, 10), 24000, 13, 800, 0.004),
    Rung((1, 1), None, None, 1600, 0.003),
)
"""For recipes with one mass."""
RANGES = (
    Rung((10, 10), 24000, 11, 600, 0.004),
    Rung((3, 3), 24000, 13, 800, 0.004),
    Rung((1, 1), None, None, 1600, 0.003),
)
"""For recipes with a range of masses."""
LADDERS = {
    "model-f": (SINGLE, ("published.mass_fraction",)),
    "model-j": (SINGLE, ("published.mass_fraction",)),
    "deeplense-1": (RANGES[1:], ("published.subhalo_mass_msun", "published.vortex_mass_msun")),
    "substructure-1": (RANGES, ("substructure.mass_fraction", "substructure.vortex_mass_msun")),
}
"""Rungs of a recipe, and the keys of its masses."""
SHOWN = {
    "input.stretch": "sqrt",
    "input.alpha": 0.8,
    "input.q": 0.14,
    "input.high_pass_px": 1.5,
    "input.high_pass_beside": True,
    "input.channel_scales": "measured",
}
"""The noise of sky and photons of `model-f` comes out alike everywhere."""


def stamps_of(data: DataTable, rung: Rung, work: Path) -> Path:
    """Folder of a rung's stamps, simulated where it is not there."""
    own = read_recipe(data.recipe).model_dump()
    masses = {}
    for key in LADDERS[data.recipe][1]:
        table, name = key.split(".")
        masses[key] = [float(f"{value * times:.6g}") for value, times in zip(own[table][name], rung.times, strict=True)]
    return simulated(data, work, name=str(rung), more=masses, count=rung.count, seed=rung.seed)


def falling(steps: int, learning_rate: float) -> dict[str, Any]:
    """Settings of a training of so many steps, whose rate falls to nothing."""
    return {
        "optim.epochs": max(1, round(steps / STEPS)),
        "optim.learning_rate": learning_rate,
        "optim.schedule": "cosine",
        "optim.patience": None,
        "optim.frozen_epochs": 0,  # all is loaded: nothing would be learnt
        "sampling.curriculum": None,
        "sampling.steps_per_epoch": STEPS,
    }


def climb(
    trial: Trial,
    stamps: Path,
    rung: Rung,
    out: Path,
    before: Path | None,
    seed: int,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train on a rung, from the network of the one before, and judge."""
    changes = falling(rung.steps, rung.learning_rate) | (more or {})
    return {"times_the_mass": list(rung.times)} | learnt(trial, stamps, out, seed, changes, before)


def learnt(
    trial: Trial, stamps: Path, out: Path, seed: int, changes: dict[str, Any], before: Path | None = None
) -> dict[str, Any]:
    """Train with changed settings, or go on with it, and judge."""
    clock, new = Clock(), not (out / HISTORY_FILE).exists()
    card = train(
        stamps,
        model=trial.family,
        task="classify",
        out=out,
        settings=put_over(trial.settings, {"optim.threads": 1} | changes, origin="study"),
        seed=seed,
        pretrained=str(before / STATE_FILE) if before else None,
        keep_head=before is not None,
    )
    return {
        "n_train": int(sum(card.training["n_train"].values())),
        "trained_parameters": card.training.get("n_parameter"),
        "epochs": card.training["epochs"],
        "steps": card.training["steps"],
        "training_s": card.training["seconds"],
        "cpu_s": round(clock.cpu_s, 1) if new else None,  # of one that is judged again it is not known
        "curve": [round(float(auc), 4) for auc in pq.read_table(out / HISTORY_FILE)["auc"].to_pylist()],
        "test": judged_on(out, stamps),
    }


def judged_on(model: Path, stamps: Path) -> dict[str, Any]:
    """What a network says of a test split."""
    data = StampSet.open(stamps)
    members, rows = open_members([model], data), list[pa.Table]()
    (metrics,) = judged(members, data, JudgeSettings(split="test"), on_rows=rows.append).metrics().values()
    table, classes = pa.concat_tables(rows), members[0].outputs.classes
    p = np.stack([table[f"probability_{c}"].to_numpy() for c in classes], axis=1)
    truth = np.array(table["label"].to_pylist())[:, None] == np.array(classes)
    kept = ("n", "accuracy", "auroc_macro", "auroc_micro", "per_class", "confusion", "classes")
    found = {key: metrics[key] for key in kept if key in metrics}
    return found | {
        "auroc_micro_interval95": micro_interval(p, truth),
        "parameters": members[0].predictor.n_parameter,
        "roc": {str(c): roc_of(p[:, k], truth[:, k]) for k, c in enumerate(classes)},
        "plane": plane_of(members[0].predictor, data),
    }


def roc_of(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> list[list[float]]:
    """Rates of false and of true positives, at no more than 60 places along the curve."""
    false, true, _ = roc_curve(truth, score)
    chosen = np.unique(np.linspace(0, len(false) - 1, 60).round().astype(int))
    return [[round(float(x), 4), round(float(y), 4)] for x, y in zip(false[chosen], true[chosen], strict=True)]


def plane_of(model: Predictor, data: StampSet) -> dict[str, list[list[float]]]:
    """Features of the first `N_SHOWN` test stamps in the plane of their largest variance, by class."""
    (name,), rows = data.images, np.flatnonzero(data.column("split") == "test")[:N_SHOWN]
    spec = data.images[name]
    shown = stamp_input(
        data.read_images(name, rows), bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=model.card
    )
    features = model.features(shown).astype(np.float64)
    label = data.column("label")[rows]
    flat = PCA(2).fit_transform(features / np.maximum(features.std(axis=0), 1e-9))
    return {str(c): np.round(flat[label == c], 3).tolist() for c in np.unique(label)}


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Data sets and states of trainings.")
@click.option("--model", "family", default="equivariant-c8", show_default=True, help="A family of the sweep.")
@click.option("--recipe", default="model-f", show_default=True)
@click.option("--fraction", default=1.0, show_default=True, help="Part of the training stamps, one of the sweep.")
@click.option("--part-of-steps", default=1.0, show_default=True, help="Part of the steps of each rung.")
@click.option("--seed", type=int, default=0, show_default=True)
@record.keep_option
def main(work: Path, family: str, recipe: str, fraction: float, part_of_steps: float, seed: int, keep: bool) -> None:
    """Climb down, and record each rung."""
    chosen = cell_of(recipe, family, fraction)
    data, trial = chosen.data, chosen.trial
    cell = f"{family.replace(':', '-')}-{100 * fraction:g}-{part_of_steps:g}"
    name = f"dark_matter_ladder_{recipe}_{cell}_{seed}"
    head = {"recipe": recipe, "family": family, "fraction": fraction, "part_of_steps": part_of_steps, "seed": seed}
    rungs: list[dict[str, Any]] = []
    before = None
    ladder = LADDERS[recipe][0]
    for whole in ladder:
        rung = dataclasses.replace(whole, steps=round(part_of_steps * whole.steps))
        out = work / "cells" / recipe / f"{cell}-{rung}-{seed}"
        rungs.append(climb(trial, stamps_of(data, rung, work), rung, out, before, seed, SHOWN))
        if whole is not ladder[-1]:
            rungs[-1]["test_of_the_last"] = judged_on(out, stamps_of(data, ladder[-1], work))
        before = out
        record.write(name, head | {"shown": SHOWN, "rungs": rungs}, keep=keep)


if __name__ == "__main__":
    main()
