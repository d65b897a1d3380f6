"""
All families that find anomalies, on one data set and judged on others: the table of TP, FP, TN, FN and areas.

    python -m benchmarks.studies.labels.anomalies --data STAMPS --normal no_substructure --out WORK --name NAME
    python -m benchmarks.studies.labels.anomalies --data STAMPS --normal nonlens --also WARPS --out WORK --name NAME

The trainings are `lenspipe sweep --space jobs/anomaly_families.toml`, of each family the first of its settings (all
with `--all-settings`); run again, they go on where they were cut off. Writes `anomalies_NAME.csv` and `.parquet` into
WORK and `results/anomalies_NAME.json`.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.cli.options import settings_of
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.learn.settings import DeflectSettings
from lenspipe.learn.sweep.run import sweep
from lenspipe.learn.sweep.space import SweepSpace
from lenspipe.learn.sweep.trials import MODEL_FOLDER, TRIALS
from lenspipe.nn.card import CARD_FILE
from lenspipe.stamps.format import StampSet
from lenspipe.tables import write_table

SPACE = "jobs/anomaly_families.toml"


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Stamps with splits.")
@click.option("--normal", required=True, help="Labels that are normal, A,B.")
@click.option(
    "--also", type=click.Path(exists=True, path_type=Path), multiple=True, help="Stamps to judge on, all rows."
)
@click.option("--fitted", type=click.Path(exists=True, path_type=Path), multiple=True, help="Models to judge beside.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the models and tables.")
@click.option("--name", required=True, help="Name of the record.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Over the space's settings.")
@click.option("--all-settings", is_flag=True, help="Every setting of the space, and not the first of each family.")
@click.option("--judge-only", is_flag=True, help="Judge the families that are trained, and train none.")
@record.keep_option
def main(
    data: Path,
    normal: str,
    also: tuple[Path, ...],
    fitted: tuple[Path, ...],
    out: Path,
    name: str,
    assignments: tuple[str, ...],
    all_settings: bool,
    judge_only: bool,
    keep: bool,
) -> None:
    """Train the families, judge them, write the tables."""
    clock = Clock()
    space = settings_of(SweepSpace, SPACE, (*assignments, f"base.labels.normal={json.dumps(normal.split(','))}"))
    if not all_settings:
        space = space.model_copy(update={"model": tuple(first_of(one) for one in space.model)})
    if not judge_only:
        sweep(data, space, out / "sweep", seed=1, resume=(out / "sweep").exists())
    out.mkdir(parents=True, exist_ok=True)
    models = [path.parent for path in sorted((out / "sweep" / TRIALS).glob(f"*/{MODEL_FOLDER}/{CARD_FILE}"))]
    if not models and not fitted:
        raise SystemExit(f"no family was trained: see {out / 'sweep' / 'trials.csv'}")
    rows = []
    for folder, split in ((data, "test"), *((one, None) for one in also)):
        rows += judged_rows([*models, *fitted], StampSet.open(folder), split)
    write(out / f"anomalies_{name}", rows)
    trained = {row["family"] for row in rows}
    missing = sorted({one.family for one in space.model} - trained)
    found = {"data": data.name, "normal": normal, "not_trained": missing, "rows": rows} | clock.seconds()
    record.write(f"anomalies_{name}", found, keep=keep)


def first_of(family: Any) -> Any:
    """A family of a space with the first of each of its settings."""
    first = {key: value[0] if isinstance(value, tuple) else value for key, value in family.settings.items()}
    return family.model_copy(update={"settings": first})


def judged_rows(models: list[Path], stamps: StampSet, split: str | None) -> list[dict[str, Any]]:
    """A row per model: every hyperparameter, areas with intervals, and counts at the stated rates."""
    members = open_members([str(one) for one in models], stamps)
    judge = judged(members, stamps, JudgeSettings(split=split))
    rows = []
    for member, (_, found) in zip(members, judge.metrics().items(), strict=True):
        training = member.card.training
        asked = training.get("settings", {})
        row = {
            "data": stamps.folder.name,
            "model": member.name,
            "method": asked.get("method"),
            "family": training.get("family", member.card.family),
        }
        row |= {f"model.{key}": value for key, value in (asked.get("model") or member.card.settings).items()}
        row |= {f"{table}.{key}": asked[table][key] for table in ("optim", "sampling", "input") for key in asked[table]}
        row |= {f"deflect.{key}": value for key, value in deflection(asked).items()}
        row |= {f"augment.{key}": value for key, value in training["augment"].items()}
        row |= {key: training.get(key) for key in ("seed", "pretrained", "pretrained_sha256")}
        row |= {"epochs": training["epochs"], "seconds": training["seconds"], "n_train": training["n_train"]["stamps"]}
        rows.append(
            row | judge.csv_fields(found) | {f"interval_{c}": v["interval95"] for c, v in found["per_class"].items()}
        )
    return rows


def deflection(asked: dict[str, Any]) -> dict[str, Any]:
    """The table ``deflect`` that a training ran with, its defaults where it was not said; none of another method."""
    if asked.get("method") != "deflect":
        return {}
    return DeflectSettings.model_validate(asked.get("deflect") or {}).model_dump(mode="json")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """The table as CSV and Parquet; what is no number or word as JSON."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    plain = [{key: _plain(row.get(key)) for key in columns} for row in rows]
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)
    arrays = {}
    for key in columns:
        values = [row[key] for row in plain]
        kinds = {type(value) for value in values if value is not None}
        kind = pa.string() if kinds - {int, float} else pa.float64()
        arrays[key] = pa.array([str(v) if kind == pa.string() and v is not None else v for v in values], kind)
    write_table(pa.table(arrays), path.with_suffix(".parquet"))


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else json.dumps(value)


if __name__ == "__main__":
    main()
