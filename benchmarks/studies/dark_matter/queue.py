"""
The comparison of `jobs/dark_matter.toml` on CPUs: cell after cell, each recorded at once, resumed after a kill.

    chrt --idle 0 nice -n 19 python -m benchmarks.studies.dark_matter.queue --work FOLDER [--records FOLDER] [--list]

A cell is a network, a recipe, a part of the stamps and a seed. ``--work`` keeps data sets and states of trainings;
called again with it, the queue goes on within the training that was cut off, and leaves cells that have a record. The
order is that of `queue.toml`: what tells most comes first. Records go to `results/dark_matter/CELL.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import record
from benchmarks.studies.real_sky.finders import speed_ms
from benchmarks.studies.substructure.judge import micro_interval
from benchmarks.timing import Clock
from lenspipe.errors import LenspipeError
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.learn.finish import HISTORY_FILE
from lenspipe.learn.sweep.space import SweepSpace, Trial, grid
from lenspipe.learn.train import train
from lenspipe.rundir import write_json
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet
from lenspipe.toml import Table, read_toml

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
RECORDS = record.RESULTS / "dark_matter"
FRACTION = "sampling.fraction"


class DataTable(Table):
    """A data set of the comparison."""

    recipe: str
    """Its recipe."""
    count: int
    """Stamps, all splits together."""
    seed: int = 1
    """Of the simulation."""
    changes: dict[str, Any] = {}
    """What is put over the recipe."""


class StageTable(Table):
    """Some cells of every recipe."""

    models: tuple[int, ...] | None = None
    """Places in the space; all where null."""
    fractions: tuple[float, ...] | None = None
    """Parts of the stamps; all of the space where null."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights and order."""


class QueueTable(Table):
    """The queue."""

    space: str
    """The sweep file, from the root of the repository."""
    data: tuple[DataTable, ...]
    """Data sets in order."""
    stage: tuple[StageTable, ...]
    """Stages in order."""


@dataclass(frozen=True)
class Cell:
    """One training of the comparison."""

    data: DataTable
    trial: Trial
    seed: int

    @property
    def name(self) -> str:
        """Name of its record."""
        part = f"{100 * self.trial.settings.sampling.fraction:g}"
        return f"{self.data.recipe}-{self.trial.name}-{part}-{self.seed}"


def read_queue() -> tuple[QueueTable, SweepSpace]:
    queue = read_toml(HERE / "queue.toml", QueueTable)
    return queue, read_toml(ROOT / queue.space, SweepSpace)


def cells(queue: QueueTable, space: SweepSpace) -> list[Cell]:
    """All cells in order, each once."""
    trials = grid(space)
    place = {id(t): n for t in trials for n, m in enumerate(space.model) if _is_of(t, m)}
    found: dict[str, Cell] = {}
    for stage, data in itertools.product(queue.stage, queue.data):
        for trial, seed in itertools.product(trials, stage.seeds):
            of_model = stage.models is None or place[id(trial)] in stage.models
            of_part = stage.fractions is None or trial.settings.sampling.fraction in stage.fractions
            if of_model and of_part:
                cell = Cell(data, trial, seed)
                found.setdefault(cell.name, cell)
    return list(found.values())


def _is_of(trial: Trial, model: Any) -> bool:
    own = {key.removeprefix("model."): value for key, value in trial.choice.items() if key.startswith("model.")}
    return bool(trial.family == model.family and set(own) == set(model.settings))


def stamps_of(data: DataTable, work: Path) -> Path:
    """Folder of a data set, simulated where it is not there."""
    folder = work / "data" / data.recipe
    recipe = read_recipe(data.recipe, changes=data.changes)
    simulate(recipe, count=data.count, seed=data.seed, out=folder, resume=folder.exists())
    return folder


def run_cell(cell: Cell, work: Path) -> dict[str, Any]:
    """Train a cell, or go on with it, and judge it on the split ``test``."""
    stamps = stamps_of(cell.data, work)
    folder = work / "cells" / cell.name
    clock = Clock()
    settings = cell.trial.settings
    optim = settings.optim.model_copy(update={"threads": 1})
    card = train(
        stamps,
        model=cell.trial.family,
        task="classify",
        out=folder,
        settings=settings.model_copy(update={"optim": optim, "name": cell.name}),
        seed=cell.seed,
    )
    data = StampSet.open(stamps)
    members, rows = open_members([folder], data), list[pa.Table]()
    metrics = judged(members, data, JudgeSettings(split="test"), on_rows=rows.append).metrics()[members[0].name]
    table = pa.concat_tables(rows)
    classes = members[0].outputs.classes
    p = np.stack([table[f"probability_{c}"].to_numpy() for c in classes], axis=1)
    truth = np.array(table["label"].to_pylist())[:, None] == np.array(classes)
    interval = micro_interval(p, truth)
    kept = ("n", "accuracy", "auroc_macro", "auroc_micro", "per_class", "confusion", "classes", "ece")
    return {
        "recipe": cell.data.recipe,
        "changes": cell.data.changes,
        "family": cell.trial.family,
        "choice": {key: value for key, value in cell.trial.choice.items() if key != FRACTION},
        "fraction": settings.sampling.fraction,
        "seed": cell.seed,
        "n_train": int(sum(card.training["n_train"].values())),
        "parameters": members[0].predictor.n_parameter,
        "trained_parameters": card.training.get("n_parameter"),
        "epochs": card.training["epochs"],
        "steps": card.training["steps"],
        "training_s": card.training["seconds"],
        "cpu_s": round(clock.cpu_s, 1),
        "ms_per_stamp": speed_ms(members[0]),
        "validation": card.metrics.get("validation"),
        "curve": [round(float(auc), 4) for auc in pq.read_table(folder / HISTORY_FILE)["auc"].to_pylist()],
        "test": {key: metrics[key] for key in kept if key in metrics} | {"auroc_micro_interval95": interval},
        "at_chance": at_chance(interval, card.training["epochs"], settings.optim.epochs),
    }


def at_chance(interval: list[float], epochs: int, cap: int) -> str | None:
    """Why a cell tells nothing, or None where it does."""
    if interval[0] > 0.5:
        return None
    ended = "its curve had not risen for the patience" if epochs < cap else f"after all {cap} epochs"
    return f"the 95 % interval of the micro area holds .5; the training ended as {ended}"


def todo(records: Path) -> Iterator[Cell]:
    """Cells without a record, in order."""
    for cell in cells(*read_queue()):
        if not (records / f"{cell.name}.json").exists():
            yield cell


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Data sets and states of trainings.")
@click.option("--records", type=click.Path(path_type=Path), default=RECORDS, help="Folder of the records.")
@click.option("--list", "only_list", is_flag=True, help="List the cells that are to do, and stop.")
@click.option("--data", "only_data", is_flag=True, help="Simulate the data sets, and stop.")
@click.option("--count", type=int, default=None, help="Stop after this many cells. [default: all]")
def main(work: Path, records: Path, only_list: bool, only_data: bool, count: int | None) -> None:
    """Run the cells that have no record."""
    if only_data:
        for data in read_queue()[0].data:
            print(stamps_of(data, work), flush=True)
        return
    records.mkdir(parents=True, exist_ok=True)
    for cell in itertools.islice(todo(records), count):
        print(cell.name, flush=True)
        if only_list:
            continue
        try:
            found = run_cell(cell, work)
        except LenspipeError as error:
            found = {"recipe": cell.data.recipe, "family": cell.trial.family, "error": str(error)}
        write_json(
            records / f"{cell.name}.json",
            {"date": _now(), "commit": record.commit(), "machine": record.machine(), "result": found},
        )
        print("  ", found.get("error") or (found["test"]["auroc_micro"], found["epochs"]), flush=True)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


if __name__ == "__main__":
    main()
