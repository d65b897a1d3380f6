"""
Figures and tables of `docs/results/adaptation.md`, from the records alone.

    python -m benchmarks.studies.adaptation.figures

Draws `docs/img/adaptation_*.png` and prints the tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from benchmarks import record
from benchmarks.studies.dark_matter.figures import IMAGES, picture
from lenspipe.report.picture import write_png
from lenspipe.report.plots import COLOURS

GAPS = ("instruments", "candidates", "sim-to-real", "sim-to-real-augmented", "sim-to-real-many", "sim-to-real-matched")
FIRST = "sim-to-real"
"""Gaps whose names begin so differ by their source and its training: `closed` from the source of the first as well."""
CHANGED = "sim-to-real-matched"
"""The gap whose recipe has changes; gaps whose names go on from it have one of them, or none."""
FAMILIES = ("small-cnn", "equivariant-c4-wide")
"""In tables; others are in the record."""
ENDS = ("source-only", "target-trained")
DRAWN = ("source-only", "adabn", "mmd", "mmd-own", "dann-own", "target-trained")
Rows = list[dict[str, Any]]


def closed(cells: Rows, row: dict[str, Any], source_gap: str | None = None) -> float | None:
    """
    Part of the way from no adaptation to target-trained, of mean areas over seeds that all three have; None where there
    is no such seed, or no way.

    No adaptation is that of the same gap, or of another one with the same target.
    """
    gap, family = row["gap"], row["family"]
    ends = (source_gap or gap, ENDS[0]), (gap, row["method"]), (gap, ENDS[1])
    by_seed = [
        {
            c["seed"]: float(c.get("auc_3_classes") or c["auroc"])
            for c in cells
            if (c["gap"], c["method"], c["family"]) == (*end, family)
        }
        for end in ends
    ]
    seeds = set(by_seed[0]) & set(by_seed[1]) & set(by_seed[2])
    if not seeds:
        return None
    low, found, high = (np.mean([areas[seed] for seed in seeds]) for areas in by_seed)
    return float((found - low) / (high - low)) if high - low >= 0.01 else None


def area(row: dict[str, Any]) -> dict[str, float]:
    """The area that a gap is judged by: of all classes where there are three, else of lenses."""
    found: dict[str, float] = row.get("auc_3_classes") or row["auroc"]
    return found


def interval(row: dict[str, Any]) -> list[float]:
    """Mean of its intervals."""
    found: list[float] = row.get("auc_3_classes_interval95") or row["interval95"]
    return found


def table(rows: Rows, cells: Rows, gap: str) -> str:
    """Methods of a gap, a row each; columns of one family stand together."""
    of_gap = {(r["method"], r["family"]): r for r in rows if r["gap"] == gap and r["family"] in FAMILIES}
    families = [f for f in FAMILIES if any(family == f for _, family in of_gap)]
    heads = ["AUROC (seeds)", "closed", "domain AUC", "TP FP TN FN"]
    if any("tpr_at_0.01" in r for r in of_gap.values()):
        heads.insert(1, "TPR at 1e-2")
    if later := gap.startswith(FIRST) and gap != FIRST:
        heads.insert(heads.index("closed") + 1, "from the first source")
    names = [f"{family}: {heads[0]}" if k == 0 else head for family in families for k, head in enumerate(heads)]
    lines = [f"| method | {' | '.join(names)} |", "|" + "---|" * (1 + len(names))]
    for method in sorted({method for method, _ in of_gap}, key=lambda m: (m in ENDS, m)):
        found = [f"**{method}**" if method in ENDS else method]
        for family in families:
            row = of_gap.get((method, family))
            if row is None:
                found += [""] * len(heads)
                continue
            part = None if method in ENDS else closed(cells, row)
            told = {
                heads[0]: f"{within(area(row)['mean'], interval(row))} ({row['seeds']})",
                "TPR at 1e-2": short(row.get("tpr_at_0.01", {}).get("mean")),
                "closed": short(part),
                "from the first source": short(closed(cells, row, FIRST) if later else None),
                "domain AUC": short(row["domain_auc"]["mean"]),
                "TP FP TN FN": " ".join(str(row[k]) for k in ("tp", "fp", "tn", "fn")),
            }
            found += [told[head] for head in heads]
        lines.append(f"| {' | '.join(found)} |")
    return "\n".join(lines)


def apart(rows: Rows, cells: Rows) -> str:
    """No adaptation from a changed recipe, from the recipe with each change alone, and from the unchanged one."""
    lines = ["| changed | AUROC (seeds) | by seed | TPR at 1e-2 | TP FP TN FN |", "|---|---|---|---|---|"]
    for row in rows:
        if row["gap"].startswith(CHANGED) and (row["method"], row["family"]) == (ENDS[0], FAMILIES[0]):
            same = [c for c in cells if all(c[k] == row[k] for k in ("gap", "method", "family"))]
            by_seed = ", ".join(short(c["auroc"], 3) for c in sorted(same, key=lambda c: int(c["seed"])))
            found = f"{within(area(row)['mean'], interval(row))} ({row['seeds']}) | {by_seed}"
            counts = " ".join(str(row[k]) for k in ("tp", "fp", "tn", "fn"))
            changed = row["gap"].removeprefix(CHANGED).removeprefix("-") or "all three"
            lines.append(f"| {changed} | {found} | {short(row['tpr_at_0.01']['mean'])} | {counts} |")
    return "\n".join(lines)


def short(value: float | None, places: int = 2) -> str:
    """A number without the zero before its point; nothing where there is none."""
    return "" if value is None else re.sub(r"^(-?)0\.", r"\1.", format(value, f".{places}f"))


def within(value: float, ends: Sequence[float]) -> str:
    """A number and its interval."""
    return f"{short(value, 3)} [{short(ends[0], 3)}, {short(ends[1], 3)}]"


def each_gap(draw: Callable[[Any, str], None], gaps: list[str]) -> Figure:
    """A panel per gap, three to a row."""
    rows = -(-len(gaps) // 3)
    figure = Figure(figsize=(4.2 * 3, 3.8 * rows), layout="constrained")
    for axes, gap in zip(figure.subplots(rows, 3, squeeze=False).ravel(), gaps, strict=False):
        draw(axes, gap)
        axes.set_title(gap)
    return figure


def areas(rows: Rows, gaps: list[str]) -> Figure:
    """Area by method, with the mean of the intervals."""

    def draw(axes: Any, gap: str) -> None:
        methods = sorted({r["method"] for r in rows if r["gap"] == gap}, reverse=True)
        for k, family in enumerate(dict.fromkeys([*FAMILIES, *(r["family"] for r in rows)])):
            some = [r for r in rows if (r["gap"], r["family"]) == (gap, family)]
            if not some:
                continue
            y = np.array([methods.index(r["method"]) for r in some]) + 0.15 * k
            x = np.array([area(r)["mean"] for r in some])
            ends = np.array([interval(r) for r in some]).T
            axes.errorbar(
                x, y, xerr=np.maximum(0, [x - ends[0], ends[1] - x]), fmt="o", ms=4, color=COLOURS[k], label=family
            )
        axes.set_yticks(range(len(methods)), methods, fontsize=8)
        axes.set_xlabel("AUROC on the target")
        axes.axvline(0.5, ls=":", color="0.6")
        axes.legend(fontsize=7)

    return each_gap(draw, gaps)


def lines(curves: Rows, gaps: list[str], number: str, label: str) -> Figure:
    """A curve per method, of the first family and seed."""

    def draw(axes: Any, gap: str) -> None:
        for colour, method in zip(COLOURS, DRAWN, strict=False):
            some = [c for c in curves if (c["gap"], c["method"], c["curve"], c["seed"]) == (gap, method, number, 0)]
            some = [c for c in some if c["family"] == "small-cnn"]
            if some:
                axes.plot([c["x"] for c in some], [c["y"] for c in some], color=colour, label=method)
        if number == "roc":
            axes.plot([0, 1], [0, 1], ":", color="0.6")
            axes.set(xlabel="false positive rate", ylabel="true positive rate")
        else:
            axes.set(xlabel="epoch", ylabel=label)
        axes.legend(fontsize=7)

    return each_gap(draw, gaps)


def features(curves: Rows, gaps: list[str], after: dict[str, str]) -> Figure:
    """Features of both domains before (source alone) and after the best method without labels."""
    figure = Figure(figsize=(4.2 * len(gaps), 7.2), layout="constrained")
    for column, gap in enumerate(gaps):
        for row, method in enumerate((ENDS[0], after[gap])):
            axes = figure.add_subplot(2, len(gaps), row * len(gaps) + column + 1)
            of_gap = [c for c in curves if c["gap"] == gap and c["curve"].startswith("features")]
            # a label has one colour in both domains
            colour_of = dict(zip(sorted({str(c["label"]) for c in of_gap}), COLOURS, strict=False))
            for marker, domain in ((".", "source"), ("x", "target")):
                some = [
                    c
                    for c in curves
                    if (c["gap"], c["method"], c["family"]) == (gap, method, "small-cnn")
                    and c["curve"] == f"features of the {domain}"
                ]
                for name in sorted({str(c["label"]) for c in some}):
                    at = [(c["x"], c["y"]) for c in some if str(c["label"]) == name]
                    axes.plot(
                        *zip(*at, strict=True),
                        marker,
                        ms=4,
                        color=colour_of[name],
                        alpha=0.6,
                        label=f"{domain}, {name}",
                    )
            axes.set(title=f"{gap}: {method}", xticks=[], yticks=[])
            axes.legend(fontsize=5)
    return figure


def best(rows: Rows, gap: str) -> str:
    """The best method that reads no label of the target, by the mean area of `small-cnn`."""
    some = [r for r in rows if (r["gap"], r["family"]) == (gap, "small-cnn")]
    without = [r for r in some if r["method"] not in (*ENDS, "fine-tune")]
    return str(max(without, key=lambda r: area(r)["mean"])["method"]) if without else ENDS[0]


@click.command()
def main() -> None:
    """Draw and print everything."""
    rows = json.loads((record.RESULTS / "adaptation.json").read_text())["result"]["summary"]
    cells = pq.read_table(record.RESULTS / "adaptation.parquet").to_pylist()
    curves = pq.read_table(record.RESULTS / "adaptation_curves.parquet").to_pylist()
    gaps = [gap for gap in GAPS if any(r["gap"] == gap for r in rows)]
    drawn = {
        "auroc": areas(rows, gaps),
        "loss": lines(curves, gaps, "loss", "training loss"),
        "target": lines(curves, gaps, "target_auc", "AUC of the target's validation labels"),
        "roc": lines(curves, gaps, "roc", ""),
        "features": features(curves, gaps, {gap: best(rows, gap) for gap in gaps}),
    }
    for name, figure in drawn.items():
        write_png(IMAGES / f"adaptation_{name}.png", picture(figure))
    for gap in gaps:
        print(f"\n{gap}\n\n{table(rows, cells, gap)}")
    print(f"\n{apart(rows, cells)}")


if __name__ == "__main__":
    main()
