"""
How much of likeness the map of a page keeps: t-SNE and principal components of an embedding's vectors.

    python -m benchmarks.studies.labels.maps --data STAMPS --model EMBEDDING --name NAME --picture map.png

Of the test split: which part of the ten nearest by the vectors are among the ten nearest on the map, and how often a
neighbour has the label of its stamp. Needs `lenspipe[map]`. Writes `results/maps_NAME.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.dark_matter.figures import picture as drawn
from benchmarks.studies.labels.self_supervision import vectors
from benchmarks.timing import Clock
from lenspipe.catalog.gallery.likeness import neighbours, principal, tsne
from lenspipe.report.picture import write_png
from lenspipe.stamps.format import StampSet

K = 10
MAPS = {"t-SNE": tsne, "principal components": principal}


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Labelled stamps.")
@click.option("--model", type=click.Path(exists=True, path_type=Path), required=True, help="An embedding.")
@click.option("--name", required=True, help="Name of the record.")
@click.option("--picture", type=click.Path(path_type=Path), default=None, help="Where to draw the maps.")
@record.keep_option
def main(data: Path, model: Path, name: str, picture: Path | None, keep: bool) -> None:
    """Measure both maps."""
    found, words = vectors(model, StampSet.open(data), "test")
    unit = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    label, true = np.array(words), neighbours(unit, K)
    told: dict[str, Any] = {"n": len(unit), "k": K, "same label, vectors": alike(true, label)}
    figure = Figure(figsize=(10, 5), layout="constrained")
    for axes, (kind, arrange) in zip(figure.subplots(1, 2), MAPS.items(), strict=True):
        with Clock() as clock:
            place = arrange(unit)
        near = near_on(place)
        kept = np.mean([len(np.intersect1d(a, b)) for a, b in zip(near, true, strict=True)]) / K
        told[kind] = {"kept": round(float(kept), 4), "same label": alike(near, label), **clock.seconds()}
        for one in np.unique(label):
            axes.plot(*place[label == one].T, ".", label=one)
        axes.set(title=kind, xticks=[], yticks=[])
        axes.legend(fontsize=7)
    if picture is not None:
        write_png(picture, drawn(figure))
    record.write(f"maps_{name}", told, keep=keep)


def near_on(place: NDArray[np.float64]) -> NDArray[np.int64]:
    """The nearest of each point ``(n, 2)`` on a map ``(n, K)``, itself left out."""
    apart = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1)[:, :K]


def alike(near: NDArray[np.int64], label: NDArray[np.str_]) -> float:
    """Part of the neighbours with the label of their stamp."""
    return round(float((label[near] == label[:, None]).mean()), 4)


if __name__ == "__main__":
    main()
