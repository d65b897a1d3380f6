"""
Non-lenses that a finder takes for lenses, repeated among the painted stamps of a survey that it goes on with.

    lenspipe finder tuned/scan --runner local --out hard --pretrained ground-gri --until stamps \
        --set stamps.count=12000 --set stamps.luminous=true --set stamps.crowd_fraction=0.25 \
        --set stamps.classes.companions=14 --set stamps.classes.satellites=6 --set stamps.classes.merger=4 \
        --set stamps.classes.group=4 --set 'hosts.fractions=[0.84,0.08,0.08]'     # tuned: `ship`
    python -m benchmarks.studies.finder_survey.hard hard/stamps --out hard/mined

Half of them are real sources as they are, half painted look-alikes: of the training rows alone, those that the finder
scores highest. Setting ``hard-200`` of `teach` learns from them.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.studies.real_sky.ground import logits
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import find_model
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.tables import read_parquet

PART = "hard"


def hardest(score: NDArray[np.float64], is_real: NDArray[np.bool_], part: float) -> NDArray[np.int64]:
    """Rows with the highest scores, ``part`` of all: half of them real ones, half painted, as far as there are."""
    n = round(part * len(score) / 2)
    of_kind = [np.flatnonzero(is_real == kind) for kind in (True, False)]
    return np.concatenate([rows[np.argsort(-score[rows], kind="stable")][:n] for rows in of_kind])


def mined(painted: Path, base: str, out: Path, *, part: float, repeats: int) -> dict[str, int]:
    """Link a data set and add a part with the hardest non-lenses of its training split; how many of which kind."""
    data = StampSet.open(painted)
    kind, label, split = (data.column(name) for name in ("kind", "label", "split"))
    rows = np.flatnonzero((label == "nonlens") & (split == "train"))
    predictor = Predictor(find_model(base))
    scale = data.images["image"].pixel_scale_arcsec
    shown = [data.read_images("image", some) for some in np.array_split(rows, max(1, len(rows) // 500))]
    score = np.concatenate([logits(predictor, some, scale) for some in shown])
    taken = rows[hardest(score, kind[rows] == "real", part)]
    out.mkdir(parents=True)
    for file in data.parts:
        (out / file.name).symlink_to(os.path.relpath(file.resolve(), out.resolve()))
    whole = pa.concat_tables([read_parquet(file) for file in data.parts])
    again = [whole.take(np.sort(taken))] * repeats
    names = [f"{name}-hard-{k}" for k, one in enumerate(again) for name in one["stamp_id"].to_pylist()]
    table = pa.concat_tables(again)
    at = table.schema.get_field_index("stamp_id")
    table = table.set_column(at, table.schema.field(at), pa.array(names, table.schema.field(at).type))
    write_part(table, out, PART)
    return {str(name): int((kind[taken] == name).sum()) for name in dict.fromkeys(sorted(kind[taken]))}


@click.command()
@click.argument("painted", type=click.Path(path_type=Path, exists=True))
@click.option("--base", default="ground-gri", show_default=True, help="Finder that scores.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the data set.")
@click.option("--part", default=0.125, show_default=True, help="Of the non-lenses that train.")
@click.option("--repeats", default=4, show_default=True, help="Times that each is shown beside the first.")
def main(painted: Path, base: str, out: Path, part: float, repeats: int) -> None:
    """Add the hardest non-lenses of PAINTED stamps to them."""
    print(mined(painted, base, out, part=part, repeats=repeats))


if __name__ == "__main__":
    main()
