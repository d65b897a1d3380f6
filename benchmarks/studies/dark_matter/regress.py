"""
Amounts of substructure told from stamps and what a fitted smooth lens leaves of them, beside their bounds.

    python -m benchmarks.studies.dark_matter.regress --work FOLDER [--target vortex_mass_msun ...]

Takes the fitted set of `substructure-1` that `fitted.py --masses` makes in ``--work``, with its maps of point masses. A
network of `jobs/dark_matter.toml` gives each amount and its error (Gaussian likelihood), trained on the stamps that
have it; judged on their test split.
Writes `results/dark_matter_regression_TARGET_masses_MODEL_SEED.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Any

import click

from benchmarks import record
from benchmarks.studies.dark_matter.cells import cell_of
from benchmarks.studies.dark_matter.fitted import BOTH
from benchmarks.studies.dark_matter.ladder import STEPS
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.learn.train import train
from lenspipe.stamps.format import StampSet
from lenspipe.toml import put_over

TARGETS = ("vortex_mass_msun", "subhalo_mass_fraction", "subhalo_slope")


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="The folder of `fitted.py`.")
@click.option("--target", "targets", multiple=True, type=click.Choice(TARGETS), help="[default: all]")
@click.option("--model", "family", default="equivariant-c8", show_default=True, help="A family of the sweep.")
@click.option("--steps", default=1600, show_default=True, help="Of 32 stamps.")
@click.option("--seed", type=int, default=0, show_default=True)
@record.keep_option
def main(work: Path, targets: tuple[str, ...], family: str, steps: int, seed: int, keep: bool) -> None:
    """Train and record each."""
    trial = cell_of("substructure-1", family, 1.0).trial
    folder = work / "data" / "substructure-1-1-fitted-masses"
    data = StampSet.open(folder)
    for target in targets or TARGETS:
        out = work / "cells" / "substructure-1" / f"{target}-{family.replace(':', '-')}-{seed}"
        changes: dict[str, Any] = {
            **BOTH,
            "labels.targets": [target],
            "labels.uncertainty": "gaussian",
            "optim.threads": 1,
            "optim.epochs": steps // STEPS,
            "optim.learning_rate": 2 * trial.settings.optim.learning_rate,
            "optim.schedule": "cosine",
            "optim.patience": None,
            "optim.monitor": None,
            "sampling.steps_per_epoch": STEPS,
        }
        settings = put_over(trial.settings, changes, origin="study")
        card = train(folder, model=family, task="regress", out=out, settings=settings, seed=seed)
        members = open_members([out], data)
        (metrics,) = judged(members, data, JudgeSettings(split="test")).metrics().values()
        found = {
            "target": target,
            "family": family,
            "masses": True,
            "seed": seed,
            "n_train": card.training["n_train"],
            "trained_parameters": card.training.get("n_parameter"),
            "steps": card.training["steps"],
            "training_s": card.training["seconds"],
            "metrics": metrics,
        }
        record.write(f"dark_matter_regression_{target}_masses_{family.replace(':', '-')}_{seed}", found, keep=keep)


if __name__ == "__main__":
    main()
