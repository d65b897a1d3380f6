"""What the stamps of a data set are to be called: labels, targets and features of its rows, by split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.learn.order import Rows
from lenspipe.learn.settings import LabelSettings, Task
from lenspipe.stamps.format import StampSet

TURNING = ("angle", "_x_", "_y_")
"""Parts of the names of targets that change when a stamp is turned."""


@dataclass(frozen=True)
class Truth:
    """Truth by row of the data set, some bytes a row; images are not held."""

    task: Task
    """What the numbers are."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    labels: NDArray[np.int16]
    """Class of each row ``(n,)``; -1 where it has none."""
    targets: NDArray[np.float32]
    """Targets ``(n, target)``, less their mean, over their spread; NaN where missing."""
    target_means: tuple[float, ...]
    """Mean of each target in the training split."""
    target_spreads: tuple[float, ...]
    """Its standard deviation."""
    features: NDArray[np.float32]
    """Features ``(n, feature)``, scaled likewise."""
    feature_means: tuple[float, ...]
    """Mean of each feature in the training split."""
    feature_spreads: tuple[float, ...]
    """Its standard deviation."""
    train: Rows
    """Rows to train on."""
    validation: Rows
    """Rows to measure on while training."""
    n_left_out: int
    """Rows of the two splits without a label, target or feature."""

    def counts(self, rows: Rows) -> dict[str, int]:
        """Stamps of each class among some rows."""
        if self.task == "regress":
            return {"stamps": len(rows)}
        return {name: int((self.labels[rows] == k).sum()) for k, name in enumerate(self.classes)}


def read_truth(
    data: StampSet,
    task: Task,
    settings: LabelSettings,
    *,
    features: tuple[str, ...] = (),
    fraction: float = 1.0,
    seed: int = 0,
) -> Truth:
    """
    Labels, targets and features of a data set, and its rows of the training and validation splits.

    Parameters
    ----------
    data : StampSet
    task : str
    settings : LabelSettings
    features : tuple of str
        Columns of numbers that the network takes.
    fraction : float
        Part of the training split to use, drawn with the seed; the same rows in each class, to one.
    seed : int

    Raises
    ------
    ConfigError
        Columns or classes that are asked for are not there.
    DataError
        A split is empty, or has one class only.
    """
    split = data.column("split")
    labels, classes, known = _labels(data, task, settings, split == "train")
    raw_targets = _columns(data, settings.targets, "labels.targets")
    raw_features = _columns(data, features, "input.features")
    known = known & np.isfinite(raw_targets).all(axis=1) & np.isfinite(raw_features).all(axis=1)
    rows = {name: np.flatnonzero((split == name) & known) for name in ("train", "validation")}
    left_out = int(np.isin(split, ("train", "validation")).sum()) - sum(map(len, rows.values()))
    rows["train"] = _part(rows["train"], labels, fraction, seed)
    for name, chosen in rows.items():
        if not len(chosen):
            raise DataError(f"the data set has no usable stamps in its {name} split", n=data.n, left_out=left_out)
        if task != "regress" and len(np.unique(labels[chosen])) < len(classes):
            counts = ", ".join(f"{c}: {(labels[chosen] == k).sum()}" for k, c in enumerate(classes))
            raise DataError(f"the {name} split lacks stamps of a class: a network learns from several", got=counts)
    targets, target_means, target_spreads = _scaled(raw_targets, rows["train"], settings.targets)
    scaled, feature_means, feature_spreads = _scaled(raw_features, rows["train"], features)
    return Truth(
        task,
        classes,
        labels,
        targets,
        target_means,
        target_spreads,
        scaled,
        feature_means,
        feature_spreads,
        rows["train"],
        rows["validation"],
        left_out,
    )


def _labels(
    data: StampSet, task: Task, settings: LabelSettings, train: NDArray[np.bool_]
) -> tuple[NDArray[np.int16], tuple[str, ...], NDArray[np.bool_]]:
    if (task == "regress") != bool(settings.targets):
        raise ConfigError("labels.targets belong to the task regress, and it needs them", task=task)
    if task == "regress":
        return np.full(data.n, -1, np.int16), (), np.ones(data.n, bool)
    label = data.column("label")
    known = np.array([value is not None for value in label], bool)
    there = sorted(set(label[known & train]))
    if task == "find":
        classes: tuple[str, ...] = ("nonlens", "lens")
        if not set(settings.lens_labels) & set(there) or not set(there) - set(settings.lens_labels):
            raise DataError(
                "to find lenses the training split needs lenses and others; labels.lens_labels says which are lenses",
                labels=",".join(there),
                lens_labels=",".join(settings.lens_labels),
            )
        return np.isin(label, settings.lens_labels).astype(np.int16), classes, known
    classes = settings.classes or tuple(there)
    if unknown := [name for name in classes if name not in there]:
        raise ConfigError("labels.classes that no training stamp has", unknown=",".join(unknown), has=",".join(there))
    if len(classes) < 2:
        raise DataError("stamps of one class only: there is nothing to tell apart", labels=",".join(there))
    number = {name: k for k, name in enumerate(classes)}
    labels = np.array([number.get(value, -1) for value in label], np.int16)
    return labels, classes, labels >= 0


def _columns(data: StampSet, names: tuple[str, ...], key: str) -> NDArray[np.float64]:
    out = np.empty((data.n, len(names)))
    for k, name in enumerate(names):
        try:
            out[:, k] = np.asarray(data.column(name), np.float64)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{key}: not a column of numbers: {error}", column=name) from error
    return out


def _scaled(
    values: NDArray[np.float64], train: Rows, names: tuple[str, ...]
) -> tuple[NDArray[np.float32], tuple[float, ...], tuple[float, ...]]:
    means, spreads = values[train].mean(axis=0), values[train].std(axis=0)
    for name, spread in zip(names, spreads, strict=True):
        if not spread > 0:
            raise DataError("a column has one value only in the training split: nothing to learn", column=name)
    scaled: NDArray[np.float32] = ((values - means) / spreads).astype(np.float32)
    return scaled, tuple(means.tolist()), tuple(spreads.tolist())


def _part(rows: Rows, labels: NDArray[Any], fraction: float, seed: int) -> Rows:
    if fraction >= 1 or not len(rows):
        return rows
    rng = np.random.default_rng([seed, 53])
    place = rng.random(len(rows))
    kept = []
    for value in np.unique(labels[rows]):
        of_class = np.flatnonzero(labels[rows] == value)
        kept.append(of_class[np.argsort(place[of_class])[: max(1, round(fraction * len(of_class)))]])
    return np.sort(rows[np.concatenate(kept)])
