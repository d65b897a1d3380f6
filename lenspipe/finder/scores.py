"""Scores of a finder's own stamps by kind, split and host: what its page and its card say."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.evaluate.finders import Scored, Single, Weighed
from lenspipe.evaluate.judging import open_members, with_committees
from lenspipe.evaluate.stream import iter_stamps, words
from lenspipe.stamps.format import StampSet
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval, tpr_at_fpr
from lenspipe.stats.intervals import fraction

RATE = 0.01
"""False-positive rate at which recall is said."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Raw scores of stamps ``(n,)``, and what they are of."""

    score: NDArray[np.float64]
    kind: NDArray[np.object_]
    label: NDArray[np.object_]
    host: NDArray[np.object_]
    survey: NDArray[np.object_]


def score_stamps(model: Path, stamps: Path, *, split: str = "test") -> Scores:
    """Score the stamps of a split by a finder or a committee."""
    data = StampSet.open(stamps)
    folders, committees = with_committees([model])
    members = open_members(folders, data)
    singles = [Single(member) for member in members]
    finder: Single | Weighed = Weighed(committees[0][0], singles) if committees else singles[0]
    images = list(dict.fromkeys(member.image for member in members))
    parts: list[tuple[NDArray[Any], ...]] = []
    for table, pixels in iter_stamps(data, images, ["kind", "host", "survey"], split=split):
        score = Scored(data, table, pixels).of(finder)
        parts.append((score, *(words(table, name) for name in ("kind", "label", "host", "survey"))))
    return Scores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def measured(scores: Scores) -> dict[str, Any]:
    """
    What the scores say: lenses against everything painted, against each kind, and graded against graded.

    False positives are counted by host as well: a rate rests on as many hosts as there are, not on stamps.
    """
    graded = np.array([str(kind).startswith("graded") for kind in scores.kind])
    lens, painted = scores.label == "lens", ~graded
    out: dict[str, Any] = {"painted": _area(scores, lens & painted, ~lens & painted)}
    others = ~lens & painted
    real = others & np.isin(scores.kind, ["real", "early_type"])
    if real.any() and (lens & painted).any():
        counts = ScoreCounts.of(scores.score[(lens & painted) | real], lens[(lens & painted) | real])
        out["recall_at_1_percent_of_real"] = tpr_at_fpr(counts, RATE)
        at = np.quantile(scores.score[lens & painted], 0.2)
        passing = real & (scores.score >= at)
        out["real_above_what_80_percent_of_arcs_pass"] = fraction(int(passing.sum()), int(real.sum())) | {
            "hosts_passing": len(set(scores.host[passing])),
            "hosts": len(set(scores.host[real])),
        }
    out["by_kind"] = {
        str(kind): _area(scores, lens & painted, others & (scores.kind == kind))
        for kind in sorted(set(scores.kind[others]))
    }
    if graded.any():
        out["graded"] = _area(scores, lens & graded, ~lens & graded)
        out["graded_by_survey"] = dict(collections.Counter(map(str, scores.survey[graded])))
    return out


def _area(scores: Scores, lens: NDArray[np.bool_], other: NDArray[np.bool_]) -> dict[str, Any]:
    n = {
        "n_lens": int(lens.sum()),
        "n_other": int(other.sum()),
        "hosts_lens": len(set(scores.host[lens])),
        "hosts_other": len(set(scores.host[other])),
    }
    if not lens.any() or not other.any():
        return n | {"auc": None, "interval95": None}
    use = lens | other
    counts = ScoreCounts.of(scores.score[use], lens[use])
    return n | {"auc": auroc(counts), "interval95": list(auroc_interval(counts))}
