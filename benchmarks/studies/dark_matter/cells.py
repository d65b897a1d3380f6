"""The cells of `jobs/dark_matter.toml` at a size for CPUs: a network, a recipe, a part of its stamps, a seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenspipe.learn.sweep.space import SweepSpace, Trial, grid
from lenspipe.simulate.recipe import Recipe, read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.toml import Table, read_toml

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
STEPS = 4800
"""Of a cell whose name does not say how many."""


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

    recipes: tuple[str, ...] | None = None
    """Recipes; all where null."""
    models: tuple[int, ...] | None = None
    """Places in the space; all where null."""
    fractions: tuple[float, ...] | None = None
    """Parts of the stamps; all of the space where null."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights and order."""
    steps: int | None = None
    """Steps of each training, its rate falling to nothing; where null it ends by its own curve, as the space says."""
    plain: bool = False
    """Whether the network is shown the stamps alone."""
    masses: bool = False
    """Whether it is shown a map of point masses too."""


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
    family: str
    """A family of the space; with a ``+`` for each one of the same family before it there."""
    trial: Trial
    seed: int = 0
    steps: int | None = STEPS
    plain: bool = False
    masses: bool = False

    @property
    def short(self) -> str:
        """Its network, part of the stamps and length."""
        part = f"{100 * self.trial.settings.sampling.fraction:g}"
        length = "-curve" if self.steps is None else "" if self.steps == STEPS else f"-{self.steps}"
        return f"{self.family.replace(':', '-')}-{part}{length}" + "-plain" * self.plain + "-masses" * self.masses

    @property
    def name(self) -> str:
        """Name of its record."""
        return f"dark_matter_fitted_{self.data.recipe}_{self.short}_{self.seed}"


def read_queue() -> tuple[QueueTable, SweepSpace]:
    """The queue, and the space that it is of."""
    queue = read_toml(HERE / "queue.toml", QueueTable)
    return queue, read_toml(ROOT / queue.space, SweepSpace)


def trials(space: SweepSpace) -> list[tuple[int, str, Trial]]:
    """Place of the model in the space, family as `Cell` has it, and trial."""
    found, seen = [], dict[float, list[str]]()
    for trial in grid(space):
        before = seen.setdefault(trial.settings.sampling.fraction, [])
        found.append((len(before), trial.family + "+" * before.count(trial.family), trial))
        before.append(trial.family)
    return found


def cells(queue: QueueTable, space: SweepSpace) -> list[Cell]:
    """All cells in order, each once."""
    every = trials(space)
    found: dict[str, Cell] = {}
    for stage, data in itertools.product(queue.stage, queue.data):
        for (place, family, trial), seed in itertools.product(every, stage.seeds):
            of_recipe = stage.recipes is None or data.recipe in stage.recipes
            of_model = stage.models is None or place in stage.models
            of_part = stage.fractions is None or trial.settings.sampling.fraction in stage.fractions
            if of_recipe and of_model and of_part:
                cell = Cell(data, family, trial, seed, stage.steps, stage.plain, stage.masses)
                found.setdefault(cell.name, cell)
    return list(found.values())


def cell_of(recipe: str, family: str, fraction: float, **how: Any) -> Cell:
    """The cell of a recipe, a network and a part of the stamps; seed, steps, plain and masses as of `Cell`."""
    queue, space = read_queue()
    data = next(one for one in queue.data if one.recipe == recipe)
    known = {(name, trial.settings.sampling.fraction): trial for _, name, trial in trials(space)}
    if (family, fraction) not in known:
        raise ValueError(f"the space has no {family} on {fraction} of the stamps: {sorted(known)}")
    return Cell(data, family, known[family, fraction], **how)


def recipe_of(data: DataTable, more: Mapping[str, Any] = {}) -> Recipe:
    """Recipe of a data set, with more put over it."""
    return read_recipe(data.recipe, changes=data.changes | dict(more))


def stamps_of(
    data: DataTable,
    work: Path,
    *,
    name: str = "1",
    more: Mapping[str, Any] = {},
    count: int | None = None,
    seed: int | None = None,
) -> Path:
    """Folder of a data set, or of one with more put over its recipe under another name; simulated where missing."""
    folder = work / "data" / f"{data.recipe}-{name}"
    many, of = (data.count if count is None else count), (data.seed if seed is None else seed)
    simulate(recipe_of(data, more), count=many, seed=of, out=folder, resume=folder.exists())
    return folder
