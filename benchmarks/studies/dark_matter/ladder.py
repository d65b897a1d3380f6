"""
A network that learns a published recipe from heavier substructure down: a ladder of mass fractions, each from the last.

    python -m benchmarks.studies.dark_matter.ladder --work FOLDER --model equivariant-c8

At the published mass, a hundredth of the lens's, a network of 26,000 parameters is at chance after a thousand steps,
even where its strongest substructure comes first (`queue`). Here the first rung has up to six times the mass, and all
of them end by a clock: a learning rate that falls to nothing is worth more to the average of the weights than steps
beyond it. Each rung is judged on its own test split, and the first also on that of the last; recorded at once; what was
cut off is gone on with. `--model` names a family of `jobs/dark_matter.toml`, with its first settings there.
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

from benchmarks import record
from benchmarks.studies.dark_matter.queue import DataTable, read_queue
from benchmarks.studies.substructure.judge import micro_interval
from benchmarks.timing import Clock
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.learn.finish import HISTORY_FILE
from lenspipe.learn.fit_state import STATE_FILE
from lenspipe.learn.sweep.space import Trial, grid
from lenspipe.learn.train import train
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet
from lenspipe.toml import put_over

MASS = "published.mass_fraction"


@dataclasses.dataclass(frozen=True)
class Rung:
    """A data set of the recipe with another mass, and how long it is trained on."""

    mass_fraction: tuple[float, float]
    count: int
    seed: int
    epochs: int
    learning_rate: float
    """The highest; warmed up to, and down from by a cosine."""

    def __str__(self) -> str:
        return "-".join(f"{value:g}" for value in sorted(set(self.mass_fraction)))


RUNGS = (Rung((0.01, 0.06), 64000, 7, 10, 0.004), Rung((0.01, 0.01), 64000, 1, 8, 0.002))


def stamps_of(data: DataTable, rung: Rung, work: Path) -> Path:
    """Folder of a rung's stamps, simulated where it is not there."""
    folder = work / "data" / f"{data.recipe}-{rung}"
    recipe = read_recipe(data.recipe, changes=data.changes | {MASS: list(rung.mass_fraction)})
    simulate(recipe, count=rung.count, seed=rung.seed, out=folder, resume=folder.exists())
    return folder


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
    clock = Clock()
    changes = {
        "optim.threads": 1,
        "optim.epochs": rung.epochs,
        "optim.learning_rate": rung.learning_rate,
        "optim.schedule": "cosine",
        "optim.patience": None,
        "sampling.curriculum": None,
        "sampling.steps_per_epoch": None,
        **(more or {}),
    }
    card = train(
        stamps,
        model=trial.family,
        task="classify",
        out=out,
        settings=put_over(trial.settings, changes, origin="study"),
        seed=seed,
        pretrained=str(before / STATE_FILE) if before else None,
        keep_head=before is not None,
    )
    return {
        "mass_fraction": list(rung.mass_fraction),
        "n_train": int(sum(card.training["n_train"].values())),
        "trained_parameters": card.training.get("n_parameter"),
        "epochs": card.training["epochs"],
        "steps": card.training["steps"],
        "training_s": card.training["seconds"],
        "cpu_s": round(clock.cpu_s, 1),
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
    return found | {"auroc_micro_interval95": micro_interval(p, truth), "parameters": members[0].predictor.n_parameter}


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Data sets and states of trainings.")
@click.option("--model", "family", default="equivariant-c8", show_default=True, help="A family of the sweep.")
@click.option("--recipe", default="model-f", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@record.keep_option
def main(work: Path, family: str, recipe: str, seed: int, keep: bool) -> None:
    """Climb down, and record each rung."""
    queue, space = read_queue()
    data = next(one for one in queue.data if one.recipe == recipe)
    trial = next(one for one in grid(space) if one.family == family and one.settings.sampling.fraction == 1.0)
    name = f"dark_matter_ladder_{recipe}_{family.replace(':', '-')}_{seed}"
    rungs: list[dict[str, Any]] = []
    before = None
    for rung in RUNGS:
        out = work / "cells" / f"{family.replace(':', '-')}-{rung}-{seed}"
        rungs.append(climb(trial, stamps_of(data, rung, work), rung, out, before, seed))
        if rung is not RUNGS[-1]:
            rungs[-1]["test_of_the_last"] = judged_on(out, stamps_of(data, RUNGS[-1], work))
        before = out
        record.write(name, {"recipe": recipe, "family": family, "seed": seed, "rungs": rungs}, keep=keep)


if __name__ == "__main__":
    main()
