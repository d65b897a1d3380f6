"""Clusters: how they agree with labels that were never learnt from, and what lies in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.bands import colour_bands
from lenspipe.errors import DataError
from lenspipe.evaluate.judges.contract import Array, JudgeSettings, Metrics, NumbersJudge, Printed, fields, file_stem
from lenspipe.evaluate.stream import Member, Pixels, words
from lenspipe.image.contact import colour_stamps, contact_sheet
from lenspipe.infer.predict import Predictor
from lenspipe.nn.outputs import Cluster, Prediction
from lenspipe.report import plots
from lenspipe.report.page import Section, number, with_interval
from lenspipe.report.picture import png_of
from lenspipe.stamps.format import StampSet
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval
from lenspipe.stats.partition import agreement, best_assignment, contingency

ClusterMember = Member[Cluster, Predictor]
AGREEMENT = {"accuracy": "Accuracy", "nmi": "normalised mutual information", "ari": "adjusted Rand index"}
N_SHEET, N_COLUMN = 24, 8
"""Stamps of a contact sheet, and in a row of it."""


class ClusterJudge(NumbersJudge[Cluster]):
    """Clusters get the labels under which most stamps of the judged split are right, each at most one."""

    def __init__(self, members: Sequence[ClusterMember], stamps: StampSet, settings: JudgeSettings) -> None:
        super().__init__(members, stamps, settings)
        self._said: dict[str, list[Array]] = {member.name: [] for member in members}
        self._sheets: dict[str, list[list[tuple[float, Pixels]]]] = {
            member.name: [[] for _ in range(member.outputs.size)] for member in members
        }
        self._labels: list[str] = []

    def count(self, table: pa.Table, pixels: dict[str, Pixels]) -> Iterator[pa.Table]:
        """Keep probabilities, labels and the surest stamps of each cluster; rows of the cluster and its probability."""
        for member in self.members:
            said = member.predict(table, member.prepared(self.stamps, pixels)).probability
            assert said is not None
            self._said[member.name].append(said)
            cluster, sure = said.argmax(axis=1), said.max(axis=1)
            shown = [self._channels(member, one) for one in pixels[member.image]]
            for k, sheet in enumerate(self._sheets[member.name]):
                sheet += [(float(sure[i]), shown[i]) for i in np.flatnonzero(cluster == k)]
                sheet.sort(key=lambda one: -one[0])
                del sheet[N_SHEET:]
            yield pa.table(
                {
                    "model": [member.name] * table.num_rows,
                    "stamp_id": table["stamp_id"],
                    "label": table["label"],
                    "cluster": pa.array(cluster, pa.int32()),
                    "probability": sure,
                }
            )
        self._labels += words(table, "label").tolist()

    def _channels(self, member: ClusterMember, stamp: Pixels) -> Pixels:
        bands = self.stamps.images[member.image].bands
        return stamp[[bands.index(band) for band in colour_bands(bands)]]

    def metrics(self) -> dict[str, Metrics]:
        """By model; raises `DataError` where there is one label only."""
        names = sorted(set(self._labels))
        if len(names) < 2:
            raise DataError("clusters are judged by labels, and the split has one only", labels=",".join(names))
        labels = np.array([names.index(one) for one in self._labels])
        return {m.name: self._metrics(m, np.concatenate(self._said[m.name]), labels, names) for m in self.members}

    def _metrics(self, member: ClusterMember, said: Array, labels: Any, names: list[str]) -> Metrics:
        table = contingency(labels, said.argmax(axis=1), len(names), member.outputs.size)
        assigned = best_assignment(table)
        per_class: dict[str, Any] = {}
        for k in np.flatnonzero(assigned >= 0):
            counts = ScoreCounts.of(np.clip(said[:, k], 0, 1), labels == assigned[k])
            found = {"cluster": int(k), "auc": auroc(counts), "interval95": list(auroc_interval(counts))}
            per_class[names[assigned[k]]] = {"n": int((labels == assigned[k]).sum())} | found
        return {
            "n": len(labels),
            **agreement(table, assigned),
            "labels": names,
            "counts": table.tolist(),
            "named": [names[one] if one >= 0 else "" for one in assigned],
            "per_class": per_class,
        }

    def sections(self, metrics: Mapping[str, Metrics]) -> list[Section]:
        """Agreement, ROC curves and counts of each model, and a contact sheet per cluster with the surest first."""
        sections = []
        for name, m in metrics.items():
            stem, said = file_stem(name), np.concatenate(self._said[name])
            labels = np.array(self._labels, object)
            curves = {
                f"{label} (cluster {v['cluster']})": ScoreCounts.of(
                    np.clip(said[:, v["cluster"]], 0, 1), labels == label
                )
                for label, v in m["per_class"].items()
            }
            pictures = [(f"{stem}_roc.png", plots.roc_plot(curves))]
            for k, sheet in enumerate(self._sheets[name]):
                if sheet:
                    colour = colour_stamps(np.stack([stamp for _, stamp in sheet]))
                    pictures.append((f"{stem}_cluster_{k}.png", png_of(contact_sheet(colour, n_column=N_COLUMN))))
            heading = ["label", *(f"{k}: {label or '-'}" for k, label in enumerate(m["named"]))]
            rows = [[label, *map(str, row)] for label, row in zip(m["labels"], m["counts"], strict=True)]
            classes = [[c, str(v["n"]), with_interval(v["auc"], v["interval95"])] for c, v in m["per_class"].items()]
            agreed = ", ".join(
                f"{word} {with_interval(m[key], m[f'{key}_interval95'])}" for key, word in AGREEMENT.items()
            )
            text = f"{m['n']} stamps. {agreed}. Contact sheets, cluster by cluster, the surest first."
            tables: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = [
                (heading, rows),
                (["class", "n", "AUROC of its cluster"], classes),
            ]
            sections.append(Section(name, text, tables, pictures))
        return sections

    def csv_fields(self, metrics: Metrics) -> dict[str, Any]:
        """Agreement, and the area of each class."""
        return fields(metrics, ("n", "accuracy", "nmi", "ari")) | {
            f"auc_{name}": found["auc"] for name, found in metrics["per_class"].items()
        }

    def printed(self, metrics: Mapping[str, Metrics]) -> Printed:
        """Agreement, one row per model."""
        rows = []
        for name, m in metrics.items():
            shown = [with_interval(m[key], m[f"{key}_interval95"]) for key in AGREEMENT]
            mean = float(np.mean([v["auc"] for v in m["per_class"].values()]))
            rows.append([name, str(len(m["named"])), *shown, number(mean)])
        return Printed(["model", "clusters", "accuracy", "NMI", "ARI", "mean AUROC of classes"], rows)

    @classmethod
    def shown(cls, outputs: Cluster, said: Prediction) -> Array:
        """The probabilities."""
        assert said.probability is not None
        return said.probability
