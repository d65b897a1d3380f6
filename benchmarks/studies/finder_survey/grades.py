"""
A finder of KiDS that goes on with Space Warps grades, each candidate judged by a training that did not see it.

    python -m benchmarks.studies.finder_survey.grades fresh/stamps --real ../shared/data --work folds --beside fresh

``fresh`` is the finder that `benchmarks.studies.finder_survey.crop` says how to make. Candidates are dealt to folds by
their place on the sky. For each fold a training goes on from ``--base`` with the painted stamps and the candidates of
all other folds (`lenspipe.finder.rounds`), and scores its own. Scores of two trainings are not comparable, so each is
taken in standard deviations of the scores that the same training gives KiDS galaxies. A fold that is there is kept.
Models named by ``--beside`` are judged alone and averaged with each training, as a committee.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.data import KIDS_SCALE_ARCSEC
from benchmarks.studies.finder_survey.warps import LENS_FROM, NONLENS, all_warps, fold_of
from benchmarks.studies.real_sky.ground import (
    BANDS,
    CFHTLS_SCALE_ARCSEC,
    area,
    bright_arcs,
    completeness,
    kids_test,
    logits,
    ordinary,
    painted_passes,
)
from benchmarks.timing import Clock
from lenspipe.finder.graded import Graded
from lenspipe.finder.rounds import open_bases, settings_for, write_round_stamps
from lenspipe.finder.settings import FinderSettings
from lenspipe.infer.predict import Predictor
from lenspipe.learn.train import train
from lenspipe.nn.card import CARD_FILE, WEIGHTS_FILE, find_model
from lenspipe.simulate.on_hosts import to_grid
from lenspipe.stamps.format import StampSet
from lenspipe.stats.intervals import fraction
from lenspipe.stats.recall import threshold_passed_by
from lenspipe.toml import put_over

SHARE = "grades.share"
LAST = "all"
"""Name of the training that sees every candidate: what would be shipped."""


@dataclass(frozen=True, eq=False)
class Sky:
    """What is scored, cut once for all models."""

    warps: NDArray[np.float32]
    grade: NDArray[np.float64]
    galaxies: NDArray[np.float32]
    arcs: NDArray[np.float32]
    truth: list[dict[str, Any]]


def sky_of(real: Path, model: str, *, seed: int, passes: int) -> Sky:
    """Space Warps stamps, unseen KiDS galaxies, and arcs painted and found among them, cut for one field of view."""
    predictor = Predictor(find_model(model))
    tile = kids_test(real, predictor)
    arcs: list[NDArray[np.float32]] = []
    truth: list[dict[str, Any]] = []
    for again, near, found, drawn in painted_passes(predictor, real, tile, seed=seed, n_pass=passes, min_arc_snr=10.0):
        arcs += [again.hosts[k].pixels_njy for k in near]
        truth += [row | {"seen": bool(seen)} for row, seen in zip(drawn, found, strict=True)]
    warps, grade = all_warps(real)
    galaxies = np.stack([host.pixels_njy for host in ordinary(tile)])
    return Sky(warps, grade, galaxies, np.stack(arcs), truth)


def kept_sky(file: Path, real: Path, model: str, *, seed: int, passes: int) -> Sky:
    """`sky_of`, kept in a file: painting and searching the rows takes longer than scoring them."""
    of = [str(seed), str(passes), model]
    if not file.exists():
        sky = sky_of(real, model, seed=seed, passes=passes)
        np.savez(
            file,
            warps=sky.warps,
            grade=sky.grade,
            galaxies=sky.galaxies,
            arcs=sky.arcs,
            truth=json.dumps(sky.truth),
            of=of,
        )
    with np.load(file) as stored:
        if stored["of"].tolist() != of:
            raise click.UsageError(f"{file} holds arcs of another seed, number of passes or model")
        truth = json.loads(str(stored["truth"]))
        return Sky(stored["warps"], stored["grade"], stored["galaxies"], stored["arcs"], truth)


def scored(model: str, sky: Sky, *, turns: bool = False) -> dict[str, NDArray[np.float64]]:
    """Logits in standard deviations of those of KiDS galaxies; with ``turns``, means over eight turns and mirrors."""
    predictor = Predictor(find_model(model))
    card = predictor.card
    warps, scale = sky.warps, CFHTLS_SCALE_ARCSEC
    if card.min_scale_arcsec > scale:  # finer than a finder of KiDS takes: on its own grid
        side = int(warps.shape[-1] * scale / card.pixel_scale_arcsec) | 1
        warps = np.stack([to_grid(stamp, scale, side, card.pixel_scale_arcsec) for stamp in warps])
        scale = card.pixel_scale_arcsec
    shown = {"warps": warps, "galaxies": sky.galaxies, "arcs": sky.arcs}
    found = {
        name: np.mean(
            [
                logits(predictor, one, scale if name == "warps" else KIDS_SCALE_ARCSEC)
                for one in (turned(stamps) if turns else (stamps,))
            ],
            axis=0,
        )
        for name, stamps in shown.items()
    }
    middle, spread = np.median(found["galaxies"]), found["galaxies"].std()
    return {name: (values - middle) / spread for name, values in found.items()}


def turned(stamps: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Stamps ``(n, band, y, x)`` in their eight turns and mirrors, as they are first."""
    for mirrored in (stamps, stamps[..., ::-1]):
        for quarter in range(4):
            yield np.ascontiguousarray(np.rot90(mirrored, quarter, axes=(2, 3)))


def kids_of(scores: dict[str, NDArray[np.float64]], sky: Sky) -> dict[str, Any]:
    """Painted arcs recalled where 1 % of KiDS galaxies pass, and galaxies above what 80 % of the arcs pass."""
    rows = [
        row | {"logit": float(one) if row["seen"] else None} for row, one in zip(sky.truth, scores["arcs"], strict=True)
    ]
    galaxies = scores["galaxies"]
    found = completeness(rows, threshold_passed_by(galaxies, 0.01))
    above = int((galaxies >= np.quantile(bright_arcs(rows), 0.2)).sum())
    return {
        "painted_arcs_where_1_percent_pass": found["theta_e_1_to_2.5_snr_30"],
        "kids_above_what_80_percent_of_arcs_pass": fraction(above, len(galaxies)),
    }


def taught(painted: Path, base: str, graded: Graded, out: Path, settings: FinderSettings, seed: int) -> Path:
    """A training that goes on from a finder with painted and graded stamps."""
    if (out / "model" / CARD_FILE).exists():
        return out / "model"
    (begun,) = open_bases(base, {})
    spec = StampSet.open(painted).images["image"]
    share, most = settings.grades.share, settings.grades.most_repeats
    if not (out / "stamps").exists():
        write_round_stamps(painted, out / "stamps", graded, spec=spec, share=share, most_repeats=most, seed=seed)
    asked = settings_for(settings, out.name, BANDS, begun)
    asked = put_over(asked, {"input.stamp_px": None}, origin="study")  # on the grid of the painted stamps
    train(
        out / "stamps",
        model=begun.card.family,
        task="find",
        out=out / "model",
        settings=asked,
        seed=seed,
        pretrained=str(begun.folder / WEIGHTS_FILE),
        keep_head=True,
    )
    return out / "model"


@click.command()
@click.argument("painted", type=click.Path(path_type=Path, exists=True))
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of the trainings.")
@click.option("--base", default="ground-gri", show_default=True, help="Finder that each training goes on from.")
@click.option("--beside", multiple=True, help="Model that is judged alone and beside each training; repeatable.")
@click.option("--folds", type=click.IntRange(min=2), default=4, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=60, show_default=True, help="Of an epoch.")
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--rate", type=float, default=5e-4, show_default=True, help="Peak learning rate.")
@click.option("--share", type=float, default=0.3, show_default=True, help="Part of each class that is graded.")
@click.option("--passes", type=click.IntRange(min=1), default=12, show_default=True, help="Of painting the KiDS rows.")
@click.option("--seed", type=int, default=2026, show_default=True)
@click.option("--last/--no-last", default=False, help="Train with all candidates, too; only KiDS judges that.")
@click.option("--name", default="finders_survey_folds", show_default=True, help="Name of the record.")
@record.keep_option
def main(
    painted: Path,
    real: Path,
    work: Path,
    base: str,
    beside: tuple[str, ...],
    folds: int,
    steps: int,
    epochs: int,
    rate: float,
    share: float,
    passes: int,
    seed: int,
    last: bool,
    name: str,
    keep: bool,
) -> None:
    """Teach finders by grades and judge them by candidates that they did not see."""
    clock = Clock()
    one_core: dict[str, object] = {"optim.threads": 1, "optim.precision": "bfloat16", "optim.channels_last": True}
    changes: dict[str, object] = {"go_on.epochs": epochs, "go_on.learning_rate": rate, SHARE: share}
    changes |= {f"train.{key}": value for key, value in one_core.items()} | {"train.sampling.steps_per_epoch": steps}
    settings = put_over(FinderSettings(), changes, origin="study")
    sky = sky_of(real, base, seed=seed, passes=passes)
    fold = fold_of(len(sky.grade), folds)
    spec = StampSet.open(painted).images["image"]
    on_grid = np.stack([to_grid(s, CFHTLS_SCALE_ARCSEC, spec.size_px, spec.pixel_scale_arcsec) for s in sky.warps])
    sure = np.flatnonzero((sky.grade >= LENS_FROM) | np.isclose(sky.grade, NONLENS))

    def graded(held_out: int | None) -> Graded:
        split = ["test" if fold[k] == held_out else "train" for k in sure]
        names = tuple(f"warps-{k}" for k in sure)
        return Graded(on_grid[sure], sky.grade[sure] >= LENS_FROM, names, ("cfhtls",) * len(sure), tuple(split))

    others = {model: scored(model, sky) for model in (base, *beside)}
    good, poor = sky.grade >= LENS_FROM, np.isclose(sky.grade, NONLENS)
    result: dict[str, Any] = {
        "settings": {"folds": folds, "steps": steps, "epochs": epochs, "learning_rate": rate, "share": share},
        "alone": {
            Path(model).name: {"spacewarps_good_against_0.3": area(s["warps"][good], s["warps"][poor])}
            | kids_of(s, sky)
            for model, s in others.items()
        },
    }
    taken: dict[str, NDArray[np.float64]] = {}
    per_fold: list[dict[str, Any]] = []
    for number in range(folds):
        model = taught(painted, base, graded(number), work / f"fold-{number}", settings, seed)
        own = scored(str(model), sky)
        mixed = {"taught": own} | {
            f"taught and {' and '.join(Path(one).name for one in group)}": {
                key: np.mean([own[key], *(others[one][key] for one in group)], axis=0) for key in own
            }
            for group in ([base], *([one] for one in beside), *([[*beside, base]] if beside else []))
        }
        for title, scores in mixed.items():
            taken.setdefault(title, np.full(len(fold), np.nan))[fold == number] = scores["warps"][fold == number]
            per_fold.append({"fold": number, "what": title} | kids_of(scores, sky))
    result["held_out"] = {title: {"spacewarps_good_against_0.3": area(s[good], s[poor])} for title, s in taken.items()}
    result["kids_by_fold"] = per_fold
    if last:
        model = taught(painted, base, graded(None), work / LAST, settings, seed)
        result["with_all_candidates"] = kids_of(scored(str(model), sky), sky)
    record.write(name, result | clock.seconds(), keep=keep)


if __name__ == "__main__":
    main()
