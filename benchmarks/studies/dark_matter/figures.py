"""
Figures and tables of `docs/results/dark-matter.md`, from the records alone.

    python -m benchmarks.studies.dark_matter.figures

Draws `docs/img/dark_matter_bound.png` and prints the tables of bounds and of the cells that have a record.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure

from benchmarks import record
from lenspipe.report.picture import write_png

IMAGES = Path(__file__).parents[3] / "docs" / "img"
SHORT = {"no_substructure": "none", "subhalo": "subhalo", "vortex": "vortex"}


def bounds() -> dict[str, dict[str, Any]]:
    """Bounds by name."""
    paths = sorted(record.RESULTS.glob("dark_matter_bound_*.json"))
    return {p.stem.removeprefix("dark_matter_bound_"): json.loads(p.read_text())["result"] for p in paths}


def cells() -> list[dict[str, Any]]:
    """Recorded cells of the comparison."""
    return [json.loads(p.read_text())["result"] for p in sorted((record.RESULTS / "dark_matter").glob("*.json"))]


def bound_table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| recipe | observer | micro AUC | none, subhalo, vortex | accuracy |", "|" + "---|" * 5]
    for name, one in found.items():
        for observer in ("told", "untold"):
            m = one[observer]
            low, high = m["auroc_micro_interval95"]
            each = " ".join(f"{m['per_class'][c]:.4f}" for c in SHORT)
            micro = f"{m['auroc_micro']:.4f} [{low:.4f}, {high:.4f}]"
            lines.append(f"| `{name}` | {observer} | {micro} | {each} | {m['accuracy']:.3f} |")
    return "\n".join(lines)


def cell_table(found: list[dict[str, Any]], limits: dict[str, dict[str, Any]]) -> str:
    """Network, bound and gap; a cell at chance says why."""
    lines = ["| recipe | network | part | micro AUC | bound | gap | |", "|" + "---|" * 7]
    for one in found:
        if "error" in one:
            lines.append(f"| `{one['recipe']}` | {one['family']} | | {one['error']} | | | |")
            continue
        micro, told = one["test"]["auroc_micro"], limits.get(one["recipe"])
        bound = told["told"]["auroc_micro"] if told else None
        gap = "" if bound is None else f"{bound - micro:.4f}"
        low, high = one["test"]["auroc_micro_interval95"]
        network = f"{one['family']} ({one['trained_parameters']})"
        area = f"{micro:.4f} [{low:.4f}, {high:.4f}] | {'' if bound is None else bound}"
        why = one["at_chance"] or ""
        lines.append(f"| `{one['recipe']}` | {network} | {one['fraction']:g} | {area} | {gap} | {why} |")
    return "\n".join(lines)


def draw(found: dict[str, dict[str, Any]]) -> Figure:
    """Signal-to-noise before and after marginalisation, and both observers' areas by it."""
    figure = Figure(figsize=(4 * len(found), 3.6), layout="constrained")
    for k, (name, one) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(1, len(found), k)
        for kind, colour in (("subhalo", "C0"), ("vortex", "C1")):
            rows = [row for row in one["by_signal"][kind] if "told" in row]
            x = [row["from"] or 0.5 for row in rows]
            axes.plot(x, [row["told"] for row in rows], colour, marker="o", label=f"{kind}, told")
            axes.plot(x, [row["untold"] for row in rows], colour, marker="o", ls="--", label=f"{kind}, untold")
        axes.set(
            xscale="log", title=name, xlabel="signal-to-noise left, from", ylabel="AUC against none", ylim=(0.45, 1.02)
        )
        axes.legend(fontsize=7, frameon=False)
    return figure


@click.command()
def main() -> None:
    """Draw and print everything."""
    limits = bounds()
    write_png(IMAGES / "dark_matter_bound.png", picture(draw(limits)))
    print(bound_table(limits), cell_table(cells(), limits), sep="\n\n")


def picture(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return stream.getvalue()


if __name__ == "__main__":
    main()
