"""Scores of what a trained network gives, fitted at once on the normal stamps and kept as arrays, never as a pickle."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenspipe.errors import DataError
from lenspipe.learn.batches import measure_on, outputs_on, per_stamp, shown_to_network
from lenspipe.learn.finish import finish
from lenspipe.learn.job import TrainJob
from lenspipe.learn.upon import base_folder
from lenspipe.learn.world import World
from lenspipe.nn.card import ModelCard
from lenspipe.nn.checkpoint import load_model
from lenspipe.nn.families.outlier import Outlier, two
from lenspipe.nn.network import Network
from lenspipe.nn.registry import build

Array = NDArray[np.float64]


def fit_outliers(job: TrainJob) -> ModelCard:
    """
    Fit a job's score to its normal training stamps, at most ``n_fit`` of them, and write it as a model.

    Raises
    ------
    DataError
        There are fewer than two normal training stamps.
    """
    begun = time.perf_counter()
    base, _ = load_model(base_folder(job.pretrained, job.card.task))
    rows = job.truth.train
    if len(rows) < 2:
        raise DataError("a score is fitted on normal stamps, and there are none to speak of", n=len(rows))
    settings: dict[str, Any] = {"n_fit": 20_000, "k": 10} | job.card.settings
    if len(rows) > settings["n_fit"]:
        rows = np.sort(np.random.default_rng([job.seed, 79]).permutation(rows)[: settings["n_fit"]])
    fresh = _module(job, base)
    arrays, sizes = dict[str, Tensor](), dict[str, int]()
    if not fresh.score.of_logits:  # which has nothing to fit
        features = per_stamp(job, rows, World(), lambda sky, _: fresh.forward_features(shown_to_network(job, sky)))
        classes = job.card.settings["logits"]
        arrays, sizes = fitted(fresh, features, seed=job.seed, k=settings["k"], by_class=bool(classes))
    job = replace(job, card=job.card.model_copy(update={"settings": job.card.settings | sizes}))
    module = _module(job, base)
    module.score.load_state_dict(arrays)
    outputs = outputs_on(job, module, job.truth.validation, World())
    seconds = round(time.perf_counter() - begun, 3)
    row = {"epoch": 1, **measure_on(job, outputs, job.truth.validation), "seconds": seconds}
    return finish(job, module, [row], outputs, n_worker=1, device="cpu")


def _module(job: TrainJob, base: Network) -> Outlier:
    card = job.card
    module = cast(Outlier, build(card.family, card.n_channel, card.stamp_px, card.n_out, **card.settings))
    module.base.load_state_dict(base.state_dict())
    return module.eval()


def fitted(
    module: Outlier, features: Array, *, seed: int, k: int, by_class: bool
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """
    Arrays of a score for normal features ``(n, feature)``, and the sizes of them.

    ``mahalanobis``: the covariance is Ledoit & Wolf's (2004), of the scatter about the means; of a classifier, which
    gives a stamp to the class that it thinks most likely, there is a mean per class. ``isolation-forest``: 100 trees of
    256 stamps.
    """
    there = set(dict(module.score.named_buffers()))
    if "known" in there:
        known = torch.from_numpy(features.astype(np.float32))
        return {"known": known}, {"n_known": len(known), "k": min(k, len(known))}
    if "means" in there:
        said = _said(module, features) if by_class else np.zeros(len(features), np.int64)
        return _gaussians(features, said)
    return _trees(features, seed)


def _said(module: Outlier, features: Array) -> NDArray[np.int64]:
    with torch.inference_mode():
        logits = two(module.base.forward_head(torch.from_numpy(features).float()))
    said: NDArray[np.int64] = logits.argmax(dim=1).numpy()
    return np.unique(said, return_inverse=True)[1]


def _gaussians(features: Array, component: NDArray[np.int64]) -> tuple[dict[str, Tensor], dict[str, int]]:
    from sklearn.covariance import LedoitWolf

    means = np.stack([features[component == c].mean(axis=0) for c in range(component.max() + 1)])
    fit = LedoitWolf(assume_centered=True).fit(features - means[component])
    whiten = np.linalg.cholesky(np.linalg.inv(fit.covariance_ + 1e-12 * np.eye(features.shape[1]))).T
    arrays = {"whiten": torch.from_numpy(whiten.copy()), "means": torch.from_numpy(means @ whiten.T)}
    return arrays, {"n_mean": len(means)}


def _trees(features: Array, seed: int) -> tuple[dict[str, Tensor], dict[str, int]]:
    from sklearn.ensemble import IsolationForest

    fit = IsolationForest(random_state=seed).fit(features)
    trees = [one.tree_ for one in fit.estimators_]
    shape = (len(trees), max(tree.node_count for tree in trees))
    arrays: dict[str, NDArray[Any]] = {name: np.zeros(shape, np.int64) for name in ("feature", "below", "above")}
    arrays |= {name: np.zeros(shape) for name in ("cut", "depth")}
    for number, tree in enumerate(trees):
        for node in range(tree.node_count):  # a node comes before those below it
            leaf = tree.children_left[node] < 0
            arrays["feature"][number, node] = 0 if leaf else tree.feature[node]
            arrays["cut"][number, node] = 0.0 if leaf else tree.threshold[node]
            for side, child in (("below", tree.children_left[node]), ("above", tree.children_right[node])):
                arrays[side][number, node] = node if leaf else child
                if not leaf:
                    arrays["depth"][number, child] = arrays["depth"][number, node] + 1
        leaves = np.flatnonzero(tree.children_left < 0)
        arrays["depth"][number, leaves] += expected_depth(tree.n_node_samples[leaves])
    found = {name: torch.from_numpy(array) for name, array in arrays.items()}
    found["expected"] = torch.tensor(expected_depth(np.array([fit.max_samples_]))[0], dtype=torch.float64)
    return found, {"n_tree": shape[0], "n_node": shape[1]}


def expected_depth(n: NDArray[np.integer]) -> Array:
    """
    Mean depth at which random cuts isolate one of n (Liu et al. 2008, equation 1), ``2 H(n - 1) - 2 (n - 1) / n``.

    Examples
    --------
    >>> expected_depth(np.array([1, 2, 256])).round(2)
    array([ 0.  ,  1.  , 10.24])
    """
    m = np.asarray(n, np.float64)
    many = 2 * (np.log(np.maximum(m - 1, 1)) + np.euler_gamma) - 2 * (m - 1) / m
    return np.where(m > 2, many, np.where(m == 2, 1.0, 0.0))
