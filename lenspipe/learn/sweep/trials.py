"""The table of a sweep's trials, built from their folders: rows for the done, the stopped and the crashed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe.learn.finish import HISTORY_FILE
from lenspipe.learn.fit_state import STATE_FILE, read_state
from lenspipe.learn.objectives.contract import Chance
from lenspipe.learn.settings import less_is_better
from lenspipe.learn.sweep.space import SweepSpace
from lenspipe.nn.card import CARD_FILE, read_card
from lenspipe.rundir import read_json, write_json
from lenspipe.tables import read_parquet, safe_cell

TRIAL_FILE, RESULT_FILE, ERROR_FILE, TABLE_FILE = "trial.json", "result.json", "error.json", "trials.parquet"
CSV_FILE = "trials.csv"
TRIALS, MODEL_FOLDER = "trials", "model"

SCHEMA = pa.schema(
    [
        pa.field(name, kind, metadata={"description": text})
        for name, kind, text in (
            ("trial", pa.string(), "name of the trial, of its settings alone"),
            ("rank", pa.int32(), "place among the finished trials that are better than chance; null for all others"),
            ("status", pa.string(), "done, stopped (early, by ASHA), error, or unfinished"),
            ("family", pa.string(), "network family"),
            ("metric", pa.float64(), "the number that counts, on the validation split"),
            ("metric_low", pa.float64(), "lower end of its 95 % interval; null for val_loss, and a rate of too few"),
            ("metric_high", pa.float64(), "upper end; null as the lower one"),
            ("metric_name", pa.string(), "what it is"),
            ("at_chance", pa.bool_(), "whether chance, or the mean predictor, lies within or beyond the interval"),
            ("settings", pa.string(), "JSON of what the space chose"),
            ("parameters", pa.int64(), "trained numbers"),
            ("multiply_adds", pa.int64(), "of one stamp, in the stored form"),
            ("epochs", pa.int64(), "epochs trained"),
            ("metrics", pa.string(), "JSON of every number of the validation split, all but val_loss with intervals"),
            ("seconds", pa.float64(), "seconds of training, all epochs"),
            ("stamps_per_s", pa.float64(), "stamps trained a second, in the last epoch"),
            ("audit_turns_90", pa.float64(), "largest change of the output under turns by 90 degrees"),
            ("audit_mirrors", pa.float64(), "largest change under mirror images"),
            ("audit_any_angle", pa.float64(), "largest change under turns by any angle, resampled"),
            ("checkpoint", pa.string(), "folder of the model, or of the state where it is not finished"),
            ("error", pa.string(), "what ended the trial"),
        )
    ]
)
AUDIT = {"audit_turns_90": "turns by 90 degrees", "audit_mirrors": "mirrors", "audit_any_angle": "turns by any angle"}


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Store what a finished trial cost and how it was audited."""
    write_json(folder / RESULT_FILE, result)


def is_finished(folder: Path) -> bool:
    """Whether a trial has a model and its result, or an error."""
    return (folder / RESULT_FILE).exists() or (folder / ERROR_FILE).exists()


def at_chance(chance: Chance, low: float | None, high: float | None) -> bool:
    """Whether a result with this interval is no better than chance, as the objective has it; so where there is none."""
    if low is None or high is None:
        return True
    return high >= chance.value if less_is_better(chance.number) else low <= chance.value


def trial_history(folder: Path) -> list[dict[str, Any]]:
    """Numbers of the epochs that a trial has behind it."""
    model = folder / MODEL_FOLDER
    if (model / CARD_FILE).exists():
        rows: list[dict[str, Any]] = read_parquet(model / HISTORY_FILE).to_pylist()
        return rows
    return read_state(model / STATE_FILE).history if (model / STATE_FILE).exists() else []


def trial_row(folder: Path, space: SweepSpace, *, stopped: bool) -> dict[str, Any]:
    """Row of one trial without its rank."""
    about = read_json(folder / TRIAL_FILE)
    model = folder / MODEL_FOLDER
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    row |= {"trial": folder.name, "family": about["family"], "settings": json.dumps(about["choice"])}
    row |= {
        "metric_name": space.metric_name,
        "status": "stopped" if stopped else "unfinished",
        "checkpoint": str(folder),
    }
    history = trial_history(folder)
    if (model / CARD_FILE).exists():
        card = read_card(model)
        facts = card.metrics["validation"]
        row |= {"epochs": card.training["epochs"], "seconds": card.training["seconds"]}
    else:
        facts = history[-1] if history else {}
        row |= {"epochs": len(history), "seconds": sum(epoch["seconds"] for epoch in history)}
    if (folder / RESULT_FILE).exists():
        row |= {"status": "done"} | {k: v for k, v in read_json(folder / RESULT_FILE).items() if k in row}
    if (folder / ERROR_FILE).exists():
        row |= {"status": "error", "error": read_json(folder / ERROR_FILE)["error"]}
    chance = space.chance
    name = space.metric_name
    row |= {"metric": facts.get(name), "metric_low": facts.get(f"{name}_low"), "metric_high": facts.get(f"{name}_high")}
    if facts:
        row["at_chance"] = at_chance(chance, facts.get(f"{chance.number}_low"), facts.get(f"{chance.number}_high"))
    row["metrics"] = json.dumps(facts)
    row["stamps_per_s"] = history[-1].get("stamps_per_s") if history else None
    return row


def trial_table(folders: list[Path], space: SweepSpace, *, stopped: set[str]) -> pa.Table:
    """
    All trials, the ranked ones first.

    Parameters
    ----------
    folders : list of Path
        Trials that have begun.
    space : SweepSpace
    stopped : set of str
        Names of the trials that ASHA ended.
    """
    rows = [trial_row(folder, space, stopped=folder.name in stopped) for folder in folders]
    sign = 1.0 if space.mode == "min" else -1.0
    good = [row for row in rows if row["status"] == "done" and row["at_chance"] is False and row["metric"] is not None]
    for rank, row in enumerate(sorted(good, key=lambda row: (sign * row["metric"], row["trial"])), start=1):
        row["rank"] = rank
    order = ("done", "stopped", "unfinished", "error")
    last = len(rows) + 1
    rows.sort(key=lambda row: (row["rank"] or last, order.index(row["status"]), row["trial"]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def flat_csv(table: pa.Table) -> str:
    """The table as CSV, with a column for every setting that a space chose and for every number that was measured."""
    rows = []
    for row in table.to_pylist():
        settings, metrics = json.loads(row.pop("settings")), json.loads(row.pop("metrics"))
        plain = {key: value for key, value in metrics.items() if value is None or isinstance(value, int | float)}
        rows.append(row | settings | {f"validation.{key}": value for key, value in plain.items()})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer.writerow(columns)
    writer.writerows([_cell(row.get(key)) for key in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return safe_cell(value) if isinstance(value, str) else value
