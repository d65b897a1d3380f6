"""
The comparison of `jobs/dark_matter.toml` on CPUs: cell after cell, each recorded at once, resumed after a kill.

    chrt --idle 0 nice -n 19 python -m benchmarks.studies.dark_matter.queue --work FOLDER [--recipe model-f] [--list]

A cell is a network, a recipe, a part of the stamps and a seed, simulated, fitted and trained as `fitted.py` does.
``--work`` keeps data sets and states of trainings; called again with it, the queue goes on within the simulation, the
fit or the training that was cut off, and leaves cells that have a record, whoever made it. The order is that of
`queue.toml`: what tells most comes first.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

from pathlib import Path

import click

from benchmarks import record
from benchmarks.studies.dark_matter.cells import cells, read_queue
from benchmarks.studies.dark_matter.fitted import run_cell
from lenspipe.errors import LenspipeError
from lenspipe.rundir import read_json, write_json


def state_of(path: Path) -> str:
    """What a record says, in a word."""
    if not path.exists():
        return "to do"
    found = read_json(path)["result"]
    return "failed" if "error" in found else f"recorded: {found['test']['auroc_micro']:.3f}"


@click.command()
@click.option("--work", type=click.Path(path_type=Path), help="Data sets and states of trainings.")
@click.option("--records", type=click.Path(path_type=Path), default=record.RESULTS, help="Folder of the records.")
@click.option("--recipe", "recipes", multiple=True, help="Only cells of this recipe; may be repeated.")
@click.option("--list", "only_list", is_flag=True, help="List all cells and which are recorded, and stop.")
@click.option("--count", type=int, default=None, help="Stop after this many cells. [default: all]")
def main(work: Path | None, records: Path, recipes: tuple[str, ...], only_list: bool, count: int | None) -> None:
    """Run the cells that have no record."""
    every = [cell for cell in cells(*read_queue()) if not recipes or cell.data.recipe in recipes]
    todo = [cell for cell in every if not (records / f"{cell.name}.json").exists()]
    if only_list:
        for cell in every:
            print(f"{cell.name:<80} {state_of(records / f'{cell.name}.json')}")
        print(f"{len(every)} cells, {len(every) - len(todo)} with a record")
        return
    if work is None:
        raise click.UsageError("--work is needed (or --list).")
    records.mkdir(parents=True, exist_ok=True)
    for cell in todo[:count]:
        print(cell.name, flush=True)
        try:
            found = run_cell(cell, work)
        except LenspipeError as error:
            found = {"recipe": cell.data.recipe, "family": cell.family, "error": str(error)}
        write_json(records / f"{cell.name}.json", record.told(cell.name, found))
        print("  ", found.get("error") or (found["test"]["auroc_micro"], found["steps"]), flush=True)


if __name__ == "__main__":
    main()
