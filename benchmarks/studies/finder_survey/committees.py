"""
Finders of KiDS alone and averaged with each other, on the judge of `benchmarks.studies.finder_survey.grades`.

    python -m benchmarks.studies.finder_survey.committees ground-gri fresh graded0 --real ../shared/data --fold 0

    python -m benchmarks.studies.finder_survey.committees ground-gri fresh --real ../shared/data --most 3 \
        --taught ground-gri-graded=taught/half-200/seeds-2026-2027-2028 --folds 4 --name finders_survey_designs

Scores are averaged in standard deviations of those of KiDS galaxies. With ``--fold`` only the candidates of that fold
count, as for a finder that was taught by the others (`warps.py`). A finder of ``--taught`` has a training per fold
(`teach.py`): each candidate is scored by that of its fold, KiDS by that of all candidates, or the finder of that name
where there is none. Gains of committees are over the first of ``--taught``, or the first finder. ``--turns`` adds each
finder over the eight turns and mirrors of a stamp (x8); ``--stack`` weighs all members by a logistic regression on the
candidates of the other folds, KiDS by one on all.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks import record
from benchmarks.studies.finder_survey.grades import Sky, kept_sky, kids_of, scored, sky_of
from benchmarks.studies.finder_survey.teach import ALL, Judge, Scores, scores_of
from benchmarks.studies.finder_survey.warps import LENS_FROM, NONLENS, fold_of
from benchmarks.studies.real_sky.ground import area
from benchmarks.timing import Clock


def held_out(
    folder: Path, sky: Sky, tag: str, *, folds: int, whole: str, way: str = "soup", turns: bool = False
) -> Scores:
    """
    Scores of a finder that has a training per fold: candidates by that of their fold, KiDS by that of all.

    Where none saw all candidates, the model named by ``whole`` takes its place.
    """
    fold = fold_of(len(sky.grade), folds)
    of_fold = [scores_of(folder / f"fold-{number}" / way, sky, tag, turns=turns)["warps"] for number in range(folds)]
    last = folder / f"fold-{ALL}" / way
    kids = scores_of(last, sky, tag, turns=turns) if last.exists() else scored(whole, sky, turns=turns)
    return kids | {"warps": np.choose(fold, of_fold)}


def stacked(members: dict[str, Scores], judge: Judge) -> tuple[Scores, list[float]]:
    """Scores weighed by a logistic regression on the candidates of other folds, KiDS by one on all; those weights."""
    sure = judge.good | judge.poor
    columns = {key: np.stack([one[key] for one in members.values()], axis=1) for key in ("warps", "galaxies", "arcs")}

    def fitted(rows: NDArray[np.bool_]) -> LogisticRegression:
        return LogisticRegression(class_weight="balanced").fit(columns["warps"][rows], judge.good[rows])

    whole = fitted(sure)
    out = {key: whole.decision_function(values) for key, values in columns.items()}
    for number in np.unique(judge.fold):
        own = judge.fold == number
        other = fitted(sure & ~own)
        at = other.decision_function(columns["galaxies"])  # in standard deviations of KiDS, as all scores are
        out["warps"][own] = (other.decision_function(columns["warps"][own]) - np.median(at)) / at.std()
    return out, [float(weight) for weight in whole.coef_[0]]


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--fold", type=int, default=None, help="Only the candidates of this fold. [default: all]")
@click.option("--folds", type=int, default=2, show_default=True)
@click.option(
    "--taught",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Finder with a training per fold below FOLDER (fold-0/soup, ..., fold-all/soup; FOLDER:model before the mean "
    "of weights); repeatable.",
)
@click.option(
    "--sky", "sky_file", type=click.Path(path_type=Path), default=None, help="File that keeps what is painted."
)
@click.option("--turns/--no-turns", default=False, help="Also each finder over eight turns and mirrors.")
@click.option("--stack/--no-stack", default=False, help="Also all finders, weighed by a regression within folds.")
@click.option(
    "--most", type=click.IntRange(min=1), default=None, help="Members of a committee, at most. [default: all]"
)
@click.option("--passes", type=click.IntRange(min=1), default=12, show_default=True, help="Of painting the KiDS rows.")
@click.option("--seed", type=int, default=2026, show_default=True, help="Of the painted arcs.")
@click.option("--name", default="finders_survey_committees", show_default=True, help="Name of the record.")
@record.keep_option
def main(
    models: tuple[str, ...],
    real: Path,
    fold: int | None,
    folds: int,
    taught: tuple[str, ...],
    sky_file: Path | None,
    turns: bool,
    stack: bool,
    most: int | None,
    passes: int,
    seed: int,
    name: str,
    keep: bool,
) -> None:
    """Judge MODELs and the committees of two and more of them."""
    clock = Clock()
    sky = (
        kept_sky(sky_file, real, models[0], seed=seed, passes=passes)
        if sky_file
        else sky_of(real, models[0], seed=seed, passes=passes)
    )
    use = np.ones(len(sky.grade), bool) if fold is None else fold_of(len(sky.grade), folds) == fold
    good, poor = use & (sky.grade >= LENS_FROM), use & np.isclose(sky.grade, NONLENS)
    scores: dict[str, Scores] = {}
    of_taught = dict(one.split("=", 1) for one in taught)
    for over_turns in (False, True) if turns else (False,):
        mark = " x8" if over_turns else ""
        scores |= {f"{Path(model).name}{mark}": scored(model, sky, turns=over_turns) for model in models}
        for one, path in of_taught.items():
            folder, _, way = path.partition(":")
            scores[one + mark] = held_out(
                Path(folder), sky, f"{seed}-{passes}", folds=folds, whole=one, way=way or "soup", turns=over_turns
            )
    judge = Judge(sky, fold_of(len(sky.grade), folds))
    over = scores[next(iter(of_taught or scores))]["warps"]
    found: dict[str, Any] = {}
    for number in range(1, (most or len(scores)) + 1):
        for names in itertools.combinations(scores, number):
            mean = {key: np.mean([scores[one][key] for one in names], axis=0) for key in scores[names[0]]}
            found[" + ".join(names)] = {
                "spacewarps_good_against_0.3": area(mean["warps"][good], mean["warps"][poor]),
                **kids_of(mean, sky),
            }
            if fold is None:
                found[" + ".join(names)]["gain"] = judge.gain(mean["warps"], over, seed)
    if stack:
        for mark in ("", " x8") if turns else ("",):
            members = {name: one for name, one in scores.items() if name.endswith(" x8") == bool(mark)}
            whole, weights = stacked(members, judge)
            found[f"stacked{mark}"] = {
                "members": list(members),
                "weights": weights,
                "spacewarps_good_against_0.3": area(whole["warps"][good], whole["warps"][poor]),
                **kids_of(whole, sky),
                "gain": judge.gain(whole["warps"], over, seed),
            }
    record.write(
        name, {"fold": fold, "folds": folds, "taught": list(of_taught), "finders": found} | clock.seconds(), keep=keep
    )


if __name__ == "__main__":
    main()
