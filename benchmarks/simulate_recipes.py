"""
What do the shipped recipes cost, and what can mean flux and size alone tell of their classes?

`python -m benchmarks.simulate_recipes [FOLDER]` simulates every recipe by the plain loop into FOLDER (a temporary one
by default), writes `results/simulate_recipes.json`, and aims at probes that tell no class of a substructure recipe.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import tempfile
from pathlib import Path

import click
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.simulate.recipe import read_recipe, recipe_names
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet

COUNT = {"finder": 400, "substructure": 900}


def mean_flux_and_size(images: np.ndarray) -> np.ndarray:
    """Mean flux and second-moment radius of stamps ``(n, band, y, x)``, band by band."""
    y, x = np.indices(images.shape[-2:]) - (images.shape[-1] - 1) / 2
    light = np.clip(images, 0, None)
    size = np.sqrt((light * (x**2 + y**2)).sum(axis=(2, 3)) / np.maximum(light.sum(axis=(2, 3)), 1e-9))
    return np.concatenate([images.mean(axis=(2, 3)), size], axis=1)


def probe_auc(features: np.ndarray, positive: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    score = cross_val_predict(model, features, positive, cv=5, method="predict_proba")[:, 1]
    return float(roc_auc_score(positive, score))


def probe(folder: Path) -> dict[str, float]:
    data = StampSet.open(folder)
    features = np.concatenate([mean_flux_and_size(data.read_images(name)) for name in data.images], axis=1)
    labels = data.column("label")
    positive = ["lens"] if "lens" in set(labels) else sorted(set(labels))
    return {str(label): round(probe_auc(features, labels == label), 3) for label in positive}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@record.keep_option
def main(folder: Path | None, keep: bool) -> None:
    """Simulate every recipe into FOLDER (a temporary one where it is left out)."""
    result = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in recipe_names():
            recipe, out = read_recipe(name), (folder or Path(temporary)) / name
            count = COUNT[recipe.kind]
            with Clock() as clock:
                simulate(recipe, count=count, seed=1, out=out)
            cost = round(1000 * clock.cpu_s / count, 1)
            result[name] = {"stamps": count, "cpu_ms_a_stamp": cost, "probe_auc": probe(out)}
    aims = [
        record.at_most(f"area of a probe of mean flux and size, {name}", max(one["probe_auc"].values()), 0.6)
        for name, one in result.items()
        if name.startswith("sub")
    ]
    record.write("simulate_recipes", result, aims, keep=keep)


if __name__ == "__main__":
    main()
