"""The gates of a generator: is what it makes new, does it look like what was taken, does it follow the physics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.stats.generated import frechet_distance, nearest, support, wasserstein
from lenspipe.stats.stamp_physics import noise_facts, per_stamp

Array = NDArray[np.float64]
COPIED_QUANTILE, COPIED_MOST = 0.01, 0.05
"""So many held-out stamps have a nearest training stamp that stands out as much; so many generated ones may."""
N_NEIGHBOUR = 10
APART_MOST = 0.15
"""Largest Wasserstein distance of a number's distribution in units of its spread, where training stamps have less."""
SIGMA_MOST, CORRELATION_MOST = 0.1, 0.05
"""Largest relative difference of the noise, and difference of a correlation."""
SUPPORT_LEAST = 0.5
"""Least precision and recall, in units of what training stamps have."""
LEAST = 30
"""Stamps of a class without which nothing is said of it."""


@dataclass(frozen=True)
class Sets:
    """Stamps of one class: made, held out and of the training."""

    made: NDArray[np.float32]
    held: NDArray[np.float32]
    train: NDArray[np.float32]


class NearestOfTraining:
    """The nearest training stamps of made and of held-out ones, some training stamps at a time (`memorised`)."""

    def __init__(self, made: NDArray[np.floating], held: NDArray[np.floating]) -> None:
        self._of = made, held
        self._found = [np.empty((len(query), 0)) for query in self._of]

    def see(self, train: NDArray[np.floating]) -> None:
        """Training stamps ``(m, size)`` that were not seen before."""
        for k, query in enumerate(self._of):
            near = nearest(query, train, min(N_NEIGHBOUR, len(train)))
            self._found[k] = np.sort(np.concatenate([self._found[k], near], axis=1), axis=1)[:, :N_NEIGHBOUR]

    def verdict(self) -> dict[str, Any]:
        """What `memorised` gives of all training stamps that were seen."""
        of_made, of_held = self._found
        ratio_made, ratio_held = (d[:, 0] / np.maximum(d[:, -1], 1e-300) for d in (of_made, of_held))
        share = float((ratio_made < np.quantile(ratio_held, COPIED_QUANTILE)).mean())
        return {
            "share": share,
            "most": COPIED_MOST,
            "least_ratio": float(ratio_made.min()),
            "least_ratio_held": float(ratio_held.min()),
            "distance_made": float(np.median(of_made[:, 0])),
            "distance_held": float(np.median(of_held[:, 0])),
            "passed": share <= COPIED_MOST,
        }


def memorised(made: NDArray[np.floating], held: NDArray[np.floating], train: NDArray[np.floating]) -> dict[str, Any]:
    """
    Whether made stamps are copies: how much nearer the nearest training stamp is than the tenth, beside held-out ones.

    The ratio of both distances does not depend on how noisy a stamp is, as the distances do; of a copy it is 0, of a
    copy with another noise less than of a stamp that was never seen.

    Parameters
    ----------
    made, held, train : arrays (n, size)
        Stamps as vectors; each turned and mirrored copy of ``train`` that was learnt from is a row of its own.

    Returns
    -------
    dict
        ``share``: part of the made stamps whose ratio is below the 1 % quantile of held-out ones; ``distance_made``,
        ``distance_held``: median distances to the nearest; ``least_ratio``; ``passed``.
    """
    look = NearestOfTraining(made, held)
    look.see(train)
    return look.verdict()


def physics(sets: Mapping[str, Sets], bands: Sequence[str]) -> dict[str, Any]:
    """
    Flux, radial profile, opposite arcs and noise by class; each with its limit, and what training stamps have.

    Parameters
    ----------
    sets : mapping
        Stamps in nJy by class.
    bands : sequence of str

    Returns
    -------
    dict
        ``rows``: per class and quantity ``class``, ``quantity``, ``found``, ``reference``, ``most``, ``passed``;
        ``unjudged``: classes of too few stamps; and ``passed``.
    """
    rows: list[dict[str, Any]] = []
    unjudged: list[str] = []
    for name, of in sets.items():
        if min(len(of.made), len(of.held), len(of.train)) < LEAST:
            unjudged.append(name)
            continue
        made, held = per_stamp(of.made, bands), per_stamp(of.held, bands)
        train = per_stamp(of.train[: len(of.made)], bands)
        for quantity in _groups(held):
            found, reference = (
                float(np.mean([wasserstein(x[key], held[key]) for key in _groups(held)[quantity]]))
                for x in (made, train)
            )
            rows.append(_row(name, quantity, found, reference, max(APART_MOST, 2 * reference)))
        rows += _noise_rows(name, of, bands)
    passed = bool(rows) and not unjudged and all(row["passed"] for row in rows)
    return {"rows": rows, "unjudged": unjudged, "passed": passed}


def _groups(numbers: Mapping[str, Array]) -> dict[str, list[str]]:
    """Numbers of one band's profile count together, by their mean."""
    groups: dict[str, list[str]] = {}
    for key in numbers:
        groups.setdefault(key.rpartition("_")[0] if key.startswith("profile_") else key, []).append(key)
    return groups


def _noise_rows(name: str, of: Sets, bands: Sequence[str]) -> list[dict[str, Any]]:
    made, held, train = (noise_facts(x, bands) for x in (of.made, of.held, of.train[: len(of.made)]))
    rows = []
    for key, value in held.items():
        scale, most = (value, SIGMA_MOST) if key.startswith("sigma_") else (1.0, CORRELATION_MOST)
        found, reference = (abs(x[key] - value) / scale for x in (made, train))
        rows.append(_row(name, f"noise_{key}", found, reference, max(most, 2 * reference)))
    return rows


def _row(name: str, quantity: str, found: float, reference: float, most: float) -> dict[str, Any]:
    facts = {"class": name, "quantity": quantity, "found": found, "reference": reference, "most": most}
    return facts | {"passed": bool(found <= most)}


def likeness(made: NDArray[np.floating], held: NDArray[np.floating], train: NDArray[np.floating]) -> dict[str, Any]:
    """
    Fréchet distance, precision and recall of features, and what as many training stamps have in place of the made.

    Parameters
    ----------
    made, held, train : arrays (n, size)
        Features.
    """
    reference = train[: len(made)]
    precision, recall = support(held, made)
    of_train = support(held, reference)
    passed = precision >= SUPPORT_LEAST * of_train[0] and recall >= SUPPORT_LEAST * of_train[1]
    return {
        "frechet": frechet_distance(made, held),
        "frechet_train": frechet_distance(reference, held),
        "precision": precision,
        "precision_train": of_train[0],
        "recall": recall,
        "recall_train": of_train[1],
        "least": SUPPORT_LEAST,
        "passed": bool(passed),
    }


def verdict_of(like: Mapping[str, Any], copied: Mapping[str, Mapping[str, Any]], laws: Mapping[str, Any]) -> list[str]:
    """Why a generator fails, in words; nothing where it passes."""
    reasons = [
        f"memorises: {m['share']:.0%} of its stamps have a training stamp as near in {name} as 1 % of held-out ones"
        for name, m in copied.items()
        if not m["passed"]
    ]
    if not like["passed"]:
        reasons.append(
            f"support: precision {like['precision']:.2f} and recall {like['recall']:.2f}, where training stamps have "
            f"{like['precision_train']:.2f} and {like['recall_train']:.2f}"
        )
    if broken := [f"{row['quantity']} of {row['class']}" for row in laws["rows"] if not row["passed"]]:
        reasons.append(f"physics: {', '.join(broken)}")
    if laws["unjudged"]:
        reasons.append(f"physics: fewer than {LEAST} stamps of {', '.join(laws['unjudged'])}, so nothing is known")
    return reasons
