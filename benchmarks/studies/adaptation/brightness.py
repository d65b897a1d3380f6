"""
How far brightness alone tells the labels of each domain: no network, one number per stamp.

    python -m benchmarks.studies.adaptation.brightness --real ../shared/data --work FOLDER

What a network of the target can learn and one of the simulations cannot is not a failure of adaptation. Takes the
stamps of `measure` and judges by the splits that judge there. Writes `results/adaptation_brightness.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks import record
from benchmarks.studies.adaptation import data
from benchmarks.studies.adaptation.measure import LENS, SPACE, Space
from lenspipe.evaluate.stream import iter_stamps, words
from lenspipe.stamps.format import StampSet
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval
from lenspipe.toml import read_toml

MIDDLE = slice(data.SIDE_PX // 2 - 1, data.SIDE_PX // 2 + 2)
"""The middle three pixels a side: 1.1 arcsec, inside of any arc."""


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of data.")
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@record.keep_option
def main(work: Path, real: Path, keep: bool) -> None:
    """Measure every gap to painted stamps."""
    gaps = read_toml(SPACE, Space).gap
    simulated = {name: gaps[name].simulated(work) for name in ("sim-to-real-many", "sim-to-real-matched")}
    folders = {"painted": data.painted(real, work)} | simulated
    record.write("adaptation_brightness", {name: told(folder) for name, folder in folders.items()}, keep=keep)


def told(folder: Path) -> dict[str, Any]:
    """Areas of lenses against all others and against each kind, by the flux of the middle in each band."""
    flux, label = middle(folder)
    lens = label == LENS
    kinds = {kind: lens | (label == kind) for kind in np.unique(label[~lens])}
    return {
        kind: {"n_other": int((rows & ~lens).sum())}
        | {band: area(flux[rows, k], lens[rows]) for k, band in enumerate(data.SPEC.bands)}
        for kind, rows in ({"all": np.ones(len(lens), bool)} | kinds).items()
    }


def middle(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Flux ``(n, band)`` of the middle of validation and test stamps, and their labels."""
    stamps, flux, label = StampSet.open(folder), [], list[str]()
    name = next(iter(stamps.images))
    for split in ("validation", "test"):
        for table, pixels in iter_stamps(stamps, [name], [], split=split):
            flux.append(pixels[name][:, :, MIDDLE, MIDDLE].sum(axis=(2, 3), dtype=np.float64))
            label += words(table, "label").tolist()
    return np.concatenate(flux), np.array(label)


def area(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> dict[str, Any]:
    """Area under the ROC curve and its interval."""
    counts = ScoreCounts.of(rankdata(score) / len(score), truth)
    low, high = auroc_interval(counts)
    return {"auroc": round(auroc(counts), 4), "interval95": [round(low, 4), round(high, 4)]}


if __name__ == "__main__":
    main()
