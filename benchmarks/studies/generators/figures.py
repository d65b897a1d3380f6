"""
Tables and pictures of `docs/results/generators.md`: the record, and stamps of a work folder.

    python -m benchmarks.studies.generators.figures [--work WORK]

Prints the tables; with the folder of `compare` draws `docs/img/generators.png`, or another, stamps of its generators.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.dark_matter.figures import IMAGES, picture
from lenspipe.evaluate.stream import iter_stamps, words
from lenspipe.report.picture import write_png
from lenspipe.stamps.format import StampSet

N_SHOWN = 12
SUPERSEDED = "-smoothed"
"""Ending of rows of the record that a later measurement of the same family replaces."""


def gates(families: dict[str, Any]) -> str:
    """A row per generator: likeness, copies, and what of the physics fails."""
    lines = [
        "| family | parameters | steps | CPU s | Fréchet (of training stamps) | precision | recall | copied | "
        "physics that fails: found (allowed) |",
        "|" + "---|" * 9,
    ]
    for family, gate in families.items():
        like = gate["likeness"]
        copied = max(one["share"] for one in gate["memorisation"].values())
        broken = [
            f"{row['quantity']} of {row['class']} {row['found']:.2f} ({row['most']:.2f})"
            for row in gate["physics"]["rows"]
            if not row["passed"]
        ]
        rates = [f"{like[key]:.2f} ({like[f'{key}_train']:.2f})" for key in ("precision", "recall")]
        size = f"{gate['n_parameter']:,} | {gate['steps']:,} | {gate['cpu_s'] or '-'}"
        distance = f"{like['frechet']:.1f} ({like['frechet_train']:.1f})"
        found = "; ".join(broken) or "-"
        lines.append(f"| `{family}` | {size} | {distance} | {rates[0]} | {rates[1]} | {copied:.1%} | {found} |")
    return "\n".join(lines)


def helped(rows: list[dict[str, Any]]) -> str:
    """Areas of a classifier by part and what it was given: each seed with its interval, and the mean gain."""
    lines = [
        "| part of the data | given | AUROC by seed, 95 % intervals | mean gain, its error over seeds |",
        "|---|---|---|---|",
    ]
    alone = {(r["part"], r["seed"]): r["auroc"] for r in rows if r["given"] == "nothing"}
    for part, given in dict.fromkeys((r["part"], r["given"]) for r in rows):
        some = [r for r in rows if (r["part"], r["given"]) == (part, given)]
        areas = [f"{r['auroc']:.3f} [{r['auroc_interval95'][0]:.3f}, {r['auroc_interval95'][1]:.3f}]" for r in some]
        gains = [r["auroc"] - alone[part, r["seed"]] for r in some if (part, r["seed"]) in alone]
        told = ""
        if given != "nothing" and gains:
            told = f"{np.mean(gains):+.3f}"
            told += f" ± {np.std(gains, ddof=1) / np.sqrt(len(gains)):.3f}" if len(gains) > 1 else " (one seed)"
        lines.append(f"| {part:.0%} | {given} | {', '.join(areas)} | {told} |")
    return "\n".join(lines)


def first(folder: Path, label: str, split: str | None) -> NDArray[np.float32]:
    """The first stamps of a label, one band."""
    stamps = StampSet.open(folder)
    name, found = next(iter(stamps.images)), list[NDArray[np.float32]]()
    for table, pixels in iter_stamps(stamps, [name], [], split=split):
        found.append(pixels[name][words(table, "label") == label, 0])
    return np.concatenate(found)[:N_SHOWN]


def sheet(rows: dict[str, NDArray[np.float32]]) -> Figure:
    """A row of stamps per name, each in arcsinh of its noise, on one scale."""
    figure = Figure(figsize=(N_SHOWN * 0.75 + 1.2, len(rows) * 0.8), layout="constrained")
    axes = figure.subplots(len(rows), N_SHOWN, squeeze=False)
    noise = np.median([np.median(np.abs(s[:, :4])) for s in rows.values()]) / 0.6745
    for line, (name, stamps) in zip(axes, rows.items(), strict=True):
        for one, stamp in zip(line, stamps, strict=False):
            one.imshow(np.arcsinh(stamp / noise / 2), cmap="gray", vmin=-1, vmax=4.5)
        for one in line:
            one.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return figure


@click.command()
@click.option("--work", type=click.Path(path_type=Path, exists=True), default=None, help="Folder of `compare`.")
@click.option("--name", default="generators", show_default=True, help="Name of the picture.")
def main(work: Path | None, name: str) -> None:
    """Print the tables, and draw."""
    found = json.loads((record.RESULTS / "generators.json").read_text())["result"]
    families = {name: gate for name, gate in found["families"].items() if not name.endswith(SUPERSEDED)}
    again = {name: {**families[name], **gate} for name, gate in found["validation"].items()}
    print(gates(families), gates(again), helped(found["help"]), sep="\n\n")
    if work is not None:
        rows = {"simulated lens": first(work / "stamps", "lens", "test")}
        for family in families:
            if (work / f"{family}-made").exists():
                rows[f"{family}: lens"] = first(work / f"{family}-made", "lens", None)
        write_png(IMAGES / f"{name}.png", picture(sheet(rows)))


if __name__ == "__main__":
    main()
