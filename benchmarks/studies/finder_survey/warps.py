"""
Space Warps candidates as graded stamps, split by a hash of their number, for `lenspipe finder --grades`.

    python -m benchmarks.studies.finder_survey.warps --real ../shared/data --out warps-0 --fold 0 --folds 2

Stamps of the fold are of split ``test``, all others ``train``. Folds are not by place on the sky: `fold_of` says which
neighbours lie in two of them.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.studies.real_sky.ground import BANDS, CFHTLS_SCALE_ARCSEC, spacewarps_stamps
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part
from lenspipe.stamps.splits import half_of

LENS_FROM, NONLENS = 2.0, 0.3


def all_warps(real: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Stamps in nJy and grades of both halves, those for choosing first."""
    halves = [spacewarps_stamps(real, reserved=reserved) for reserved in (False, True)]
    return np.concatenate([h[0] for h in halves]), np.concatenate([h[1] for h in halves])


def fold_of(n: int, folds: int) -> NDArray[np.int64]:
    """
    Fold of each candidate, by a hash of its number, not by its place on the sky.

    Of the 109 that are used four pairs lie within 33" of each other. With two, four or five folds those 14.2", 26.4"
    and 32.8" apart lie in different ones, those 26.0" apart in the same. Stamps are 18.9" wide: those 14.2" apart
    (grades 2.7 and 0.3) share pixels.
    """
    return np.array([sum(half_of(f"warps-{k}-{b}") == "odd" for b in range(8)) % folds for k in range(n)])


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the data set.")
@click.option("--fold", type=int, required=True)
@click.option("--folds", type=int, default=2, show_default=True)
def main(real: Path, out: Path, fold: int, folds: int) -> None:
    """Write the graded stamps of all folds, one of them held out."""
    stamps, grade = all_warps(real)
    use = np.flatnonzero((grade >= LENS_FROM) | np.isclose(grade, NONLENS))
    held_out = fold_of(len(grade), folds) == fold
    spec = ImageSpec(BANDS, stamps.shape[-1], CFHTLS_SCALE_ARCSEC)
    schema = stamp_schema({"image": spec}, [pa.field("survey", pa.string(), metadata={"description": "survey"})])
    columns = {
        "stamp_id": [f"warps-{k}" for k in use],
        "label": ["lens" if grade[k] >= LENS_FROM else "nonlens" for k in use],
        "recipe": ["spacewarps"] * len(use),
        "seed": [None] * len(use),
        "host": [f"warps-{k}" for k in use],
        "split": ["test" if held_out[k] else "train" for k in use],
        "survey": ["cfhtls"] * len(use),
    }
    arrays = [
        image_column(stamps[use], spec) if f.name == "image" else pa.array(columns[f.name], f.type) for f in schema
    ]
    write_part(pa.table(arrays, schema=schema), out, "warps")


if __name__ == "__main__":
    main()
