"""What an evaluation leaves: metrics.json, models.csv, scores.parquet, pictures and one page."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.errors import ConfigError
from lenspipe.evaluate.audit import audit
from lenspipe.evaluate.finder import Entry, assess_finders
from lenspipe.evaluate.pictures import pictures_of
from lenspipe.evaluate.stream import Member, open_members
from lenspipe.evaluate.summary import report_page
from lenspipe.evaluate.tasks import ClassEntry, ValueEntry, assess_classifiers, assess_regressions
from lenspipe.infer.committee import Rule
from lenspipe.rundir import atomic_path, utc_now, versions, write_json
from lenspipe.stamps.format import StampSet
from lenspipe.stats.curves import RATES, rate_name

METRICS, MODELS, SCORES, PAGE, PICTURES = "metrics.json", "models.csv", "scores.parquet", "report.html", "plots"
AnyEntry = Entry | ClassEntry | ValueEntry


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """How models are judged."""

    split: str | None = "test"
    """Rows of the data set; None for all."""
    threshold: float = 0.5
    """Score from which a source is called a lens."""
    beta: float = 1.0
    """Weight of recall in F_beta."""
    committees: tuple[Rule, ...] = ()
    """Rules of committees of all models."""
    views: Rule | None = None
    """Rule by which the eight orientations are combined."""
    n_audit: int = 0
    """Stamps of the equivariance audit; 0 for none."""
    device: str = "auto"
    """Where models run."""
    batch_size: int | None = None
    """Stamps a batch."""
    threads: int = 1
    """Threads of torch on the CPU."""


def evaluate_models(
    models: Sequence[str | Path],
    data: Path,
    out: Path,
    settings: ReportSettings,
    *,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> dict[str, Any]:
    """
    Judge models on a data set of stamps and write the report.

    Parameters
    ----------
    models : sequence
        Names of shipped models or folders of checkpoints, all of one task.
    data : Path
        Data set (`lenspipe.stamps.format`).
    out : Path
        Folder of the report.
    settings : ReportSettings
    overwrite : bool
        Write over a report that is there.
    progress : callable
        Called with a stage, its stamps done and in all.

    Returns
    -------
    dict
        What ``metrics.json`` holds: the metrics of the first model, and under ``models`` those of each.

    Raises
    ------
    ConfigError
        ``out`` holds something; the models cannot be judged together.
    DataError, ModelError
        Stamps and models do not fit, or the stamps are of one class.
    """
    if out.exists() and any(out.iterdir()) and not (overwrite and (out / METRICS).exists()):
        raise ConfigError(
            "the folder holds something already; choose another --out, or --overwrite a report", out=str(out)
        )
    stamps = StampSet.open(data)
    members = open_members(
        models, stamps, device=settings.device, batch_size=settings.batch_size, threads=settings.threads
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / PICTURES).mkdir(exist_ok=True)
    with _scores_file(out / SCORES) as on_rows:
        entries = _assess(members, stamps, settings, on_rows, lambda k, n: progress("scoring", k, n))
    results = [_result(entry, members, settings) for entry in entries]
    if settings.n_audit:
        for k, (member, result) in enumerate(zip(members, results, strict=False)):
            progress("audit", k * settings.n_audit, len(members) * settings.n_audit)
            result["audit"] = audit(member, stamps, split=settings.split, n_stamp=settings.n_audit)
        progress("audit", len(members) * settings.n_audit, len(members) * settings.n_audit)
    record = {
        **{key: value for key, value in results[0]["metrics"].items() if key not in ("recall_by", "by_kind")},
        "task": members[0].card.task,
        "data": _data(stamps, members, settings),
        "written": utc_now(),
        "versions": versions(),
        "models": results,
    }
    pictures = pictures_of(entries, results, stamps)
    for name, png in pictures:
        with atomic_path(out / PICTURES / name) as path:
            path.write_bytes(png)
    with atomic_path(out / MODELS) as path:
        path.write_text(models_csv(results), encoding="utf-8")
    with atomic_path(out / PAGE) as path:
        path.write_text(report_page(record, pictures), encoding="utf-8")
    write_json(out / METRICS, record)
    return record


def _assess(
    members: list[Member],
    stamps: StampSet,
    settings: ReportSettings,
    on_rows: Callable[[pa.Table], None],
    progress: Callable[[int, int], None],
) -> Sequence[AnyEntry]:
    task = members[0].card.task
    if task != "find" and (settings.committees or settings.views):
        raise ConfigError("committees and views are for finders", task=task)
    if task == "classify":
        return assess_classifiers(members, stamps, split=settings.split, on_rows=on_rows, progress=progress)
    if task == "regress":
        return assess_regressions(members, stamps, split=settings.split, on_rows=on_rows, progress=progress)
    return assess_finders(
        members,
        stamps,
        split=settings.split,
        committees=settings.committees,
        views=settings.views,
        on_rows=on_rows,
        progress=progress,
    )


def _result(entry: AnyEntry, members: list[Member], settings: ReportSettings) -> dict[str, Any]:
    if isinstance(entry, Entry):
        metrics = entry.metrics(threshold=settings.threshold, beta=settings.beta)
    else:
        metrics = entry.metrics()
    member = next((m for m in members if m.name == entry.name), None)
    facts: dict[str, Any] = {"name": entry.name, "model": None}
    if member is not None:
        card = member.card
        facts["model"] = {
            "folder": str(member.folder),
            "digest": member.predictor.digest,
            "family": card.family,
            "settings": card.settings,
            "n_parameter": member.predictor.n_parameter,
            "bands": list(card.bands),
            "stamp_px": card.stamp_px,
            "pixel_scale_arcsec": card.pixel_scale_arcsec,
            "stretch": card.stretch.model_dump(mode="json"),
            "training": card.training,
            "image": member.image,
        }
    return {**facts, "metrics": metrics}


def _data(stamps: StampSet, members: list[Member], settings: ReportSettings) -> dict[str, Any]:
    return {
        "folder": str(stamps.folder),
        "split": settings.split,
        "images": {
            name: {
                "bands": list(s.bands),
                "size_px": s.size_px,
                "pixel_scale_arcsec": s.pixel_scale_arcsec,
                "unit": s.unit,
            }
            for name, s in stamps.images.items()
        },
        "classes": list(members[0].card.classes),
    }


@contextlib.contextmanager
def _scores_file(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    with atomic_path(path) as scratch, contextlib.ExitStack() as stack:
        writer: list[pq.ParquetWriter] = []

        def write(rows: pa.Table) -> None:
            if not writer:
                writer.append(stack.enter_context(pq.ParquetWriter(scratch, rows.schema, compression="zstd")))
            writer[0].write_table(rows)

        yield write


def models_csv(results: Sequence[dict[str, Any]]) -> str:
    """
    One row a model: what it is, how it was built and trained, its confusion and its rates.

    Settings of the network are columns ``setting.NAME``. Settings and facts of the training are ``training.NAME``,
    nested ones ``training.TABLE.NAME``, where they are plain values or lists of them, joined by blanks.
    """
    rows = [_csv_row(result) for result in results]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(result: dict[str, Any]) -> dict[str, Any]:
    metrics, model = result["metrics"], result["model"] or {}
    row: dict[str, Any] = {"model": result["name"]}
    row |= {key: model.get(key, "") for key in ("family", "digest", "n_parameter", "stamp_px", "pixel_scale_arcsec")}
    row["bands"] = " ".join(model.get("bands", []))
    named = (
        *("n_lens", "n_other", "n", "tp", "fp", "tn", "fn", "threshold", "accuracy", "precision", "recall", "f1"),
        *("f_beta", "beta", "auroc", "auroc_micro", "f1_macro", "tpr0", "tpr10", "ece", "mae", "mse", "rmse"),
    )
    short = {"tp": "TP", "fp": "FP", "tn": "TN", "fn": "FN"}
    row |= {short.get(key, key): "" if metrics[key] is None else metrics[key] for key in named if key in metrics}
    if "auroc_interval95" in metrics:
        row["auroc_low95"], row["auroc_high95"] = metrics["auroc_interval95"]
    for rate in map(rate_name, RATES) if "tpr_at_fpr" in metrics else ():
        value = metrics["tpr_at_fpr"][rate]["value"]
        row[f"tpr_at_fpr_{rate}"] = "" if value is None else value
    row |= {f"setting.{key}": value for key, value in model.get("settings", {}).items()}
    training = _flat("training", model.get("training", {}))
    return row | {key.replace("training.settings.", "training."): value for key, value in training.items()}


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Columns of a nested value; what is neither plain nor a list of plain values has none."""
    if isinstance(value, dict):
        return {path: plain for key, inner in value.items() for path, plain in _flat(f"{name}.{key}", inner).items()}
    if isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value):
        return {name: " ".join(map(str, value))}
    return {name: value} if isinstance(value, str | int | float) else {}
