"""Finders: recall at low false positive rates, by what a lens is like and by what is taken for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.calibration import fit_on_halves, said_of
from lenspipe.evaluate.extremes import Extremes, extremes_section
from lenspipe.evaluate.finder_report import (
    by_group_section,
    deepest_rate,
    kinds_section,
    numbers_of,
    recalled,
    reliability_section,
    survey_lines,
    survey_sections,
)
from lenspipe.evaluate.finders import Finder, FindMember, Scored, Single, Together, Views, Weighed
from lenspipe.evaluate.judges.contract import (
    Array,
    Calibrated,
    CalibrateSettings,
    JudgeSettings,
    Metrics,
    NumbersJudge,
    Printed,
    Progress,
    demand_no_accuracy,
    fields,
)
from lenspipe.evaluate.stream import Pixels, numbers, words
from lenspipe.nn.committee import Committee
from lenspipe.nn.outputs import Find, Prediction
from lenspipe.report import plots
from lenspipe.report.page import Section, number, rate, with_interval
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import DATA_SET, SURVEY
from lenspipe.stats.calibrate import probability
from lenspipe.stats.clusters import ByGroup
from lenspipe.stats.counts import Tally
from lenspipe.stats.groups import Groups, quantity_columns
from lenspipe.stats.metrics import finder_metrics, thresholds_of
from lenspipe.stats.survey_probe import SurveyProbe

TILE = "tile"
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
QUANTITY_WORDS = {
    "theta_e_arcsec": "Einstein radius",
    "source_radius_arcsec": "source radius",
    "source_mag": "source magnitude",
    "lens_mag": "lens magnitude",
    "arc_snr": "signal-to-noise of the arcs",
    "n_pix_source": "pixels of the arcs above the noise",
}
"""Quantities of `lenspipe.stats.groups.EDGES` as a reader calls them."""


@dataclass
class Entry:
    """A finder and what is counted about it."""

    finder: Finder
    groups: Groups
    tally: Tally = field(default_factory=Tally)
    probe: SurveyProbe = field(default_factory=SurveyProbe)
    by_host: ByGroup = field(default_factory=ByGroup)
    by_tile: ByGroup = field(default_factory=ByGroup)
    extremes: Extremes = field(default_factory=Extremes)


class FindJudge(NumbersJudge[Find]):
    """A stamp is a lens where its label is the last of the models' classes; every other label is none."""

    takes_any_grid = True
    only_by_model = ("recall_by", "by_kind")

    def __init__(self, members: Sequence[FindMember], stamps: StampSet, settings: JudgeSettings) -> None:
        super().__init__(members, stamps, settings)
        self.quantities = quantity_columns(stamps.schema.names, next(iter(stamps.images.values())).bands)
        self.kind = "kind" if "kind" in stamps.schema.names else "label"
        self.surveys = [name for name in (SURVEY, DATA_SET) if name in stamps.schema.names]
        self.tile = [TILE] if TILE in stamps.schema.names else []
        self.entries: dict[str, Entry] = {}
        self._in_rows: list[Finder] = []
        singles = [Single(member) for member in members]
        views = [Views(single, settings.views) for single in singles] if settings.views else []
        committees = [Together(singles, rule) for rule in settings.committees]
        finders: list[Finder] = [*singles, *views, *committees]
        for finder in finders:
            self.add(finder)
        if views:  # rows of a model's views come after its own; metrics come models first
            by_model = [one for pair in zip(singles, views, strict=True) for one in pair]
            self._in_rows = [*by_model, *committees]

    def add(self, finder: Finder) -> None:
        """
        Judge one more finder on the same stamps, whatever it is made of.

        Raises
        ------
        ConfigError
            Another of that name is judged already.
        """
        if finder.name in self.entries:
            raise ConfigError("two finders of one name are judged; rename one", name=finder.name)
        self.entries[finder.name] = Entry(finder, Groups(self.quantities))
        self._in_rows.append(finder)

    def check(self) -> None:
        """Raise `ConfigError` for a committee of one, a calibrated one without calibrations, or other lens labels."""
        committees, views = self.settings.committees, self.settings.views
        if committees and len(self.members) < 2:
            raise ConfigError("a committee has two models or more", models=len(self.members))
        wanted = {member.outputs.classes[-1] for member in self.members}
        if len(wanted) > 1:
            raise ConfigError("the models call lenses by different labels", labels=",".join(sorted(wanted)))
        bare = [member.name for member in self.members if member.outputs.calibration is None]
        if bare and {"calibrated", "logits"} & {*committees, views}:
            raise ConfigError("no calibration on the card; fit one by `lenspipe calibrate`", model=bare[0])

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of the first model; the last is the lens."""
        return self.members[0].outputs.classes

    def columns(self) -> list[str]:
        """Quantities that lenses are binned by, kinds, hosts, tiles, surveys, and features."""
        named = [self.kind, "host", *self.tile, *self.surveys]
        return [*self.quantities.values(), *named, *super().columns()]

    def count(self, table: pa.Table, pixels: dict[str, Pixels]) -> Iterator[pa.Table]:
        """Count the scores of every finder; rows of `SCORES`."""
        is_lens = words(table, "label") == self.classes[-1]
        kinds, values = words(table, self.kind), {q: numbers(table, c) for q, c in self.quantities.items()}
        surveys = _first_named(table, self.surveys)
        hosts, tiles = _first_named(table, ["host", "stamp_id"]), _first_named(table, self.tile)
        batch = Scored(self.reading, table, pixels)
        ids, (image, seen) = table["stamp_id"].to_pylist(), next(iter(pixels.items()))
        for finder in self._in_rows:
            score, entry = batch.of(finder), self.entries[finder.name]
            entry.tally.add(score, is_lens)
            entry.groups.add(score, is_lens, kinds, values)
            entry.probe.add(score, is_lens, surveys)
            entry.by_host.add(score, is_lens, hosts)
            entry.by_tile.add(score, is_lens, tiles)
            entry.extremes.add(score, is_lens, ids, list(kinds), seen, self.stamps.images[image].bands)
            n = table.num_rows
            stated = None if finder.calibration is None else probability(score, finder.calibration)
            yield pa.table(
                {
                    "model": pa.array([finder.name] * n, pa.string()),
                    "stamp_id": table["stamp_id"],
                    "label": table["label"],
                    "is_lens": is_lens,
                    "score": score,
                    "probability": pa.nulls(n, pa.float64()) if stated is None else pa.array(stated),
                },
                schema=SCORES,
            )

    def metrics(self) -> dict[str, Metrics]:
        """Models, then their views, then committees; raises `DataError` where all stamps are lenses, or none."""
        counts = next(iter(self.entries.values())).tally.total
        if not (counts.n_lens and counts.n_other):
            raise DataError(
                "stamps of one class only: a finder is judged by lenses and others",
                lens_label=self.classes[-1],
                n_lens=counts.n_lens,
                n=counts.n_lens + counts.n_other,
                split=self.settings.split,
            )
        return {name: self._metrics(entry) for name, entry in self.entries.items()}

    def _metrics(self, entry: Entry) -> Metrics:
        counts, settings = entry.tally.total, self.settings
        found = finder_metrics(
            counts, threshold=settings.threshold, beta=settings.beta, calibration=entry.finder.calibration
        )
        at = thresholds_of(found)
        found["recall_by"] = entry.groups.recall_by(at)
        found["by_kind"] = entry.groups.by_kind(at)
        found["false_positives"] = {"by_host": entry.by_host.passing(at), "by_tile": entry.by_tile.passing(at)}
        found["survey_probe"] = entry.probe.found()
        return found | entry.finder.facts(counts.n_lens + counts.n_other)

    def sections(self, metrics: Mapping[str, Metrics]) -> list[Section]:
        """Rates, recall by quantity, kinds, the worst mistakes, false positives by host and tile, and the rest."""
        at = deepest_rate(next(iter(metrics.values())))
        return [
            self._rates(metrics),
            self._recall(metrics, at),
            kinds_section(metrics, at),
            extremes_section({name: entry.extremes for name, entry in self.entries.items()}),
            by_group_section(metrics),
            *survey_sections(metrics),
            self._confusion(metrics),
            reliability_section(metrics),
        ]

    def _rates(self, metrics: Mapping[str, Metrics]) -> Section:
        first = next(iter(metrics.values()))
        text = f"{first['n_lens']} lenses and {first['n_other']} others."
        if first["auroc_error_max"]:
            text += f" Scores are counted in steps; the area is within {first['auroc_error_max']:.1e} of the exact one."
        rates = list(first["tpr_at_fpr"])
        heading = ["model", "AUROC", *(f"TPR at FPR {name}" for name in rates), "TPR0", "TPR10"]
        rows = [
            [
                name,
                with_interval(m["auroc"], m["auroc_interval95"]),
                *(rate(m["tpr_at_fpr"][r]) for r in rates),
                rate(m["tpr0_detail"]),
                rate(m["tpr10_detail"]),
            ]
            for name, m in metrics.items()
        ]
        counts = {name: entry.tally.total for name, entry in self.entries.items()}
        return Section(
            "Recall at low false positive rates",
            text,
            [(heading, rows)],
            [("roc.png", plots.roc_plot(counts))],
            {"roc.png": "ROC: left of three false positives the line is faint"},
        )

    def _recall(self, metrics: Mapping[str, Metrics], at: str) -> Section:
        section = Section(f"Recall by what the lens is like, at {at.replace('fpr', 'FPR')}")
        for quantity, bins in next(iter(metrics.values()))["recall_by"].items():
            rows = [
                [f"{b['low']:g} to {b['high']:g}", str(b["n"])]
                + [recalled(m["recall_by"][quantity][k], at) for m in metrics.values()]
                for k, b in enumerate(bins)
            ]
            section.tables.append(([_words(quantity), "lenses", *metrics], rows))
        for quantity, column in self.quantities.items():
            known = {name: m["recall_by"][quantity] for name, m in metrics.items() if quantity in m["recall_by"]}
            if known:
                unit = (self.stamps.schema.field(column).metadata or {}).get(b"unit", b"").decode()
                band = column.removeprefix(quantity).replace("_", ", ")
                picture = plots.recall_plot(f"{_words(quantity)}{band}", unit, known, at)
                section.pictures.append((f"recall_{quantity}.png", picture))
                section.captions[f"recall_{quantity}.png"] = f"By {_words(quantity)}"
        return section

    def _confusion(self, metrics: Mapping[str, Metrics]) -> Section:
        first = next(iter(metrics.values()))
        columns = ["tp", "fp", "tn", "fn", "accuracy", "precision", "recall", "f1", "f_beta"]
        heading = [*(c.upper() for c in columns[:4]), *columns[4:-1], f"F (beta {first['beta']:g})"]
        rows = [
            [
                name,
                *(number(m[c]) for c in columns),
                number(m["best_f_beta"]["f_beta"]),
                number(m["best_f_beta"]["threshold"]),
            ]
            for name, m in metrics.items()
        ]
        counts = {name: entry.tally.total for name, entry in self.entries.items()}
        return Section(
            f"At a score of {first['threshold']:g}",
            tables=[(["model", *heading, "best F", "at score"], rows)],
            pictures=[("scores.png", plots.score_plot(counts))],
            captions={"scores.png": "Scores by class"},
        )

    def csv_fields(self, metrics: Metrics) -> dict[str, Any]:
        """Confusion, rates and areas."""
        row = fields(metrics, ("n_lens", "n_other"))
        row |= {name.upper(): metrics[name] for name in ("tp", "fp", "tn", "fn")}
        row |= fields(metrics, ("threshold", "accuracy", "precision", "recall", "f1", "f_beta", "beta", "auroc"))
        row |= fields(metrics, ("tpr0", "tpr10", "ece"))
        row["auroc_low95"], row["auroc_high95"] = metrics["auroc_interval95"]
        values = {name: found["value"] for name, found in metrics["tpr_at_fpr"].items()}
        return row | {f"tpr_at_fpr_{name}": "" if value is None else value for name, value in values.items()}

    def printed(self, metrics: Mapping[str, Metrics]) -> Printed:
        """Area and rates."""
        first = next(iter(metrics.values()))
        rates = list(first["tpr_at_fpr"])
        rows = [
            [
                name,
                with_interval(m["auroc"], m["auroc_interval95"]),
                *(number(m["tpr_at_fpr"][r]["value"], 3) for r in rates),
                *(number(m[k], 3) for k in ("tpr0", "tpr10", "ece")),
            ]
            for name, m in metrics.items()
        ]
        return Printed(
            ["model", "AUROC", *(f"TPR at {r}" for r in rates), "TPR0", "TPR10", "ECE"],
            rows,
            "\n".join([f"{numbers_of(first)}; - where a rate is not measurable.", *survey_lines(metrics)]),
        )

    @classmethod
    def shown(cls, outputs: Find, said: Prediction) -> Array:
        """The score."""
        assert said.score is not None
        return said.score[:, None]

    @classmethod
    def calibrate(
        cls, member: FindMember, stamps: StampSet, settings: CalibrateSettings, progress: Progress
    ) -> Calibrated:
        """Fit the map from score to probability, and judge it on the halves that it was not fitted on."""
        demand_no_accuracy(member, settings)
        fitted = fit_on_halves(
            Single(member),
            [member],
            stamps,
            split=settings.split,
            method=settings.method,
            progress=lambda done, total: progress("Scoring", done, total),
        )
        return Calibrated(member.card.with_outputs(calibration=fitted.calibration), said_of(member.name, fitted))

    def add_committee(self, committee: Committee, members: Sequence[FindMember]) -> None:
        """Judge a committee of some of the models, as its card weighs them."""
        self.add(Weighed(committee, [Single(member) for member in members]))


def _first_named(table: pa.Table, columns: Sequence[str]) -> NDArray[np.object_]:
    """Words ``(n,)`` of the first of some columns that has one in the row, None where none has."""
    found: NDArray[np.object_] = np.full(table.num_rows, None, dtype=object)
    for name in reversed(columns):
        said = words(table, name)
        found = np.where([bool(word) for word in said], said, found)
    return found


def _words(quantity: str) -> str:
    return QUANTITY_WORDS.get(quantity, quantity)
