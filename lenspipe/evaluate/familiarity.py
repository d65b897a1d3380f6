"""Learn how a finder's training set looks among its own features, from the data set that it was trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.finders import FindMember
from lenspipe.evaluate.stream import count_rows, iter_stamps, words
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import each_of
from lenspipe.stats.familiar import Familiar, FeatureSums, fit_familiar

TRAIN, HELD_OUT = "train", "validation"
LEAST = 100
"""Stamps of each split without which nothing can be said."""


def learn_training_set(
    member: FindMember, stamps: StampSet, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Familiar, int]:
    """
    Means and spread of the features of a data set's split ``train`` by label, and distances of its ``validation``.

    Memory does not grow with the data set.

    Parameters
    ----------
    member : Member
        The finder.
    stamps : StampSet
        What it was trained on, or stamps that were drawn like these.
    progress : callable
        Called with the stamps that are done and all.

    Returns
    -------
    familiar : Familiar
    n : int
        Stamps of ``train``.

    Raises
    ------
    ConfigError
        The model takes numbers beside the image.
    DataError
        A split has too few stamps.
    """
    if member.card.features:
        raise ConfigError("of models that take numbers beside the image nothing is kept", model=member.name)
    n, n_held = count_rows(stamps, TRAIN), count_rows(stamps, HELD_OUT)
    if min(n, n_held) < LEAST:
        raise DataError(f"the splits need {LEAST} stamps each", train=n, validation=n_held)
    labels: set[str] = set()
    for table in stamps.iter_batches(["label"], batch_size=1 << 16, split=TRAIN):
        labels |= {str(label) for label in table["label"].to_pylist() if label is not None}
    known, done = np.array(sorted(labels)), 0
    sums: FeatureSums | None = None
    for reading in each_of(stamps):
        for table, pixels in iter_stamps(reading, [member.image], [], split=TRAIN):
            features = member.predictor.features(member.prepared(reading, pixels))
            classes = np.searchsorted(known, words(table, "label").astype(str))
            more = FeatureSums.of(features, classes, len(known))
            sums = more if sums is None else sums + more
            done += table.num_rows
            progress(done, n + n_held)
    assert sums is not None
    fitted, distances = fit_familiar(sums), []
    for reading in each_of(stamps):
        for table, pixels in iter_stamps(reading, [member.image], [], split=HELD_OUT):
            distances.append(fitted.distance(member.predictor.features(member.prepared(reading, pixels))))
            done += table.num_rows
            progress(done, n + n_held)
    return fit_familiar(sums, np.concatenate(distances)), n
