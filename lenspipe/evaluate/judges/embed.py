"""Embeddings: what neighbours and a linear probe tell of the labels, with parts of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.evaluate.judges.contract import Array, JudgeSettings, Metrics, NumbersJudge, Printed, file_stem
from lenspipe.evaluate.stream import Member, Pixels, iter_stamps, words
from lenspipe.infer.predict import Predictor
from lenspipe.nn.outputs import Embed, Prediction
from lenspipe.report import plots
from lenspipe.report.page import Section, number, with_interval
from lenspipe.stamps.format import StampSet
from lenspipe.stats.episodes import episode_accuracy
from lenspipe.stats.neighbours import at_parts, uniformity

EmbedMember = Member[Embed, Predictor]
PARTS = (0.01, 0.1, 1.0)
"""Parts of the labels of the training split that the probes see."""
MOST = 20_000
"""Stamps of each split that are held in memory; of a longer one the first."""
N_PAIR = 2048
SHOTS = (1, 5, 10, 20)
"""Examples per class of the episodes."""


class EmbedJudge(NumbersJudge[Embed]):
    """The probes learn from the labelled rows of the training split; those of the judged split are told."""

    def __init__(self, members: Sequence[EmbedMember], stamps: StampSet, settings: JudgeSettings) -> None:
        super().__init__(members, stamps, settings)
        self._vectors: dict[str, list[NDArray[np.float32]]] = {member.name: [] for member in members}
        self._labels: list[str] = []

    def count(self, table: pa.Table, pixels: dict[str, Pixels]) -> Iterator[pa.Table]:
        """Keep vectors and labels; rows of the vectors."""
        keep = len(self._labels) < MOST
        for member in self.members:
            found = _embedded(member, self.stamps, table, pixels)
            if keep:
                self._vectors[member.name].append(found)
            flat = pa.array(found.astype(np.float16).ravel(), pa.float16())
            vectors = pa.FixedSizeListArray.from_arrays(flat, found.shape[1])
            yield pa.table(
                {
                    "model": [member.name] * table.num_rows,
                    "stamp_id": table["stamp_id"],
                    "label": table["label"],
                    "embedding": vectors.cast(pa.list_(pa.float16())),
                }
            )
        if keep:
            self._labels += words(table, "label").tolist()

    def metrics(self) -> dict[str, Metrics]:
        """By model, what the probes tell with parts of the labels; raises `DataError` without two classes."""
        known, labels = self._training()
        classes = sorted(set(labels))
        if len(classes) < 2:
            raise DataError(
                "the training split has labels of one class only: a probe tells classes", labels=",".join(classes)
            )
        if strange := sorted(set(self._labels) - set(classes)):
            raise DataError("labels that no stamp of the training split has", labels=",".join(strange))
        place = {name: k for k, name in enumerate(classes)}
        answers, numbers = np.array([place[x] for x in self._labels]), np.array([place[x] for x in labels])
        found: dict[str, Metrics] = {}
        for member in self.members:
            query = np.concatenate(self._vectors[member.name])
            parts = at_parts(query, answers, known[member.name], numbers, len(classes), parts=PARTS, seed=0)
            found[member.name] = {
                "n": len(query),
                "classes": classes,
                "parts": parts,
                "few_shot": [
                    episode_accuracy(
                        query, answers, known[member.name], numbers, n_way=len(classes), k_shot=k, n_episode=200
                    )
                    for k in SHOTS
                ],
                "uniformity": uniformity(query[:N_PAIR]),
                "size": member.outputs.size,
            }
        return found

    def sections(self, metrics: Mapping[str, Metrics]) -> list[Section]:
        """A table of parts and a picture of the plane of largest variance, for each model."""
        heading = ["labels", "n", "neighbours: AUROC", "accuracy", "linear: AUROC", "accuracy"]
        sections = []
        for name, m in metrics.items():
            rows = [
                [f"{row['part']:.0%}", str(row["n_label"])]
                + [
                    with_interval(row[how][key], row[how][f"{key}_interval95"])
                    for how in ("knn", "linear")
                    for key in ("auc", "accuracy")
                ]
                for row in m["parts"]
            ]
            vectors = np.concatenate(self._vectors[name])[:N_PAIR].astype(np.float64)
            labels = np.array([m["classes"].index(x) for x in self._labels[:N_PAIR]])
            picture = (f"{file_stem(name)}_embedding.png", plots.plane_plot(vectors, labels))
            few = [
                [str(row["k_shot"]), with_interval(row["accuracy"], row["interval95"])]
                for row in m["few_shot"]
                if row["accuracy"] is not None
            ]
            tables: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = [(heading, rows)]
            if few:
                said = f"accuracy, {len(m['classes'])} classes, nearest prototype"
                tables.append((["examples per class", said], few))
            text = f"{m['n']} stamps; vectors of {m['size']} numbers; uniformity {number(m['uniformity'])}."
            sections.append(Section(name, text, tables, [picture]))
        return sections

    def csv_fields(self, metrics: Metrics) -> dict[str, Any]:
        """Areas and accuracies by part of the labels."""
        return {
            f"{how}_{key}_at_{row['part']:g}": row[how][key]
            for row in metrics["parts"]
            for how in ("knn", "linear")
            for key in ("auc", "accuracy")
        }

    def printed(self, metrics: Mapping[str, Metrics]) -> Printed:
        """Areas, one row per model and part."""
        heading = ["model", "labels", "n", "neighbours: AUROC", "linear: AUROC", "linear: accuracy"]
        rows = []
        for name, m in metrics.items():
            for row in m["parts"]:
                shown = [("knn", "auc"), ("linear", "auc"), ("linear", "accuracy")]
                cells = [with_interval(row[how][key], row[how][f"{key}_interval95"]) for how, key in shown]
                rows.append([name, f"{row['part']:.0%}", str(row["n_label"]), *cells])
        return Printed(heading, rows)

    @classmethod
    def shown(cls, outputs: Embed, said: Prediction) -> Array:
        """The vector."""
        assert said.embedding is not None
        return said.embedding

    def _training(self) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
        """Vectors by model, and labels, of the labelled training rows."""
        vectors: dict[str, list[NDArray[np.float32]]] = {member.name: [] for member in self.members}
        labels: list[str] = []
        images = [member.image for member in self.members]
        for table, pixels in iter_stamps(self.stamps, images, self.columns(), split="train"):
            for member in self.members:
                vectors[member.name].append(_embedded(member, self.stamps, table, pixels))
            labels += words(table, "label").tolist()
            if len(labels) >= MOST:
                break
        if not labels:
            raise DataError("no labelled stamp in the training split: a probe has nothing to learn from")
        return {name: np.concatenate(parts) for name, parts in vectors.items()}, labels


def _embedded(member: EmbedMember, stamps: StampSet, table: pa.Table, pixels: dict[str, Pixels]) -> Pixels:
    found = member.predict(table, member.prepared(stamps, pixels)).embedding
    assert found is not None
    return found.astype(np.float32)
