"""
Judge finders of the KiDS tile on the real sky: Space Warps candidates, and arcs painted in rows that none has seen.

    python -m benchmarks.studies.finder_survey.judge MODEL... --real ../shared/data --name finders_survey

With ``--fold`` only the candidates of that fold are judged, as for a finder that was taught by the others (`warps.py`).
The rates on the KiDS tile are those of `benchmarks.studies.real_sky.ground`: rows 1690 on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import record
from benchmarks.studies.finder_survey.warps import LENS_FROM, NONLENS, all_warps, fold_of
from benchmarks.studies.real_sky.ground import (
    CFHTLS_SCALE_ARCSEC,
    area,
    bright_arcs,
    completeness,
    host_logits,
    injected,
    kids_test,
    logits,
    ordinary,
)
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import find_model
from lenspipe.simulate.on_hosts import to_grid
from lenspipe.stats.intervals import fraction
from lenspipe.stats.recall import threshold_passed_by


def judged(model: str, real: Path, fold: int | None, folds: int, seed: int) -> dict[str, Any]:
    """What one finder reaches."""
    predictor = Predictor(find_model(model))
    stamps, grade = all_warps(real)
    scale = predictor.card.pixel_scale_arcsec
    if predictor.card.min_scale_arcsec > CFHTLS_SCALE_ARCSEC:  # finer than a finder of KiDS takes: on its own grid
        side = int(stamps.shape[-1] * CFHTLS_SCALE_ARCSEC / scale) | 1
        resampled = np.stack([to_grid(stamp, CFHTLS_SCALE_ARCSEC, side, scale) for stamp in stamps])
        scores = logits(predictor, resampled, scale)
    else:
        scores = logits(predictor, stamps, CFHTLS_SCALE_ARCSEC)
    use = np.ones(len(grade), bool) if fold is None else fold_of(len(grade), folds) == fold
    good, poor = scores[use & (grade >= LENS_FROM)], scores[use & np.isclose(grade, NONLENS)]
    tile = kids_test(real, predictor)
    galaxies = host_logits(predictor, ordinary(tile))
    arcs = injected(predictor, real, tile, seed=seed, n_pass=6)
    at, bright = threshold_passed_by(galaxies, 0.01), bright_arcs(arcs)
    return {
        "model": Path(model).name,
        "fold": fold,
        "spacewarps_good_against_0.3": area(good, poor),
        "spacewarps_good_against_kids_galaxies": area(good, galaxies),
        "kids_galaxies": len(galaxies),
        "painted_arcs_where_1_percent_pass": completeness(arcs, at)["theta_e_1_to_2.5_snr_30"],
        "kids_above_what_80_percent_of_arcs_pass": fraction(
            int((galaxies >= np.quantile(bright, 0.2)).sum()), len(galaxies)
        ),
        "spacewarps_good_where_1_percent_of_kids_pass": fraction(int((good > at).sum()), len(good)),
    }


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--fold", type=int, default=None, help="Only the candidates of this fold. [default: all]")
@click.option("--folds", type=int, default=2, show_default=True)
@click.option("--seed", type=int, default=2026, show_default=True, help="Of the painted arcs.")
@click.option("--name", default="finders_survey", show_default=True, help="Name of the record.")
def main(models: tuple[str, ...], real: Path, fold: int | None, folds: int, seed: int, name: str) -> None:
    """Judge MODELs."""
    record.write(name, {"models": [judged(model, real, fold, folds, seed) for model in models]})


if __name__ == "__main__":
    main()
