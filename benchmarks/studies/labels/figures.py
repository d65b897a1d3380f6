"""
Figures and tables of `docs/results/labels.md`, from the records alone.

    python -m benchmarks.studies.labels.figures

Draws `docs/img/labels_anomalies.png` and prints the tables of anomalies and of starts from embeddings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure

from benchmarks import record
from benchmarks.studies.dark_matter.figures import IMAGES, picture
from lenspipe.report.picture import write_png

SETS = {"substructure_1": "substructure-1", "substructure_strong": "substructure-strong", "painted": "painted lenses"}
BOUND = "dark_matter_bound_substructure-1"


def read(name: str) -> dict[str, Any]:
    """What a record holds."""
    found: dict[str, Any] = json.loads((record.RESULTS / f"{name}.json").read_text())["result"]
    return found


def areas(name: str) -> list[tuple[str, float, tuple[float, float]]]:
    """Families, and in brackets what needs no network, with areas and intervals, best first."""
    found = read(f"anomalies_{name}")
    rows = [
        (label_of(row), row["auc"], (row["auc_low95"], row["auc_high95"]))
        for row in found["rows"]
        if row["data"] == found["data"]
    ]
    if (record.RESULTS / f"anomaly_brightness_{name}.json").exists():
        by = read(f"anomaly_brightness_{name}")["by"]
        rows += [(f"({key})", one["value"], tuple(one["interval95"])) for key, one in by.items()]
    return sorted(rows, key=lambda row: -row[1])


def label_of(row: dict[str, Any]) -> str:
    """Family, and how it learnt where not by giving stamps back."""
    return row["family"] if row.get("method") in (None, "rebuild") else f"{row['method']}, {row['family']}"


def draw() -> Figure:
    """Areas of all families with intervals, a panel per data set; the bounds of `substructure-1`."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    per_class = {observer: read(BOUND)[observer]["per_class"]["no_substructure"] for observer in ("told", "untold")}
    for k, (name, title) in enumerate(SETS.items(), start=1):
        axes, rows = figure.add_subplot(1, len(SETS), k), areas(name)[::-1]
        for y, (label, value, (low, high)) in enumerate(rows):
            colour = "C7" if label.startswith("(") else "C3" if label.startswith("deflect") else "C0"
            axes.plot([low, high], [y, y], colour, lw=1.2)
            axes.plot(value, y, "o", color=colour, ms=4)
        axes.axvline(0.5, color="0.8", lw=0.8)
        if name == "substructure_1":
            for observer, value in per_class.items():
                axes.axvline(
                    value, color="k", lw=0.8, ls="-" if observer == "told" else "--", label=f"bound, {observer}"
                )
            axes.legend(fontsize=7, loc="lower right", framealpha=1)
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows], fontsize=7)
        axes.set(title=title, xlabel="AUROC of anomalies", xlim=(0.4, 1.0))
    return figure


def anomaly_table(name: str) -> str:
    """The table of the results page."""
    found = read(f"anomalies_{name}")
    rows = [row for row in found["rows"] if row["data"] == found["data"]]
    kinds = [key.removeprefix("interval_") for key in rows[0] if key.startswith("interval_")]
    lines = [
        f"| family | AUROC | {' | '.join(kinds)} | TP | FP | TN | FN | training, s |",
        "|" + "---|" * (len(kinds) + 7),
    ]
    for row in sorted(rows, key=lambda row: -row["auc"]):
        area = f"{row['auc']:.3f} [{row['auc_low95']:.3f}, {row['auc_high95']:.3f}]"
        each = " | ".join(f"{row[f'auc_{kind}']:.3f}" for kind in kinds)
        counts = " | ".join(str(row[f"{side}_at_0.1"]) for side in ("tp", "fp", "tn", "fn"))
        lines.append(f"| `{label_of(row)}` | {area} | {each} | {counts} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def start_table(name: str) -> str:
    """Starts from scratch and from embeddings, one line per part of the labels and draw of them."""
    found = read(f"self_supervision_{name}")
    starts = list(dict.fromkeys(row["start"] for row in found["rows"]))
    lines = [f"| labels, draw | {' | '.join(starts)} |", "|" + "---|" * (len(starts) + 1)]
    for part, seed in dict.fromkeys((row["part"], row["seed"]) for row in found["rows"]):
        cells = {row["start"]: row for row in found["rows"] if (row["part"], row["seed"]) == (part, seed)}
        told = [interval(cells[start]["test"]) if start in cells else "" for start in starts]
        n = sum(next(iter(cells.values()))["n_train"].values())
        lines.append(f"| {part:.0%} ({n}), {seed} | {' | '.join(told)} |")
    for method, one in found["embeddings"].items():
        lines += [
            f"{method}, {row['part']:.0%}: neighbours {interval(row['knn'])}, probe {interval(row['linear'])}"
            for row in one["test"]
        ]
    return "\n".join(lines)


def interval(numbers: dict[str, Any]) -> str:
    """An area with its interval."""
    low, high = numbers["auc_interval95"]
    return f"{numbers['auc']:.3f} [{low:.3f}, {high:.3f}]"


@click.command()
def main() -> None:
    """Draw and print everything."""
    write_png(Path(IMAGES) / "labels_anomalies.png", picture(draw()))
    for name in SETS:
        print(anomaly_table(name), end="\n\n")
    for path in sorted(record.RESULTS.glob("self_supervision_substructure*.json")):
        print(start_table(path.stem.removeprefix("self_supervision_")), end="\n\n")


if __name__ == "__main__":
    main()
