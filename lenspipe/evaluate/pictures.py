"""The pictures of a report, by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lenspipe.evaluate.finder import Entry
from lenspipe.evaluate.tasks import ClassEntry, ValueEntry
from lenspipe.report import plots
from lenspipe.stamps.format import StampSet
from lenspipe.stats.groups import quantity_columns

AnyEntry = Entry | ClassEntry | ValueEntry


def pictures_of(
    entries: Sequence[AnyEntry], results: Sequence[dict[str, Any]], stamps: StampSet
) -> list[tuple[str, bytes]]:
    """File names and PNGs."""
    finders = [entry for entry in entries if isinstance(entry, Entry)]
    pictures = _finders(finders, results, stamps) if finders else []
    for entry, result in zip(entries, results, strict=True):
        if isinstance(entry, ClassEntry):
            pictures += _classifier(entry, result)
        elif isinstance(entry, ValueEntry):
            for target in entry.targets:
                truth, value, sigma = entry.points(target)
                stated = None if np.isnan(sigma).all() else sigma
                png = plots.regression_plot(target, truth, value, stated)
                pictures.append((f"{_file(entry.name)}_{target}.png", png))
    audited = {result["name"]: result["audit"] for result in results if "audit" in result}
    return [*pictures, ("audit.png", plots.audit_plot(audited))] if audited else pictures


def _finders(entries: list[Entry], results: Sequence[dict[str, Any]], stamps: StampSet) -> list[tuple[str, bytes]]:
    counts = {entry.name: entry.tally.total for entry in entries}
    metrics = {result["name"]: result["metrics"] for result in results}
    found = [("roc.png", plots.roc_plot(counts)), ("scores.png", plots.score_plot(counts))]
    stated = {name: m["reliability"] for name, m in metrics.items()}
    stated |= {f"{name}, calibrated": m["calibrated"] for name, m in metrics.items() if m["calibrated"]}
    found.append(("reliability.png", plots.reliability_plot(stated)))
    at = deepest_rate(results[0]["metrics"])
    columns = quantity_columns(stamps.schema.names, next(iter(stamps.images.values())).bands)
    for quantity, column in columns.items():
        rows = {name: m["recall_by"][quantity] for name, m in metrics.items() if quantity in m["recall_by"]}
        if rows:
            unit = (stamps.schema.field(column).metadata or {}).get(b"unit", b"").decode()
            found.append((f"recall_{quantity}.png", plots.recall_plot(column, unit, rows, at)))
    return found


def deepest_rate(metrics: dict[str, Any]) -> str:
    """Name of the lowest false positive rate down to 1e-3 that was measured; the threshold on the score if none."""
    rates = [name for name, rate in metrics["tpr_at_fpr"].items() if rate["value"] is not None and name != "1e-4"]
    return f"fpr {rates[-1]}" if rates else f"score {metrics['threshold']:g}"


def _classifier(entry: ClassEntry, result: dict[str, Any]) -> list[tuple[str, bytes]]:
    name = _file(entry.name)
    counts = {c: tally.total for c, tally in zip(entry.tally.classes, entry.tally.one_vs_rest, strict=True)}
    metrics = result["metrics"]
    return [
        (f"{name}_confusion.png", plots.confusion_plot(metrics["confusion"], metrics["classes"])),
        (f"{name}_roc.png", plots.roc_plot(counts)),
        (f"{name}_reliability.png", plots.reliability_plot({entry.name: metrics["reliability"]})),
    ]


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
