"""Classifiers: each class against the rest, the confusion, and what their confidence and their abstention buy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.abstention import (
    ClassifyMember,
    Facts,
    collect,
    columns_of,
    cost_of,
    demand_known,
    facts_of,
    fit_abstention,
    joined,
    widest_psf_of,
)
from lenspipe.evaluate.judges.contract import (
    Array,
    Calibrated,
    CalibrateSettings,
    JudgeSettings,
    Metrics,
    NumbersJudge,
    Printed,
    Progress,
    fields,
    file_stem,
)
from lenspipe.evaluate.stream import Pixels, count_rows, words
from lenspipe.nn.outputs import Abstention, Classify, Prediction
from lenspipe.report import plots
from lenspipe.report.page import Section, number, with_interval
from lenspipe.stamps.format import StampSet
from lenspipe.stats.metrics import ClassTally
from lenspipe.stats.selective import accuracy_of_kept

DEFAULT_ACCURACY = 0.8


@dataclass
class Entry:
    """A classifier and what is counted about it."""

    member: ClassifyMember
    tally: ClassTally
    facts: list[Facts] = field(default_factory=list)
    """What its rule of abstention looks at, batch by batch; empty where it has none."""

    def metrics(self) -> Metrics:
        """Everything that the counts give, what its confidence buys, and what its rule of abstention costs."""
        found, rule = self.tally.metrics(), self.member.outputs.abstention
        found["accuracy_of_kept"] = accuracy_of_kept(self.tally.top.total)
        return found | {"abstention": cost_of(joined(self.facts), rule) if rule else None}


class ClassifyJudge(NumbersJudge[Classify]):
    """Every label must be one of the models' classes."""

    def __init__(self, members: Sequence[ClassifyMember], stamps: StampSet, settings: JudgeSettings) -> None:
        super().__init__(members, stamps, settings)
        self.entries = {member.name: Entry(member, ClassTally(self.classes)) for member in members}

    def check(self) -> None:
        """Raise `ConfigError` where the models have different classes."""
        super().check()
        if any(member.outputs.classes != self.classes for member in self.members):
            raise ConfigError("the models have different classes, or in another order; evaluate them apart")

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the models' outputs."""
        return self.members[0].outputs.classes

    def columns(self) -> list[str]:
        """Features, and what the abstention looks at."""
        return super().columns() + [name for member in self.members for name in columns_of(self.stamps, member.card)]

    def count(self, table: pa.Table, pixels: dict[str, Pixels]) -> Iterator[pa.Table]:
        """Count class probabilities; rows of what was said and of the probabilities."""
        labels, classes = words(table, "label"), self.classes
        demand_known(labels, classes)
        truth = np.array([classes.index(label) for label in labels])
        for name, entry in self.entries.items():
            member = entry.member
            p = member.predict(table, member.prepared(self.stamps, pixels)).probability
            assert p is not None
            entry.tally.add(p, truth)
            if member.outputs.abstention is not None:
                right = p.argmax(axis=1) == truth
                entry.facts.append(facts_of(member, self.stamps, table, pixels[member.image], p, right))
            rows = {"model": [name] * len(p), "stamp_id": table["stamp_id"], "label": table["label"]}
            said = {"said": [classes[k] for k in p.argmax(axis=1)]}
            yield pa.table({**rows, **said, **{f"probability_{c}": p[:, k] for k, c in enumerate(classes)}})

    def metrics(self) -> dict[str, Metrics]:
        """By model; raises `DataError` where all stamps are of one class."""
        return {name: entry.metrics() for name, entry in self.entries.items()}

    def sections(self, metrics: Mapping[str, Metrics]) -> list[Section]:
        """All models in one table, then each with its classes, its abstention and its pictures."""
        columns = ["accuracy", "auroc_macro", "auroc_micro", "f1_macro", "ece"]
        rows = [[name, *(number(m[c]) for c in columns)] for name, m in metrics.items()]
        head = Section("Classes", f"{next(iter(metrics.values()))['n']} stamps.", [(["model", *columns], rows)])
        return [head, *(self._section(name, m) for name, m in metrics.items())]

    def _section(self, name: str, m: Metrics) -> Section:
        by_class = [
            [
                c,
                str(v["n"]),
                with_interval(v["auroc"], v["auroc_interval95"]),
                *(number(v[key]) for key in ("precision", "recall", "f1")),
            ]
            for c, v in m["per_class"].items()
        ]
        kept = [
            [
                f"{row['kept']:.3f}",
                number(row["confidence"]),
                with_interval(row["accuracy"]["value"], row["accuracy"]["interval95"]),
            ]
            for row in m["accuracy_of_kept"]
        ]
        tally, stem = self.entries[name].tally, file_stem(name)
        counts = {c: one.total for c, one in zip(tally.classes, tally.one_vs_rest, strict=True)}
        return Section(
            name,
            _silence(m["abstention"]),
            [
                (["class", "n", "AUROC against the rest", "precision", "recall", "F1"], by_class),
                (["part kept", "by a confidence from", "accuracy"], kept),
            ],
            [
                (f"{stem}_confusion.png", plots.confusion_plot(m["confusion"], m["classes"])),
                (f"{stem}_roc.png", plots.roc_plot(counts)),
                (f"{stem}_reliability.png", plots.reliability_plot({name: m["reliability"]})),
            ],
        )

    def csv_fields(self, metrics: Metrics) -> dict[str, Any]:
        """Numbers over all classes."""
        return fields(metrics, ("n", "accuracy", "auroc", "auroc_micro", "f1_macro", "ece"))

    def printed(self, metrics: Mapping[str, Metrics]) -> Printed:
        """Accuracy, macro and micro area, and the area of each class."""
        rows = [
            [
                name,
                *(number(m[key]) for key in ("accuracy", "auroc_macro", "auroc_micro")),
                *(with_interval(c["auroc"], c["auroc_interval95"]) for c in m["per_class"].values()),
            ]
            for name, m in metrics.items()
        ]
        return Printed(["model", "accuracy", "AUROC macro", "micro", *self.classes], rows)

    @classmethod
    def shown(cls, outputs: Classify, said: Prediction) -> Array:
        """The probabilities; the class that changes most counts."""
        assert said.probability is not None
        return said.probability

    @classmethod
    def calibrate(
        cls, member: ClassifyMember, stamps: StampSet, settings: CalibrateSettings, progress: Progress
    ) -> Calibrated:
        """Fit the rule of abstention; its cost is measured on the split ``test`` where there is one."""
        split, card = settings.split, member.card
        accuracy = settings.accuracy or DEFAULT_ACCURACY
        held_out = "test" if split not in (None, "test") and _has(stamps, "test") else None
        fitted_on = collect(member, stamps, split=split, progress=lambda k, n: progress("Fitting", k, n))
        judged_on = held_out and collect(
            member, stamps, split=held_out, progress=lambda k, n: progress("Judging", k, n)
        )
        rule = fit_abstention(
            fitted_on,
            n_class=len(member.outputs.classes),
            accuracy=accuracy,
            data=f"{stamps.title}, split {split or 'all'}, model {member.predictor.digest}",
            widest_psf=widest_psf_of(stamps, card.data_bands),
        )
        cost = cost_of(judged_on or fitted_on, rule) | {"split": held_out or split or "all"}
        metrics = {**card.metrics, "abstention": cost}
        fitted = card.with_outputs(abstention=rule).model_copy(update={"metrics": metrics})
        return Calibrated(fitted, _said(member.name, rule, cost))


def _has(stamps: StampSet, split: str) -> bool:
    """Whether a split has labelled stamps."""
    try:
        return count_rows(stamps, split) > 0
    except DataError:
        return False


def _said(name: str, rule: Abstention, cost: dict[str, Any]) -> tuple[str, ...]:
    psf = ", ".join(f'{width:g}" in {band}' for band, width in rule.widest_psf_arcsec.items()) or "not known"
    kept, right, whole = (cost[key] for key in ("kept", "accuracy_kept", "accuracy_all"))
    confidence = (
        f"no confidence gives an accuracy of {rule.accuracy:g}: it always abstains"
        if rule.least_confidence is None
        else f"confidence from {rule.least_confidence:.4f}, for an accuracy of {rule.accuracy:g}"
    )
    return (
        f"{name} abstains by a rule from {rule.n} stamps ({rule.data})",
        f'  light: S/N from {rule.least_snr:g}, radius from {rule.least_radius_arcsec:g}"; PSF up to {psf}',
        f"  {confidence}",
        f"  split {cost['split']}: {kept['k']} of {kept['n']} kept",
        f"  accuracy {with_interval(right['value'], right['interval95'])} of these, "
        f"{with_interval(whole['value'], whole['interval95'])} of all",
    )


def _silence(cost: dict[str, Any] | None) -> str:
    if cost is None:
        return "It has no rule when to abstain (lenspipe calibrate fits one)."
    parts = ("kept", "accuracy_kept", "accuracy_all")
    kept, accuracy, whole = (with_interval(cost[key]["value"], cost[key]["interval95"]) for key in parts)
    why = ", ".join(f"{n} by {reason}" for reason, n in cost["reasons"].items() if n) or "none"
    return (
        f"By its rule it keeps {kept} of {cost['n']} stamps with an accuracy of {accuracy}, against {whole} of all. "
        f"Left out: {why}."
    )
