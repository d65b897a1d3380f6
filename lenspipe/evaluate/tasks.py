"""Classifiers and regressions on a data set, counted as the stamps stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.abstention import Facts, cost_of, facts_of, joined, psf_columns
from lenspipe.evaluate.stream import Member, count_rows, iter_stamps, numbers, words
from lenspipe.nn.outputs import Abstention
from lenspipe.stamps.format import StampSet
from lenspipe.stats.metrics import ClassTally
from lenspipe.stats.regression import ErrorSums
from lenspipe.stats.selective import accuracy_of_kept

MAX_SHOWN = 2000
"""Estimates of each target that are kept for the picture."""


@dataclass
class ClassEntry:
    """A classifier and what is counted about it."""

    name: str
    tally: ClassTally
    facts: list[Facts] = field(default_factory=list)
    """What its rule of abstention looks at, batch by batch."""
    rule: Abstention | None = None
    """When it abstains, where it has a rule."""

    def metrics(self) -> dict[str, Any]:
        """Everything that the counts give, what its confidence buys, and what its rule of abstention costs."""
        found = self.tally.metrics() | {"accuracy_of_kept": accuracy_of_kept(self.tally.top.total)}
        return found | {"abstention": cost_of(joined(self.facts), self.rule) if self.rule else None}


@dataclass
class ValueEntry:
    """A regression, the sums of its errors by target, and the first estimates for a picture."""

    name: str
    targets: tuple[str, ...]
    sums: dict[str, ErrorSums] = field(default_factory=dict)
    shown: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    """By target, rows of truth, estimate and sigma ``(3, k)``; sigma is NaN where none is stated."""

    def metrics(self) -> dict[str, Any]:
        """
        Errors by target; ``mae``, ``mse`` and ``rmse`` of the first beside them.

        Raises
        ------
        DataError
            No stamp has a true value of a target.
        """
        if empty := [name for name in self.targets if not self.sums[name].n]:
            raise DataError("no stamp of the split has a true value of the target", targets=",".join(empty))
        by_target = {name: self.sums[name].metrics() for name in self.targets}
        first = by_target[self.targets[0]]
        return {"targets": by_target, **{key: first[key] for key in ("n", "mae", "mse", "rmse")}}

    def points(self, target: str) -> NDArray[np.float64]:
        """Truth, estimate and sigma ``(3, k)`` of the first stamps."""
        return np.concatenate(self.shown[target], axis=1)


def assess_classifiers(
    members: Sequence[Member],
    stamps: StampSet,
    *,
    split: str | None,
    on_rows: Callable[[pa.Table], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ClassEntry]:
    """
    Class probabilities of every labelled stamp, counted.

    Raises
    ------
    ConfigError
        The models have different classes.
    DataError
        The split is empty, or a label is none of the classes.
    """
    classes = members[0].card.classes
    if any(member.card.classes != classes for member in members):
        raise ConfigError("the models have different classes, or in another order; evaluate them apart")
    entries = [ClassEntry(m.name, ClassTally(classes), rule=m.card.abstention) for m in members]
    done, total = 0, count_rows(stamps, split)
    columns = [name for member in members for name in member.card.features]
    columns += [name for m in members for name in psf_columns(stamps, m.card.bands).values()]
    for table, pixels in iter_stamps(stamps, [m.image for m in members], columns, split=split):
        labels = words(table, "label")
        if unknown := sorted(set(labels) - set(classes)):
            raise DataError("a label is none of the model's classes", label=unknown[0], classes=",".join(classes))
        truth = np.array([classes.index(label) for label in labels])
        for member, entry in zip(members, entries, strict=True):
            p = member.predict(table, member.prepared(stamps, pixels)).probability
            assert p is not None
            entry.tally.add(p, truth)
            if entry.rule is not None:
                right = p.argmax(axis=1) == truth
                entry.facts.append(facts_of(member, stamps, table, pixels[member.image], p, right))
            rows = {"model": [entry.name] * len(p), "stamp_id": table["stamp_id"], "label": table["label"]}
            said = {"said": [classes[k] for k in p.argmax(axis=1)]}
            on_rows(pa.table({**rows, **said, **{f"probability_{c}": p[:, k] for k, c in enumerate(classes)}}))
        done += table.num_rows
        progress(done, total)
    return entries


def assess_regressions(
    members: Sequence[Member],
    stamps: StampSet,
    *,
    split: str | None,
    on_rows: Callable[[pa.Table], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ValueEntry]:
    """
    Estimates of every stamp that has a true value, compared with it.

    Raises
    ------
    ConfigError
        The models have different targets.
    DataError
        The split is empty.
    """
    targets = members[0].card.targets
    if any(member.card.targets != targets for member in members):
        raise ConfigError("the models have different targets, or in another order; evaluate them apart")
    entries = [
        ValueEntry(m.name, targets, {t: ErrorSums() for t in targets}, {t: [] for t in targets}) for m in members
    ]
    done, total = 0, count_rows(stamps, split)
    columns = [*targets, *(name for member in members for name in member.card.features)]
    for table, pixels in iter_stamps(stamps, [m.image for m in members], columns, split=split):
        for member, entry in zip(members, entries, strict=True):
            found = member.predict(table, member.prepared(stamps, pixels))
            assert found.value is not None
            rows: dict[str, Any] = {"model": [entry.name] * table.num_rows, "stamp_id": table["stamp_id"]}
            for k, target in enumerate(targets):
                truth, value = numbers(table, target), found.value[:, k]
                sigma = np.full(len(value), np.nan) if found.sigma is None else found.sigma[:, k]
                known = np.isfinite(truth)
                stated = None if found.sigma is None else sigma[known]
                entry.sums[target] = entry.sums[target] + ErrorSums.of(value[known], truth[known], stated)
                if done < MAX_SHOWN:
                    entry.shown[target].append(np.stack([truth, value, sigma])[:, known])
                rows |= {f"{target}_true": _nullable(truth), target: value, f"{target}_sigma": _nullable(sigma)}
            on_rows(pa.table(rows))
        done += table.num_rows
        progress(done, total)
    return entries


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, pa.float64(), mask=~np.isfinite(values))
