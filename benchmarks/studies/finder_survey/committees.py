"""
Finders of KiDS alone and averaged with each other, on the judge of `benchmarks.studies.finder_survey.grades`.

    python -m benchmarks.studies.finder_survey.committees ground-gri fresh graded0 --real ../shared/data --fold 0

Scores are averaged in standard deviations of those of KiDS galaxies. With ``--fold`` only the candidates of that fold
count, as for a finder that was taught by the others (`warps.py`).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import record
from benchmarks.studies.finder_survey.grades import kids_of, scored, sky_of
from benchmarks.studies.finder_survey.warps import LENS_FROM, NONLENS, fold_of
from benchmarks.studies.real_sky.ground import area
from benchmarks.timing import Clock


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--fold", type=int, default=None, help="Only the candidates of this fold. [default: all]")
@click.option("--folds", type=int, default=2, show_default=True)
@click.option("--passes", type=click.IntRange(min=1), default=12, show_default=True, help="Of painting the KiDS rows.")
@click.option("--seed", type=int, default=2026, show_default=True, help="Of the painted arcs.")
@click.option("--name", default="finders_survey_committees", show_default=True, help="Name of the record.")
@record.keep_option
def main(
    models: tuple[str, ...], real: Path, fold: int | None, folds: int, passes: int, seed: int, name: str, keep: bool
) -> None:
    """Judge MODELs and the committees of two and more of them."""
    clock = Clock()
    sky = sky_of(real, models[0], seed=seed, passes=passes)
    use = np.ones(len(sky.grade), bool) if fold is None else fold_of(len(sky.grade), folds) == fold
    good, poor = use & (sky.grade >= LENS_FROM), use & np.isclose(sky.grade, NONLENS)
    scores = {Path(model).name: scored(model, sky) for model in models}
    found: dict[str, Any] = {}
    for number in range(1, len(scores) + 1):
        for names in itertools.combinations(scores, number):
            mean = {key: np.mean([scores[one][key] for one in names], axis=0) for key in scores[names[0]]}
            found[" + ".join(names)] = {
                "spacewarps_good_against_0.3": area(mean["warps"][good], mean["warps"][poor]),
                **kids_of(mean, sky),
            }
    record.write(name, {"fold": fold, "folds": folds, "finders": found} | clock.seconds(), keep=keep)


if __name__ == "__main__":
    main()
