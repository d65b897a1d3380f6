"""The page of a sweep: its table and plots in one file that needs nothing else."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lenspipe.learn.sweep.space import SweepSpace
from lenspipe.report.page import document, image, table_html
from lenspipe.report.picture import png_of, write_png
from lenspipe.report.plots import plain_ticks
from lenspipe.rundir import atomic_path

PAGE, PLOTS = "index.html", "sweep.png"
FRACTION = "sampling.fraction"
"""Setting whose values make a learning curve: the part of the training split."""
COLUMNS = (
    "rank",
    "trial",
    "status",
    "metric",
    "interval",
    "settings",
    "parameters",
    "multiply_adds",
    "epochs",
    "seconds",
    "audit_turns_90",
    "audit_any_angle",
)
STYLE = """table { font-size: 13px; }
td, th { text-align: left; padding: .2rem .5rem; }
figure { max-width: 100%; }
.chance td, .error td, .stopped td, .unfinished td { color: var(--dim); }
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
    picture = plot_trials(rows, histories, space)
    write_png(folder / PLOTS, picture)
    counts = {status: sum(row["status"] == status for row in rows) for status in ("done", "stopped", "error")}
    n_chance = sum(row["at_chance"] is True for row in rows)
    said = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    note = f" {n_chance} no better than chance within their interval: not ranked." if n_chance else ""
    cells = [_cells(row) for row in rows]
    filled = [k for k in range(len(COLUMNS)) if any(row[k] for row in cells)]
    table_of_trials = table_html(
        [COLUMNS[k].replace("_", " ") for k in filled],
        [[row[k] for k in filled] for row in cells],
        kinds=[_kind(row) for row in rows],
    )
    text = (
        f"<h1>Sweep over {len({row['family'] for row in rows})} families</h1>"
        f"<p>{len(rows)} trials: {said}.{note} {html.escape(space.metric_name)} on the validation split, which chose "
        f"the epochs and the ranks: report another split for the winner. Intervals are 95 %.</p>"
        f"{image('All trials', picture, on_phone=plot_trials(rows, histories, space, narrow=True))}"
        f"{table_of_trials}"
    )
    with atomic_path(folder / PAGE) as temporary:
        temporary.write_text(document("Sweep", text, style=STYLE), encoding="utf-8")


def plot_trials(
    rows: list[dict[str, Any]], histories: dict[str, list[dict[str, Any]]], space: SweepSpace, *, narrow: bool = False
) -> bytes:
    """
    PNG of the metric against family, parameters and multiply-adds, and of metric and losses by epoch.

    Where the trials have several `FRACTION`, the metric against that part of the training split, of each family the
    best trial at each, in the place of the training loss. ``narrow`` has one panel above the other.
    """
    families = sorted({row["family"] for row in rows})
    shades = colormaps["tab10" if len(families) <= 10 else "tab20"]
    colour = {family: to_hex(shades(k % shades.N)) for k, family in enumerate(families)}
    fractions = {row["trial"]: json.loads(row["settings"]).get(FRACTION) for row in rows}
    learning = len(set(fractions.values()) - {None}) > 1
    figure = Figure(figsize=(5, 21) if narrow else (17, 8.6), layout="constrained")
    panels = figure.subplots(6, 1).reshape(2, 3) if narrow else figure.subplots(2, 3)
    by_family, by_size, by_cost, curves = panels[:, :2].ravel()
    done = [row for row in rows if row["status"] == "done" and row["metric"] is not None]
    for row in done:
        _point(by_family, families.index(row["family"]), row, colour)
        _point(by_size, row["parameters"], row, colour)
        _point(by_cost, row["multiply_adds"], row, colour)
    by_family.set_xticks(range(len(families)), families, rotation=35, ha="right")
    by_family.set_xlim(-0.5, len(families) - 0.5)
    for axes, label in ((by_size, "parameters"), (by_cost, "multiply-adds of a stamp")):
        axes.set(xscale="log" if done else "linear", xlabel=label)
        if done:
            plain_ticks(axes.xaxis)
    _by_epoch(curves, space.metric_name, space.metric_name, rows, histories, colour)
    _by_epoch(panels[1, 2], "val_loss", "loss, validation", rows, histories, colour)
    drawn = [by_family, by_size, by_cost, curves]
    if learning:
        _learning_curves(panels[0, 2], done, fractions, colour, space)
        drawn.append(panels[0, 2])
    else:
        _by_epoch(panels[0, 2], "loss", "loss, training", rows, histories, colour)
    for panel in drawn:
        panel.set_ylabel(space.metric_name)
        panel.axhline(space.chance.value, color="0.6", linestyle=":", linewidth=1)
    handles = [Line2D([], [], color=colour[family], marker="o", label=family) for family in families]
    handles.append(Line2D([], [], color="0.3", marker="x", linestyle="", label="no better than chance"))
    handles.append(Line2D([], [], color="0.6", linestyle=":", label="chance"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if narrow else 6, frameon=False)
    return png_of(figure)


def _by_epoch(
    axes: Axes,
    number: str,
    label: str,
    rows: list[dict[str, Any]],
    histories: dict[str, list[dict[str, Any]]],
    colour: dict[str, str],
) -> None:
    for row in rows:
        epochs = [e for e in histories.get(row["trial"], []) if e.get(number) is not None]
        x, y = [e["epoch"] for e in epochs], [e[number] for e in epochs]
        axes.plot(x, y, color=colour[row["family"]], linewidth=1, marker=".", markersize=3, alpha=0.8)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _learning_curves(
    axes: Axes,
    done: list[dict[str, Any]],
    fractions: dict[str, float | None],
    colour: dict[str, str],
    space: SweepSpace,
) -> None:
    sign = 1.0 if space.mode == "min" else -1.0
    best: dict[tuple[str, float], dict[str, Any]] = {}
    for row in sorted(done, key=lambda row: sign * row["metric"]):
        fraction = fractions[row["trial"]]
        if fraction is not None:
            best.setdefault((row["family"], fraction), row)
    for family in colour:
        at = sorted(fraction for name, fraction in best if name == family)
        axes.plot(at, [best[family, x]["metric"] for x in at], color=colour[family], linewidth=1)
        for x in at:
            _point(axes, x, best[family, x], colour)
    axes.set(xscale="log", xlabel="part of the training split")


def _point(axes: Axes, x: float, row: dict[str, Any], colour: dict[str, str]) -> None:
    low, high, metric = row["metric_low"], row["metric_high"], row["metric"]
    error = None if low is None or high is None else [[max(0.0, metric - low)], [max(0.0, high - metric)]]
    axes.errorbar(x, metric, error, color=colour[row["family"]], marker="x" if row["at_chance"] else "o", capsize=2)


def _kind(row: dict[str, Any]) -> str:
    return "chance" if row["at_chance"] and row["status"] == "done" else str(row["status"])


def _cells(row: dict[str, Any]) -> list[str]:
    shown = dict(row)
    low, high = row["metric_low"], row["metric_high"]
    shown["interval"] = None if low is None or high is None else f"{low:.4f} to {high:.4f}"
    shown["settings"] = ", ".join(f"{key} {value}" for key, value in json.loads(row["settings"]).items())
    if row["error"]:
        shown["settings"] += f" ({row['error']})"
    if row["at_chance"]:
        shown["rank"] = "chance"
    return [_text(shown[name]) for name in COLUMNS]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
