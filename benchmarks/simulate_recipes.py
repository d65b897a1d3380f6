"""
What do the shipped recipes cost, and what can mean flux and size alone tell of their classes?

`python -m benchmarks.simulate_recipes [FOLDER]` simulates every recipe by the plain loop into FOLDER (a temporary one
by default), writes `results/simulate_recipes.json`, and fails where a probe tells classes of a substructure recipe.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import record
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


def main(folder: Path) -> None:
    result = {}
    for name in recipe_names():
        recipe = read_recipe(name)
        count = COUNT[recipe.kind]
        begun = time.process_time()
        simulate(recipe, count=count, seed=1, out=folder / name)
        cost = 1000 * (time.process_time() - begun) / count
        result[name] = {"stamps": count, "cpu_ms_a_stamp": round(cost, 1), "probe_auc": probe(folder / name)}
    record.write("simulate_recipes", result)
    told = {n: r["probe_auc"] for n, r in result.items() if n.startswith("sub") and max(r["probe_auc"].values()) >= 0.6}
    assert not told, f"mean flux and size tell classes: {told}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
