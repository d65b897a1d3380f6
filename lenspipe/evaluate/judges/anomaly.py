"""Anomalies: how they rank above what is normal, class by class, and whether the false-positive rate is as stated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.judges.contract import Array, Judge, JudgeSettings, Metrics, Printed, fields, file_stem
from lenspipe.evaluate.stream import Member, Pixels, words
from lenspipe.infer.rebuild import Rebuilder
from lenspipe.nn.outputs import Anomaly, Prediction, unlikeness
from lenspipe.report import plots
from lenspipe.report.page import Section, number, with_interval
from lenspipe.stamps.format import StampSet
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval
from lenspipe.stats.intervals import clopper_pearson

AnomalyMember = Member[Anomaly, Rebuilder]
FIRST = (10, 100)
"""Stamps at the head of the ranking of which the anomalies are counted."""
RATES = (0.1, 0.01)
"""Stated false-positive rates that are held against those found."""
COUNTS, SIDES = ("tp", "fp", "tn", "fn"), ("normal", "anomaly")
N_SHOWN, N_MAP = 4, 2048


class AnomalyJudge(Judge[Anomaly, Rebuilder]):
    """Every label that the models do not call normal is an anomaly."""

    def __init__(self, members: Sequence[AnomalyMember], stamps: StampSet, settings: JudgeSettings) -> None:
        super().__init__(members, stamps, settings)
        self._errors: dict[str, list[Array]] = {member.name: [] for member in members}
        self._worst: dict[str, list[tuple[float, Pixels, Pixels]]] = {member.name: [] for member in members}
        self._features: dict[str, list[Pixels]] = {member.name: [] for member in members}
        self._labels: list[str] = []

    @classmethod
    def load(cls, folder: Path, *, device: str, batch_size: int | None, threads: int) -> Rebuilder:
        """A checkpoint ready to run."""
        return Rebuilder(folder, device=device, batch_size=batch_size, threads=threads)

    def check(self) -> None:
        """Raise `ConfigError` where the models were trained on other labels, or none is said to be normal."""
        super().check()
        normal = self.members[0].outputs.normal
        if not normal:
            raise ConfigError("the model was trained on everything: there are no anomalies to judge it by")
        if any(member.outputs.normal != normal for member in self.members):
            raise ConfigError("the models call other labels normal; evaluate them apart")

    def count(self, table: pa.Table, pixels: dict[str, Pixels]) -> Iterator[pa.Table]:
        """Keep errors and the stamps that come back worst; rows of the error and its false-positive rate."""
        for member in self.members:
            seen = member.prepared(self.stamps, pixels)
            said = member.predictor.predict(seen)
            assert said.error is not None and said.false_positive_rate is not None
            self._errors[member.name].append(said.error)
            if len(self._labels) < N_MAP:
                self._features[member.name].append(member.predictor.features(seen))
            some = np.argsort(-said.error)[:N_SHOWN]
            back = member.predictor.rebuild(seen[some]) if member.predictor.gives_back else seen[some]
            worst = self._worst[member.name] + [
                (float(said.error[i]), seen[i], b) for i, b in zip(some, back, strict=True)
            ]
            self._worst[member.name] = sorted(worst, key=lambda one: -one[0])[:N_SHOWN]
            yield pa.table(
                {
                    "model": [member.name] * table.num_rows,
                    "stamp_id": table["stamp_id"],
                    "label": table["label"],
                    "error": said.error,
                    "false_positive_rate": said.false_positive_rate,
                }
            )
        self._labels += words(table, "label").tolist()

    def metrics(self) -> dict[str, Metrics]:
        """By model; raises `DataError` where there are no anomalies, or nothing else."""
        labels = np.array(self._labels, object)
        anomalous = ~np.isin(labels, self.members[0].outputs.normal)
        if anomalous.all() or not anomalous.any():
            raise DataError("the split needs normal stamps and anomalies", labels=",".join(sorted(set(labels))))
        return {m.name: self._metrics(m, np.concatenate(self._errors[m.name]), labels, anomalous) for m in self.members}

    def _metrics(self, member: AnomalyMember, errors: Array, labels: Any, anomalous: Any) -> Metrics:
        scores = unlikeness(errors)
        rates = member.outputs.rate_above(errors)

        def area(rows: Any) -> dict[str, Any]:
            counts = ScoreCounts.of(scores[rows], anomalous[rows])
            return {"n": int(anomalous[rows].sum()), "auc": auroc(counts), "interval95": list(auroc_interval(counts))}

        whole = area(slice(None))
        order = np.argsort(-errors, kind="stable")
        first = {}
        for n in FIRST:
            if n <= len(order):
                k = int(anomalous[order[:n]].sum())
                first[str(n)] = {"precision": k / n, "interval95": list(clopper_pearson(k, n))}
        held = {}
        for rate in RATES:
            false, true = int((rates[~anomalous] <= rate).sum()), int((rates[anomalous] <= rate).sum())
            n_normal, n_anomaly = int((~anomalous).sum()), int(anomalous.sum())
            held[f"{rate:g}"] = {
                "tp": true,
                "fp": false,
                "tn": n_normal - false,
                "fn": n_anomaly - true,
                "fpr": false / n_normal,
                "fpr_interval95": list(clopper_pearson(false, n_normal)),
                "tpr": true / n_anomaly,
                "tpr_interval95": list(clopper_pearson(true, n_anomaly)),
            }
        return {
            "n": len(labels),
            "auc": whole["auc"],
            "auc_interval95": whole["interval95"],
            "per_class": {name: area(~anomalous | (labels == name)) for name in sorted(set(labels[anomalous]))},
            "first": first,
            "at_stated_rate": held,
        }

    def sections(self, metrics: Mapping[str, Metrics]) -> list[Section]:
        """Tables of classes, of the head of the ranking and of the stated rates; the stamps that come back worst."""
        anomalous = ~np.isin(np.array(self._labels, object), self.members[0].outputs.normal)
        curves = {m.name: ScoreCounts.of(self._scores(m.name), anomalous) for m in self.members}
        sections = [Section("All anomalies", "", [], [("roc.png", plots.roc_plot(curves))])]
        for member, (name, m) in zip(self.members, metrics.items(), strict=True):
            classes = [[c, str(v["n"]), with_interval(v["auc"], v["interval95"])] for c, v in m["per_class"].items()]
            first = [[n, with_interval(v["precision"], v["interval95"])] for n, v in m["first"].items()]
            held = [
                [rate, with_interval(v["fpr"], v["fpr_interval95"]), with_interval(v["tpr"], v["tpr_interval95"])]
                + [str(v[count]) for count in COUNTS]
                for rate, v in m["at_stated_rate"].items()
            ]
            tables: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = [
                (["class", "n", "AUROC against the normal"], classes),
                (["first", "of them anomalies"], first),
                (["stated false-positive rate", "found", "anomalies found", *map(str.upper, COUNTS)], held),
            ]
            text = f"{m['n']} stamps; AUROC {with_interval(m['auc'], m['auc_interval95'])}."
            sections.append(Section(name, text, tables, self._pictures(member, m)))
        return sections

    def _pictures(self, member: AnomalyMember, metrics: Metrics) -> list[tuple[str, bytes]]:
        stem, at = file_stem(member.name), metrics["at_stated_rate"][f"{RATES[0]:g}"]
        found = [("worst", self._worst_plot(member))]
        found.append(("confusion", plots.confusion_plot([[at["tn"], at["fp"]], [at["fn"], at["tp"]]], SIDES)))
        seen = np.concatenate(self._features[member.name]).astype(np.float64)
        if seen.shape[1] > 1:
            names = sorted(set(self._labels))
            labels = np.array([names.index(one) for one in self._labels[: len(seen)]])
            found.append(("latent", plots.plane_plot(seen, labels)))
        return [(f"{stem}_{kind}.png", png) for kind, png in found]

    def _worst_plot(self, member: AnomalyMember) -> bytes:
        kept = self._worst[member.name]
        if member.predictor.gives_back:
            worst = np.stack([np.stack([seen[0], back[0], seen[0] - back[0]]) for _, seen, back in kept])
            return plots.stamps_plot(["stamp", "given back", "residual"], worst / 0.2)
        return plots.stamps_plot([""] * len(kept), np.stack([seen[0] for _, seen, _ in kept])[None] / 0.2)

    def _scores(self, name: str) -> Array:
        return unlikeness(np.concatenate(self._errors[name]))

    def csv_fields(self, metrics: Metrics) -> dict[str, Any]:
        """The area, that of each class, and the precision of the head of the ranking."""
        by_class = {f"auc_{name}": found["auc"] for name, found in metrics["per_class"].items()}
        first = {f"precision_first_{n}": found["precision"] for n, found in metrics["first"].items()}
        low, high = metrics["auc_interval95"]
        counts = {f"{c}_at_{rate}": v[c] for rate, v in metrics["at_stated_rate"].items() for c in COUNTS}
        return fields(metrics, ("n", "auc")) | {"auc_low95": low, "auc_high95": high} | counts | by_class | first

    def printed(self, metrics: Mapping[str, Metrics]) -> Printed:
        """Areas, one row per model and class."""
        rows = [
            [name, c, str(v["n"]), with_interval(v["auc"], v["interval95"]), number(m["auc"])]
            for name, m in metrics.items()
            for c, v in m["per_class"].items()
        ]
        return Printed(["model", "class", "n", "AUROC against the normal", "of all classes"], rows)

    @classmethod
    def shown(cls, outputs: Anomaly, said: Prediction) -> Array:
        """The error."""
        assert said.error is not None
        return said.error[:, None]
