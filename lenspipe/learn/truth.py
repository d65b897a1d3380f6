"""The answers that belong to the stamps of a data set: labels, targets and features of its rows, by split."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.learn.order import Rows
from lenspipe.stamps.format import StampSet

TURNING = ("angle", "_x_", "_y_")
"""Parts of the names of targets that change when a stamp is turned."""


@dataclass(frozen=True)
class Answers:
    """What an objective reads from the columns of a data set."""

    known: NDArray[np.bool_]
    """Rows that have an answer ``(n,)``; targets are looked at beside it."""
    labels: NDArray[np.int16]
    """Class of each row ``(n,)``; -1 where it has none."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of the labels; none where the answers are no classes."""
    targets: tuple[str, ...] = ()
    """Columns of numbers to predict."""
    may_be_missing: bool = False
    """Whether a row without one of them is used all the same."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Truth by row of the data set, some bytes per row; images are not held."""

    labels: NDArray[np.int16]
    """Class of each row ``(n,)``; -1 where it has none."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of the labels."""
    targets: NDArray[np.float32]
    """Targets ``(n, target)``, less their mean, over their spread; NaN where missing."""
    target_names: tuple[str, ...] = ()
    """Their columns."""
    target_means: tuple[float, ...] = ()
    """Mean of each target in the training split."""
    target_spreads: tuple[float, ...] = ()
    """Its standard deviation."""
    features: NDArray[np.float32]
    """Features ``(n, feature)``, scaled likewise."""
    feature_means: tuple[float, ...] = ()
    """Mean of each feature in the training split."""
    feature_spreads: tuple[float, ...] = ()
    """Its standard deviation."""
    train: Rows
    """Rows to train on."""
    validation: Rows
    """Rows to measure on while training."""
    n_left_out: int = 0
    """Rows of the two splits without a label, target or feature."""

    def counts(self, rows: Rows) -> dict[str, int]:
        """Stamps of each class among some rows; all of them where there are no classes."""
        if not self.classes:
            return {"stamps": len(rows)}
        return {name: int((self.labels[rows] == k).sum()) for k, name in enumerate(self.classes)}


def read_truth(
    data: StampSet,
    answers: Callable[[NDArray[np.bool_]], Answers],
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
    answers : function of the rows of the training split, bool (n,)
        What the objective reads (`lenspipe.learn.objectives.contract.Objective.answers`).
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
    said = answers(split == "train")
    raw_targets = _columns(data, said.targets, "labels.targets")
    raw_features = _columns(data, features, "input.features")
    known = said.known & np.isfinite(raw_features).all(axis=1)
    if not said.may_be_missing:
        known &= np.isfinite(raw_targets).all(axis=1)
    rows = {name: np.flatnonzero((split == name) & known) for name in ("train", "validation")}
    left_out = int(np.isin(split, ("train", "validation")).sum()) - sum(map(len, rows.values()))
    rows["train"] = _part(rows["train"], said.labels, fraction, seed)
    for name, chosen in rows.items():
        if not len(chosen):
            raise DataError(
                f"the data set has no usable stamps in its {name} split{_why_empty(split, known)}",
                n=data.n,
                left_out=left_out,
            )
        if len(np.unique(said.labels[chosen])) < len(said.classes):
            counts = ", ".join(f"{c}: {(said.labels[chosen] == k).sum()}" for k, c in enumerate(said.classes))
            raise DataError(f"the {name} split lacks stamps of a class: a network learns from several", got=counts)
    targets, target_means, target_spreads = _scaled(raw_targets, rows["train"], said.targets)
    scaled, feature_means, feature_spreads = _scaled(raw_features, rows["train"], features)
    return Truth(
        labels=said.labels,
        classes=said.classes,
        targets=targets,
        target_names=said.targets,
        target_means=target_means,
        target_spreads=target_spreads,
        features=scaled,
        feature_means=feature_means,
        feature_spreads=feature_spreads,
        train=rows["train"],
        validation=rows["validation"],
        n_left_out=left_out,
    )


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a column without any value, which is refused below
        means, spreads = np.nanmean(values[train], axis=0), np.nanstd(values[train], axis=0)
    for name, spread in zip(names, spreads, strict=True):
        if not spread > 0:
            raise DataError("a column has one value only in the training split: nothing to learn", column=name)
    scaled: NDArray[np.float32] = ((values - means) / spreads).astype(np.float32)
    return scaled, tuple(means.tolist()), tuple(spreads.tolist())


def _why_empty(split: NDArray[np.object_], known: NDArray[np.bool_]) -> str:
    there = sorted({str(name) for name in split[known] if name is not None})
    if len(there) > 1:
        return ""
    return (
        f": all are in {there[0] if there else 'none'}. Stamps of one tile often lie in one cell of the sky, and a "
        "cell is of one split; cut them again with smaller cells: lenspipe stamps cut ... --split-order 12"
    )


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
