"""The page of a sweep: its table and plots in one file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lenspipe.learn.space import SweepSpace
from lenspipe.rundir import atomic_path

PAGE, PLOTS = "index.html", "sweep.png"
COLUMNS = (
    "rank", "trial", "status", "metric", "interval", "settings", "parameters", "multiply_adds", "epochs", "seconds",
    "audit_turns_90", "audit_any_angle",
)  # fmt: skip
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: 13px }
td, th { padding: .25em .7em; text-align: left; vertical-align: top }
th { border-bottom: 1px solid #888 } tr:nth-child(even) td { background: #f5f5f5 } img { max-width: 100% }
.chance td, .error td, .stopped td, .unfinished td { color: #777 } code { font-size: 12px }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd }
  tr:nth-child(even) td { background: #222 } }
"""


def write_page(folder: Path, table: pa.Table, histories: dict[str, list[dict[str, Any]]], space: SweepSpace) -> None:
    """
    Write ``index.html`` and ``sweep.png``.

    Parameters
    ----------
    folder : Path
        The sweep's.
    table : pyarrow.Table
        Its trials, in the order of the page.
    histories : dict
        Numbers of each trial's epochs, by its name.
    space : SweepSpace
    """
    rows = table.to_pylist()
    image = plot_trials(rows, histories, space)
    with atomic_path(folder / PLOTS) as temporary:
        temporary.write_bytes(image)
    counts = {status: sum(row["status"] == status for row in rows) for status in ("done", "stopped", "error")}
    n_chance = sum(row["at_chance"] is True for row in rows)
    said = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    note = f" {n_chance} no better than chance within their interval: not ranked." if n_chance else ""
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in COLUMNS)
    body = "".join(_row(row) for row in rows)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Sweep</title><style>{STYLE}</style>'
        f"<h1>Sweep over {len({row['family'] for row in rows})} families</h1>"
        f"<p>{len(rows)} trials: {said}.{note} {html.escape(space.metric_name)} on the validation split, which chose "
        f"the epochs and the ranks: report another split for the winner. Intervals are 95 %.</p>"
        f'<img alt="plots of the trials" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></html>\n"
    )
    with atomic_path(folder / PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def plot_trials(rows: list[dict[str, Any]], histories: dict[str, list[dict[str, Any]]], space: SweepSpace) -> bytes:
    """PNG of the metric against family, parameters and multiply-adds, and of the learning curves."""
    families = sorted({row["family"] for row in rows})
    colour = {family: to_hex(colormaps["tab20"](k % 20)) for k, family in enumerate(families)}
    figure = Figure(figsize=(12, 8), layout="constrained")
    by_family, by_size, by_cost, curves = figure.subplots(2, 2).ravel()
    done = [row for row in rows if row["status"] == "done" and row["metric"] is not None]
    for row in done:
        _point(by_family, families.index(row["family"]), row, colour)
        _point(by_size, row["parameters"], row, colour)
        _point(by_cost, row["multiply_adds"], row, colour)
    by_family.set_xticks(range(len(families)), families, rotation=35, ha="right")
    by_family.set_xlim(-0.5, len(families) - 0.5)
    for axes, label in ((by_size, "parameters"), (by_cost, "multiply-adds of a stamp")):
        axes.set(xscale="log" if done else "linear", xlabel=label)
    for row in rows:
        epochs = [e for e in histories.get(row["trial"], []) if e.get(space.metric_name) is not None]
        curves.plot(
            [e["epoch"] for e in epochs], [e[space.metric_name] for e in epochs], color=colour[row["family"]],
            linewidth=1, marker=".", markersize=3, alpha=0.8,
        )  # fmt: skip
    curves.set_xlabel("epoch")
    for axes in (by_family, by_size, by_cost, curves):
        axes.set_ylabel(space.metric_name)
        axes.axhline(1.0 if space.task == "regress" else 0.5, color="0.6", linestyle=":", linewidth=1)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _point(axes: Axes, x: float, row: dict[str, Any], colour: dict[str, str]) -> None:
    low, high, metric = row["metric_low"], row["metric_high"], row["metric"]
    error = None if low is None or high is None else [[max(0.0, metric - low)], [max(0.0, high - metric)]]
    axes.errorbar(x, metric, error, color=colour[row["family"]], marker="x" if row["at_chance"] else "o", capsize=2)


def _row(row: dict[str, Any]) -> str:
    kind = "chance" if row["at_chance"] and row["status"] == "done" else row["status"]
    shown = dict(row)
    low, high = row["metric_low"], row["metric_high"]
    shown["interval"] = None if low is None or high is None else f"{low:.4f} to {high:.4f}"
    shown["settings"] = ", ".join(f"{key} {value}" for key, value in json.loads(row["settings"]).items())
    if row["error"]:
        shown["settings"] += f" ({row['error']})"
    if row["at_chance"]:
        shown["rank"] = "chance"
    cells = "".join(f"<td>{html.escape(_text(shown[name]))}</td>" for name in COLUMNS)
    return f'<tr class="{kind}">{cells}</tr>'


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
