"""Finders on a data set: scores of every model, of its eight views and of committees, counted as they stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.stream import Member, Pixels, count_rows, iter_stamps, numbers, words
from lenspipe.infer.committee import N_VIEW, Rule, combine, dihedral_view
from lenspipe.nn.outputs import Calibration
from lenspipe.stamps.format import StampSet
from lenspipe.stats.calibrate import probability
from lenspipe.stats.counts import Tally
from lenspipe.stats.groups import Groups, quantity_columns
from lenspipe.stats.metrics import finder_metrics, thresholds_of

SCORES = pa.schema(
    [
        pa.field("model", pa.string(), metadata={"description": "model, its views, or a committee"}),
        pa.field("stamp_id", pa.string()),
        pa.field("label", pa.string()),
        pa.field("is_lens", pa.bool_()),
        pa.field("score", pa.float64(), metadata={"description": "raw score"}),
        pa.field("probability", pa.float64(), metadata={"description": "calibrated, at the prior of its calibration"}),
    ]
)


@dataclass
class Entry:
    """
    What is counted about one model, its views, or a committee.

    Attributes
    ----------
    name : str
    tally : Tally
    groups : Groups
    calibration : Calibration, optional
    spread : (float, float)
        Of the scores of the eight views of a stamp, highest minus lowest: sum over stamps, and largest.
    """

    name: str
    groups: Groups
    calibration: Calibration | None = None
    tally: Tally = field(default_factory=Tally)
    spread: tuple[float, float] | None = None

    def metrics(self, *, threshold: float, beta: float) -> dict[str, Any]:
        """Everything that the counts give."""
        counts = self.tally.total
        found = finder_metrics(counts, threshold=threshold, beta=beta, calibration=self.calibration)
        at = thresholds_of(found)
        found["recall_by"] = self.groups.recall_by(at)
        found["by_kind"] = self.groups.by_kind(at)
        if self.spread is not None:
            mean = self.spread[0] / (counts.n_lens + counts.n_other)
            found["spread_of_views"] = {"mean": mean, "largest": self.spread[1]}
        return found


def assess_finders(
    members: Sequence[Member],
    stamps: StampSet,
    *,
    split: str | None,
    committees: Sequence[Rule] = (),
    views: Rule | None = None,
    on_rows: Callable[[pa.Table], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Entry]:
    """
    Score a data set once with all models and count.

    A stamp is a lens where its label is the last of the model's classes; every other label is none.

    Parameters
    ----------
    members : sequence of Member
        Finders; those of a committee see the same stamps.
    stamps : StampSet
    split : str or None
        Rows of this split; all with None.
    committees : sequence of str
        Rules by which all models together give one more score (`lenspipe.infer.committee.combine`).
    views : str, optional
        Rule by which the scores of the eight orientations of each stamp give one more score for each model.
    on_rows : callable
        Called with scores of a batch (`SCORES`).
    progress : callable
        Called with stamps done and stamps in all.

    Returns
    -------
    list of Entry
        Models, then their views, then committees.

    Raises
    ------
    ConfigError
        A committee of one, a calibrated one without calibrations, or models that call lenses by different names.
    DataError
        The split is empty, or holds only lenses or none.
    """
    calibrations = [member.card.calibration for member in members]
    _check(members, committees, views)
    names = stamps.schema.names
    bands = next(iter(stamps.images.values())).bands
    quantities = quantity_columns(names, bands)
    kind = "kind" if "kind" in names else "label"
    features = [name for member in members for name in member.card.features]
    entries = {m.name: Entry(m.name, Groups(quantities), m.card.calibration) for m in members}
    if views:
        entries |= {
            _view_name(m, views): Entry(_view_name(m, views), Groups(quantities), spread=(0, 0)) for m in members
        }
    entries |= {_committee_name(rule): Entry(_committee_name(rule), Groups(quantities)) for rule in committees}
    done, total = 0, count_rows(stamps, split)
    progress(done, total)
    columns = [*quantities.values(), kind, *features]
    for table, pixels in iter_stamps(stamps, [m.image for m in members], columns, split=split):
        is_lens = words(table, "label") == members[0].card.classes[-1]
        kinds, values = words(table, kind), {q: numbers(table, c) for q, c in quantities.items()}
        scores = {}
        for member in members:
            prepared = member.prepared(stamps, pixels)
            scores[member.name] = _score(member, table, prepared)
            if views:
                seen = _views(member, table, prepared, scores[member.name])
                entry = entries[_view_name(member, views)]
                apart = seen.max(axis=0) - seen.min(axis=0)
                assert entry.spread is not None
                entry.spread = entry.spread[0] + float(apart.sum()), max(entry.spread[1], float(apart.max()))
                scores[entry.name] = combine(seen, views, [member.card.calibration] * N_VIEW)
        together = np.stack([scores[member.name] for member in members])
        scores |= {_committee_name(rule): combine(together, rule, calibrations) for rule in committees}
        for name, score in scores.items():
            entries[name].tally.add(score, is_lens)
            entries[name].groups.add(score, is_lens, kinds, values)
            on_rows(_rows(entries[name], table, is_lens, score))
        done += table.num_rows
        progress(done, total)
    n_lens = next(iter(entries.values())).tally.total.n_lens
    if not 0 < n_lens < total:
        raise DataError(
            "stamps of one class only: a finder is judged by lenses and others",
            lens_label=members[0].card.classes[-1],
            n_lens=n_lens,
            n=total,
            split=split,
        )
    return list(entries.values())


def _check(members: Sequence[Member], committees: Sequence[Rule], views: Rule | None) -> None:
    if committees and len(members) < 2:
        raise ConfigError("a committee has two models or more", models=len(members))
    wanted = {member.card.classes[-1] for member in members}
    if len(wanted) > 1:
        raise ConfigError("the models call lenses by different labels", labels=",".join(sorted(wanted)))
    bare = [member.name for member in members if member.card.calibration is None]
    if bare and ("calibrated" in committees or views == "calibrated"):
        raise ConfigError("no calibration on the card; fit one by `lenspipe calibrate`", model=bare[0])


def _view_name(member: Member, rule: str) -> str:
    return f"{member.name}, 8 views, {rule}"


def _committee_name(rule: str) -> str:
    return f"committee, {rule}"


def _score(member: Member, table: pa.Table, prepared: Pixels) -> NDArray[np.float64]:
    score = member.predict(table, prepared).score
    assert score is not None
    return score


def _views(member: Member, table: pa.Table, prepared: Pixels, as_it_is: NDArray[np.float64]) -> NDArray[np.float64]:
    turned = [_score(member, table, dihedral_view(prepared, view)) for view in range(1, N_VIEW)]
    return np.stack([as_it_is, *turned])


def _rows(entry: Entry, table: pa.Table, is_lens: NDArray[np.bool_], score: NDArray[np.float64]) -> pa.Table:
    n = table.num_rows
    stated = None if entry.calibration is None else probability(score, entry.calibration)
    return pa.table(
        {
            "model": pa.array([entry.name] * n, pa.string()),
            "stamp_id": table["stamp_id"],
            "label": table["label"],
            "is_lens": is_lens,
            "score": score,
            "probability": pa.nulls(n, pa.float64()) if stated is None else pa.array(stated),
        },
        schema=SCORES,
    )
