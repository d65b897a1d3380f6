"""Classical baselines: kernel machines fitted by scikit-learn and kept as arrays, never as a pickle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.learn.batches import batch_of, measure_on, outputs_on
from lenspipe.learn.finish import finish
from lenspipe.learn.job import TrainJob
from lenspipe.learn.order import Rows, in_turn
from lenspipe.learn.stream import batches_of
from lenspipe.learn.world import World
from lenspipe.nn.card import ModelCard
from lenspipe.nn.families.kernel import KernelMachine
from lenspipe.nn.outputs import Classify, Find
from lenspipe.nn.preprocess import network_input
from lenspipe.nn.registry import build
from lenspipe.nn.smooth_lens import with_residual

Kind = Literal["logistic", "svm", "pca"]
KERNELS: dict[str, Kind] = {"kernel-logistic": "logistic", "kernel-svm": "svm", "kernel-pca": "pca"}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class KernelFit:
    """A fitted machine: `decide` is scikit-learn's own, the arrays say the same as one sum over landmarks."""

    decide: Callable[[NDArray[np.float32]], Array]
    """Decision function of stamps ``(n, feature)``: ``(n,)`` of two classes, ``(n, class)`` of more."""
    landmarks: NDArray[np.float32]
    """``(m, feature)``."""
    coef: Array
    """``(1, m)`` of two classes, ``(class, m)`` of more."""
    intercept: Array
    """``(1,)`` or ``(class,)``."""


def fit_kernel(
    kind: Kind,
    landmarks: NDArray[np.float32],
    batches: Callable[[], Iterator[tuple[NDArray[np.float32], NDArray[np.integer]]]],
    *,
    gamma: float,
    c: float,
    n_component: int,
    seed: int,
) -> KernelFit:
    """
    Fit a linear model on kernel features.

    ``logistic`` and ``svm``: features of Williams & Seeger 2001 (Nystroem) on the landmarks, then logistic regression
    or a linear support vector machine; ``pca``: kernel principal components of the landmarks (Schoelkopf et al. 1998),
    then logistic regression. Classes weigh the same.

    Parameters
    ----------
    kind : str
    landmarks : array (m, feature)
    batches : function
        Yields the training stamps ``(n, feature)`` and classes ``(n,)``; only their kernel features are held.
    gamma : float
        Of the kernel ``exp(-gamma |x - y|^2)``.
    c : float
        Inverse strength of regularisation.
    n_component : int
        Components of ``pca``.
    seed : int
    """
    from sklearn.decomposition import KernelPCA
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    marks = landmarks.astype(np.float64)
    if kind == "pca":
        features = KernelPCA(min(n_component, len(marks)), kernel="rbf", gamma=gamma, random_state=seed).fit(marks)
    else:
        features = Nystroem(kernel="rbf", gamma=gamma, n_components=len(marks), random_state=seed).fit(marks)
    seen = [(features.transform(x.astype(np.float64)), y) for x, y in batches()]
    x, y = np.concatenate([part for part, _ in seen]), np.concatenate([part for _, part in seen])
    if kind == "svm":
        linear = LinearSVC(C=c, class_weight="balanced", random_state=seed)
    else:
        linear = LogisticRegression(C=c, class_weight="balanced", max_iter=1000)
    linear.fit(x, y)
    if kind == "pca":
        basis, weights, constant = _of_pca(features)
    else:
        basis, weights = features.components_, features.normalization_.T
        constant = np.zeros(weights.shape[1])
    return KernelFit(
        decide=lambda stamps: linear.decision_function(features.transform(stamps.astype(np.float64))),
        landmarks=basis.astype(np.float32),
        coef=linear.coef_ @ weights.T,
        intercept=linear.intercept_ + linear.coef_ @ constant,
    )


def _of_pca(features: Any) -> tuple[Array, Array, Array]:
    """Landmarks, matrix and constant with which centred kernel components are linear in the kernel itself."""
    alphas = np.zeros_like(features.eigenvectors_)
    used = np.flatnonzero(features.eigenvalues_)
    alphas[:, used] = features.eigenvectors_[:, used] / np.sqrt(features.eigenvalues_[used])
    centre = features._centerer
    total = alphas.sum(axis=0)
    return features.X_fit_, alphas - total / len(alphas), centre.K_fit_all_ * total - centre.K_fit_rows_ @ alphas


def train_kernel(job: TrainJob, kind: Kind) -> ModelCard:
    """
    Fit a kernel machine to a job's training stamps and write it as a model.

    Landmarks are drawn from the training stamps with the seed, as many of each class; gamma is one over the median
    squared distance between them. No augmentation; at most ``n_fit`` stamps are used, drawn likewise.

    Raises
    ------
    ConfigError
        The task is a regression.
    DataError
        The landmarks are all alike.
    """
    if not isinstance(job.card.outputs, Find | Classify):
        raise ConfigError("kernel machines find or classify; regression needs a network", model=job.card.family)
    if job.settings.adapt is not None:
        raise ConfigError("kernel machines have no features that could adapt: choose a network", model=job.card.family)
    if job.pretrained is not None or job.card.features:
        raise ConfigError("kernel machines take neither pretrained weights nor features", model=job.card.family)
    begun = time.perf_counter()
    settings: dict[str, Any] = {"n_landmark": 256, "n_component": 64, "c": 1.0, "n_fit": 50_000} | job.card.settings
    few = draw_rows(job, settings["n_landmark"])
    job = _with_settings(job, n_landmark=len(few))
    card = job.card
    module = cast(KernelMachine, build(card.family, card.n_channel, card.stamp_px, card.n_out, **card.settings))
    landmarks = np.concatenate([x for x, _ in _stamps(job, module, few)])
    squares = _squares(landmarks)
    median = float(np.median(squares[np.triu_indices(len(landmarks), 1)]))
    if not median > 0:
        raise DataError("the stamps are all alike: nothing to learn", n=len(landmarks))
    fitted = fit_kernel(
        kind,
        landmarks,
        lambda: _stamps(job, module, draw_rows(job, settings["n_fit"])),
        gamma=1 / median,
        c=settings["c"],
        n_component=settings["n_component"],
        seed=job.seed,
    )
    fill(module, fitted, gamma=1 / median)
    outputs = outputs_on(job, module, job.truth.validation, World())
    seconds = round(time.perf_counter() - begun, 3)
    row = {"epoch": 1, **measure_on(job, outputs, job.truth.validation), "seconds": seconds}
    return finish(job, module, [row], outputs, n_worker=1, device="cpu")


def fill(module: KernelMachine, fitted: KernelFit, *, gamma: float) -> None:
    """Put a fit into its module; of two classes with two outputs each takes half of the decision."""
    coef, intercept = fitted.coef, fitted.intercept
    if module.coef.shape[0] == 2 and len(coef) == 1:
        halves = np.array([[-0.5], [0.5]])
        coef, intercept = halves * coef, (halves * intercept)[:, 0]
    with torch.no_grad():
        module.landmarks.copy_(torch.from_numpy(fitted.landmarks))
        module.gamma.fill_(gamma)
        module.coef.copy_(torch.from_numpy(coef))
        module.intercept.copy_(torch.from_numpy(intercept))
    module.eval()


def draw_rows(job: TrainJob, n: int) -> Rows:
    """At most ``n`` training rows, as many of each class where they suffice; rising."""
    rng = np.random.default_rng([job.seed, 71])
    rows = rng.permutation(job.truth.train)
    labels = job.truth.labels[rows]
    place = np.empty(len(rows), np.int64)
    for value in np.unique(labels):
        place[labels == value] = np.arange((labels == value).sum())
    return np.sort(rows[np.argsort(place, kind="stable")[:n]])


def _stamps(
    job: TrainJob, module: KernelMachine, rows: Rows
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.integer]]]:
    card = job.card
    window = job.index.window(job.settings.sampling.window_mib * 2**20)
    for some, stamps in batches_of(job.index, in_turn(rows, job.index.group_starts, window), batch_size=256):
        batch = batch_of(job, some, stamps)
        edge = (stamps.shape[-1] - card.stamp_px) // 2
        inner = slice(edge, edge + card.stamp_px)
        sky = batch["image"][:, : len(card.bands), inner, inner] / np.float32(card.pixel_scale_arcsec**2)
        shown = network_input(with_residual(sky) if card.stretch.smooth_residual else sky, card.stretch)
        yield module.pooled(torch.from_numpy(shown)).numpy(), batch["label"]


def _squares(landmarks: NDArray[np.float32]) -> Array:
    x = landmarks.astype(np.float64)
    norms = (x**2).sum(axis=1)
    return np.maximum(norms[:, None] + norms - 2 * x @ x.T, 0)


def _with_settings(job: TrainJob, **settings: int) -> TrainJob:
    return replace(job, card=job.card.model_copy(update={"settings": job.card.settings | settings}))
