"""
What the residual of a fitted smooth lens is worth as a further plane of the input (`lenspipe.nn.smooth_lens`).

    python -m benchmarks.studies.dark_matter.residual --work FOLDER

One family of `jobs/dark_matter.toml` is trained on the stamps of the ladder's first rung with and without that plane,
for the same number of steps, and judged on its test split and on that of the last rung.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import dataclasses
from pathlib import Path

import click

from benchmarks import record
from benchmarks.studies.dark_matter.cells import cell_of
from benchmarks.studies.dark_matter.ladder import SINGLE, climb, judged_on, stamps_of


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Data sets and states of trainings.")
@click.option("--model", "family", default="timm:resnet18", show_default=True, help="A family of the sweep.")
@click.option("--steps", default=3200, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@record.keep_option
def main(work: Path, family: str, steps: int, seed: int, keep: bool) -> None:
    """Train with and without the residual, and record each."""
    cell = cell_of("model-f", family, 1.0)
    data, trial = cell.data, cell.trial
    rung = dataclasses.replace(SINGLE[1], steps=steps)
    name = family.replace(":", "-")
    found = {}
    for shown, more in (("plain", {}), ("residual", {"input.smooth_residual": True})):
        out = work / "residual" / f"{name}-{shown}-{seed}"
        found[shown] = climb(trial, stamps_of(data, rung, work), rung, out, None, seed, more)
        found[shown]["test_of_the_last"] = judged_on(out, stamps_of(data, SINGLE[-1], work))
        result = {"recipe": "model-f", "family": family, "seed": seed, "trained": found}
        record.write(f"dark_matter_residual_model-f_{name}_{seed}", result, keep=keep)


if __name__ == "__main__":
    main()
