"""How well a few examples of each class tell the others: n-way k-shot accuracy over episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.stats.curves import Z95
from lenspipe.stats.neighbours import unit

Array = NDArray[np.float64]
N_QUERY = 15
"""Questions per class of an episode, at most."""


def nearest_prototype(query: Array, support: Array, labels: NDArray[np.integer], n_class: int) -> NDArray[np.intp]:
    """
    Class of the nearest mean of examples, by squared Euclidean distance (Snell et al. 2017, equation 2).

    Parameters
    ----------
    query : array (n, size)
    support, labels : arrays (m, size) and (m,)
        Examples of every class from 0 to ``n_class - 1``.
    n_class : int

    Examples
    --------
    >>> nearest_prototype(np.array([[0.9], [0.2]]), np.array([[0.0], [1.0]]), np.array([0, 1]), 2).tolist()
    [1, 0]
    """
    centres = np.stack([support[labels == c].mean(axis=0) for c in range(n_class)])
    square = (query**2).sum(axis=1)[:, None] - 2 * query @ centres.T + (centres**2).sum(axis=1)
    return np.asarray(square.argmin(axis=1))


def episode_accuracy(
    query: NDArray[np.floating],
    answers: NDArray[np.integer],
    known: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    n_way: int,
    k_shot: int,
    n_episode: int = 400,
) -> dict[str, Any]:
    """
    Mean accuracy of episodes: of ``n_way`` classes, ``k_shot`` examples each tell 15 others of each.

    Examples and questions come from separate stamps. Vectors are brought to length 1. The interval is that of the mean
    over episodes, as papers give it; it leaves out that all episodes are drawn from the same stamps.

    Parameters
    ----------
    query, answers : arrays (n, size) and (n,)
        Vectors that are asked for, and their classes.
    known, labels : arrays (m, size) and (m,)
        Vectors that examples are drawn from, and their classes.
    n_way, k_shot, n_episode : int

    Returns
    -------
    dict
        ``accuracy``, ``interval95``, ``n_way``, ``k_shot``, ``n_episode``; the first two null, and ``why``, where too
        few classes have so many stamps.
    """
    said = {"n_way": n_way, "k_shot": k_shot, "n_episode": n_episode}
    classes = [c for c in np.unique(labels) if (labels == c).sum() >= k_shot and (answers == c).any()]
    if len(classes) < n_way:
        return {"accuracy": None, "interval95": None, "why": "too few stamps per class", **said}
    asked, shots, rng = unit(query), unit(known), np.random.default_rng(0)
    rows = {c: (np.flatnonzero(labels == c), np.flatnonzero(answers == c)) for c in classes}
    right = np.empty(n_episode)
    for k in range(n_episode):
        chosen = rng.choice(len(classes), n_way, replace=False)
        pairs = [rows[classes[c]] for c in chosen]
        support = [rng.choice(there, k_shot, replace=False) for there, _ in pairs]
        question = [rng.choice(there, min(N_QUERY, len(there)), replace=False) for _, there in pairs]
        found = nearest_prototype(
            asked[np.concatenate(question)], shots[np.concatenate(support)], np.repeat(np.arange(n_way), k_shot), n_way
        )
        truth = np.repeat(np.arange(n_way), [len(one) for one in question])
        right[k] = (found == truth).mean()
    half = Z95 * right.std(ddof=1) / np.sqrt(n_episode)
    mean = float(right.mean())
    return {"accuracy": mean, "interval95": [max(0.0, mean - half), min(1.0, mean + half)], **said}
