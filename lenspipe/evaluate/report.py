"""What an evaluation leaves: metrics.json, models.csv, scores.parquet, pictures and one page."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe.disk import LOCK, foreign_in, locked, remove_scratch
from lenspipe.errors import ConfigError
from lenspipe.evaluate.audit import audit
from lenspipe.evaluate.judges.contract import Judge, JudgeSettings, Metrics, Printed, Progress
from lenspipe.evaluate.judging import judge_of, open_members, stream, with_committees
from lenspipe.evaluate.stream import Member
from lenspipe.evaluate.summary import audit_section, report_page
from lenspipe.report.picture import write_png
from lenspipe.rundir import atomic_path, undone_on_error, utc_now, versions, write_json
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import Data, JoinedStamps, open_stamps
from lenspipe.tables import TableWriter, safe_cell, table_writer

METRICS, MODELS, SCORES, PAGE, PICTURES = "metrics.json", "models.csv", "scores.parquet", "report.html", "plots"
_OURS = re.compile(rf"{PICTURES}/[^/]+\.png|{'|'.join(map(re.escape, (METRICS, MODELS, SCORES, PAGE, LOCK)))}")


@dataclass(frozen=True, kw_only=True)
class ReportSettings(JudgeSettings):
    """How models are judged, and where they run."""

    n_audit: int = 0
    """Stamps of the equivariance audit; 0 for none."""
    device: str = "auto"
    """Where models run."""
    batch_size: int | None = None
    """Stamps per batch."""
    threads: int = 1
    """Threads of torch on the CPU."""


@dataclass(frozen=True)
class Report:
    """
    What was written.

    Attributes
    ----------
    record : dict
        What ``metrics.json`` holds: the metrics of the first model, and under ``models`` those of each.
    printed : Printed
        The numbers that count.
    """

    record: dict[str, Any]
    printed: Printed


def evaluate_models(
    models: Sequence[str | Path],
    data: Data,
    out: Path,
    settings: ReportSettings,
    *,
    overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Report:
    """
    Judge models on a data set of stamps and write the report.

    Parameters
    ----------
    models : sequence
        Names of shipped models, folders of checkpoints or of committees, all of one task. A committee's members are
        judged beside it.
    data : path, or sequence of `lenspipe.stamps.joined.Source`
        Data set (`lenspipe.stamps.format`), or several that are read as one.
    out : Path
        Folder of the report.
    settings : ReportSettings
    overwrite : bool
        Write over a report that is there.
    progress : callable
        Called with a stage, its stamps done and in all.

    Raises
    ------
    ConfigError
        ``out`` holds something; the models cannot be judged together.
    DataError, ModelError
        Stamps and models do not fit, or the stamps are of one class.
    """
    if out.exists() and any(out.iterdir()) and not (overwrite and _is_report(out)):
        raise ConfigError(
            "the folder holds something already; choose another --out, or --overwrite a report", out=str(out)
        )
    stamps = open_stamps(data, one_grid=False)
    single, committees = with_committees(models)
    members = open_members(
        single, stamps, device=settings.device, batch_size=settings.batch_size, threads=settings.threads
    )
    judge = judge_of(members, stamps, settings)
    for committee, where in committees:
        judge.add_committee(committee, members[where])
    if settings.n_audit and not judge.audited:
        raise ConfigError("the audit is of models that give numbers per stamp", task=members[0].card.task)
    with locked(out), undone_on_error(out):
        remove_scratch(out / PICTURES)
        return _report(judge, members, out, settings, progress)


def _is_report(out: Path) -> bool:
    """Whether a folder holds a report, or nothing but what a killed one has left."""
    return (out / METRICS).exists() or foreign_in(out, _OURS.fullmatch) is None


def _report(
    judge: Judge[Any, Any], members: Sequence[Member[Any, Any]], out: Path, settings: ReportSettings, progress: Progress
) -> Report:
    stamps = judge.stamps
    (out / PICTURES).mkdir(exist_ok=True)
    with _scores_file(out / SCORES) as on_rows:
        stream(judge, on_rows=on_rows, progress=lambda k, n: progress("scoring", k, n))
        metrics = judge.metrics()
    by_name = {member.name: member for member in members}
    results = [{"name": name, "model": _facts(by_name.get(name)), "metrics": m} for name, m in metrics.items()]
    if settings.n_audit:
        for k, (member, result) in enumerate(zip(members, results, strict=False)):
            progress("audit", k * settings.n_audit, len(members) * settings.n_audit)
            result["audit"] = audit(member, stamps, split=settings.split, n_stamp=settings.n_audit)
        progress("audit", len(members) * settings.n_audit, len(members) * settings.n_audit)
    record = _record(judge, metrics, results)
    sections = [*judge.sections(metrics), *audit_section(results)]
    for name, png in (picture for section in sections for picture in section.pictures):
        write_png(out / PICTURES / name, png)
    with atomic_path(out / MODELS) as path:
        path.write_text(models_csv(results, judge), encoding="utf-8")
    with atomic_path(out / PAGE) as path:
        path.write_text(report_page(record, sections), encoding="utf-8")
    write_json(out / METRICS, record)
    return Report(record, judge.printed(metrics))


def _facts(member: Member[Any, Any] | None) -> dict[str, Any] | None:
    if member is None:
        return None
    card = member.card
    return {
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


def _record(judge: Judge[Any, Any], metrics: dict[str, Metrics], results: list[dict[str, Any]]) -> dict[str, Any]:
    stamps, first = judge.stamps, next(iter(metrics.values()))
    data_sets = {}
    if isinstance(stamps, JoinedStamps):
        each = zip(stamps.names, stamps.each(), strict=True)
        data_sets = {"data_sets": [{"name": name, "n": one.n, "images": _images(one)} for name, one in each]}
    return {
        **{key: value for key, value in first.items() if key not in judge.only_by_model},
        "task": judge.members[0].card.task,
        "data": {
            "folder": str(stamps.folder),
            "split": judge.settings.split,
            "images": _images(stamps),
            "classes": list(judge.classes),
            **data_sets,
        },
        "written": utc_now(),
        "versions": versions(),
        "models": results,
    }


def _images(stamps: StampSet) -> dict[str, Any]:
    return {
        name: {"bands": list(s.bands), "size_px": s.size_px, "pixel_scale_arcsec": s.pixel_scale_arcsec, "unit": s.unit}
        for name, s in stamps.images.items()
    }


@contextlib.contextmanager
def _scores_file(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    with atomic_path(path) as scratch, contextlib.ExitStack() as stack:
        writer: list[TableWriter] = []

        def write(rows: pa.Table) -> None:
            if not writer:
                writer.append(stack.enter_context(table_writer(scratch, rows.schema)))
            writer[0].write(rows)

        yield write


def models_csv(results: Sequence[dict[str, Any]], judge: Judge[Any, Any]) -> str:
    """
    One row per model: what it is, how it was built and trained, and what its judge found.

    Settings of the network are columns ``setting.NAME``. Settings and facts of the training are ``training.NAME``,
    nested ones ``training.TABLE.NAME``, where they are plain values or lists of them, joined by blanks.
    """
    rows = [_csv_row(result, judge.csv_fields(result["metrics"])) for result in results]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: safe_cell(v) if isinstance(v, str) else v for key, v in row.items()} for row in rows)
    return text.getvalue()


def _csv_row(result: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    model = result["model"] or {}
    row: dict[str, Any] = {"model": result["name"]}
    row |= {key: model.get(key, "") for key in ("family", "digest", "n_parameter", "stamp_px", "pixel_scale_arcsec")}
    row["bands"] = " ".join(model.get("bands", []))
    row |= found
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
