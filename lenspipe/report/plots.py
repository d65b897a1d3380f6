"""Pictures of a report, each a PNG as bytes: ROC, scores, recall, reliability, confusion, regression, audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from lenspipe.image.contact import contact_sheet
from lenspipe.report.picture import png_of
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import roc

COLOURS = ("#0b5394", "#c0392b", "#2e7d32", "#8e5aa8", "#b8860b", "#00838f", "#5d4037", "#7f7f7f")
MAX_POINTS = 4000
WIDE = 20
"""Bins that span more than this factor are drawn on a logarithmic axis."""


def _axes(width: float = 6.4, height: float = 4.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    return figure, axes


def plain_ticks(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis of one or two decades: 0.5, 1, 2 or 100 k, 200 k, not powers of ten."""
    low, high = sorted(axis.get_view_interval())
    if high <= 300 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(EngFormatter() if high >= 1e4 else FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def roc_plot(counts: Mapping[str, ScoreCounts]) -> bytes:
    """TPR against FPR on a logarithmic axis, one line a name; left of three false positives it is faint."""
    figure, axes = _axes()
    lowest = min(1 / max(1, c.n_other) for c in counts.values())
    for colour, (name, c) in zip(COLOURS * 9, counts.items(), strict=False):
        false, true, _ = roc(c)
        fpr, tpr = np.maximum(false / max(1, c.n_other), lowest / 2), true / max(1, c.n_lens)
        keep = _corners(fpr, tpr)
        x, y = fpr[keep], tpr[keep]
        sure = x >= 3 / max(1, c.n_other)
        axes.step(x, y, where="post", color=colour, alpha=0.35, lw=1)
        axes.step(x[sure], y[sure], where="post", color=colour, label=name)
    chance = np.geomspace(lowest / 2, 1, 60)
    axes.plot(chance, chance, ":", color="0.5", lw=1, label="chance")
    axes.set(xscale="log", xlim=(lowest / 2, 1), ylim=(0, 1.01), xlabel="false positive rate", ylabel="recall (TPR)")
    axes.legend(fontsize=8, loc="upper left")
    return png_of(figure)


def _corners(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Last point of each x, thinned to what a screen shows."""
    last = np.flatnonzero(np.r_[np.diff(x) > 0, True])
    if len(last) <= MAX_POINTS:
        return last
    even = np.geomspace(1, len(last), MAX_POINTS).astype(int) - 1
    return last[np.unique(even)]


def score_plot(counts: Mapping[str, ScoreCounts]) -> bytes:
    """Histograms of the scores by class, on the log odds, one panel a name."""
    figure = Figure(figsize=(6.4, 1.2 + 1.9 * len(counts)), layout="constrained")
    panels = figure.subplots(len(counts), 1, squeeze=False)[:, 0]
    for axes, (name, c) in zip(panels, counts.items(), strict=True):
        s = np.clip(c.scores, 1e-9, 1 - 1e-9)
        odds = np.log10(s) - np.log10(1 - s)
        edges = np.linspace(min(odds.min(), -1), max(odds.max(), 1), 61)
        for weights, label, colour in ((c.other, "others", COLOURS[0]), (c.lens, "lenses", COLOURS[1])):
            axes.hist(odds, edges, weights=weights, histtype="step", color=colour, label=label)
        axes.set(yscale="log", title=name, ylabel="stamps")
        axes.grid(alpha=0.25)
    panels[0].legend(fontsize=8)
    panels[-1].set_xlabel("log$_{10}$ of score / (1 - score)")
    return png_of(figure)


def recall_plot(quantity: str, unit: str, models: Mapping[str, list[dict[str, Any]]], at: str) -> bytes:
    """Recall in bins of one quantity at one threshold, with 95 % intervals; one colour a name."""
    figure, axes = _axes(6.4, 4.0)
    edges = [row["high"] for row in next(iter(models.values()))]
    logarithmic = edges[-1] > WIDE * edges[0]
    for k, (colour, (name, rows)) in enumerate(zip(COLOURS * 9, models.items(), strict=False)):
        rows = [row for row in rows if at in row]
        if not rows:
            continue
        at_part = 0.5 + (k - (len(models) - 1) / 2) * 0.06
        low_edge, high_edge = (np.array([row[edge] for row in rows], float) for edge in ("low", "high"))
        x = low_edge + at_part * (high_edge - low_edge)
        if logarithmic:
            x = low_edge.clip(high_edge[0] / 3) ** (1 - at_part) * high_edge**at_part
        y = np.array([row[at]["value"] for row in rows])
        low, high = np.array([row[at]["interval95"] for row in rows]).T
        axes.errorbar(x, y, [y - low, high - y], fmt="o-", ms=4, lw=1, color=colour, label=name)
    axes.set(
        ylim=(-0.02, 1.02),
        xlabel=f"{quantity}{f' [{unit}]' if unit else ''}",
        ylabel=f"recall at {at.replace('fpr', 'FPR')}",
    )
    if logarithmic:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.legend(fontsize=8)
    return png_of(figure)


def fraction_plot(
    quantity: str,
    label: str,
    bins: Mapping[str, Sequence[Mapping[str, Any]]],
    curves: Mapping[str, tuple[NDArray[np.float64], ...]],
    *,
    logarithmic: bool = False,
) -> bytes:
    """
    A fraction in bins of a quantity, with 95 % intervals, and a smooth curve with its band; one colour a name.

    Parameters
    ----------
    quantity, label : str
        Of the axes.
    bins : mapping
        By name, rows with ``low``, ``high``, ``value`` (null where there are none) and ``interval95``.
    curves : mapping
        By the same names: positions, fraction, lower and upper end.
    logarithmic : bool
        Of the quantity.
    """
    figure, axes = _axes(6.4, 4.0)
    for colour, (name, rows) in zip(COLOURS * 9, bins.items(), strict=False):
        if name in curves:
            x, value, low, high = curves[name]
            axes.plot(x, value, color=colour, lw=1.5)
            axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
        rows = [row for row in rows if row["value"] is not None]
        ends = np.array([(row["low"], row["high"]) for row in rows]).reshape(-1, 2)
        middle = np.sqrt(ends.prod(axis=1)) if logarithmic else ends.mean(axis=1)
        y = np.array([row["value"] for row in rows])
        low, high = np.array([row["interval95"] for row in rows]).reshape(-1, 2).T
        axes.errorbar(middle, y, [y - low, high - y], fmt="o", ms=4, lw=1, color=colour, label=name)
    axes.set(ylim=(-0.02, 1.02), xlabel=quantity, ylabel=label)
    if logarithmic:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.legend(fontsize=8)
    return png_of(figure)


def map_plot(
    x: tuple[str, NDArray[np.float64]], y: tuple[str, NDArray[np.float64]], value: NDArray[np.float64], label: str
) -> bytes:
    """A fraction ``(y, x)`` over two quantities on logarithmic axes, with its contours."""
    figure, axes = _axes(6.4, 4.6)
    shown = axes.pcolormesh(x[1], y[1], value, vmin=0, vmax=1, cmap="viridis", shading="gouraud")
    lines = axes.contour(x[1], y[1], value, levels=(0.1, 0.25, 0.5, 0.75, 0.9), colors="w", linewidths=0.8)
    axes.clabel(lines, fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel=x[0], ylabel=y[0])
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis)
    axes.grid(False)
    figure.colorbar(shown, ax=axes, label=label)
    return png_of(figure)


def cells_plot(
    ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64], value: NDArray[np.float64], label: str
) -> bytes:
    """A fraction per pixel of the sky, each at its centre; east to the left, NaN grey."""
    figure, axes = _axes(5.6, 4.8)
    centre = float(np.degrees(np.angle(np.exp(1j * np.radians(ra_deg)).mean()))) % 360
    offset = (ra_deg - centre + 180) % 360 - 180
    known = np.isfinite(value)
    axes.plot(offset[~known] + centre, dec_deg[~known], "D", color="0.8", ms=6)
    shown = axes.scatter(offset[known] + centre, dec_deg[known], c=value[known], vmin=0, vmax=1, s=260, marker="D")
    axes.invert_xaxis()
    axes.set(xlabel="right ascension [deg]", ylabel="declination [deg]")
    axes.ticklabel_format(useOffset=False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    figure.colorbar(shown, ax=axes, label=label)
    return png_of(figure)


def reliability_plot(models: Mapping[str, dict[str, Any]]) -> bytes:
    """Observed fraction against stated probability with 95 % intervals; one colour a name."""
    figure, axes = _axes(5.2, 4.9 + 0.22 * len(models))
    axes.plot([0, 1], [0, 1], ":", color="0.5", lw=1)
    for colour, (name, found) in zip(COLOURS * 9, models.items(), strict=False):
        bins = found["bins"]
        x, y = np.array([b["probability"] for b in bins]), np.array([b["observed"] for b in bins])
        low, high = np.array([b["interval95"] for b in bins]).T
        label = f"{name}, ECE {found['ece']:.3f}"
        axes.errorbar(x, y, [y - low, high - y], fmt="o-", ms=4, lw=1, color=colour, label=label)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="stated probability", ylabel="observed fraction")
    figure.legend(fontsize=8, loc="outside lower center")
    return png_of(figure)


def confusion_plot(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Confusion matrix, rows are the truth, with counts and fractions of the row."""
    counts = np.array(matrix, float)
    part = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _axes(1.6 + 1.3 * len(classes), 1.4 + 1.1 * len(classes))
    axes.imshow(part, cmap="Blues", vmin=0, vmax=1)
    for y, x in np.ndindex(*counts.shape):
        text = f"{counts[y, x]:.0f}\n{part[y, x]:.0%}"
        axes.text(x, y, text, ha="center", va="center", color="white" if part[y, x] > 0.6 else "black", fontsize=9)
    axes.grid(False)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="said", ylabel="true")
    return png_of(figure)


def regression_plot(
    name: str, truth: NDArray[np.float64], value: NDArray[np.float64], sigma: NDArray[np.float64] | None
) -> bytes:
    """Estimates against truth, with one sigma where it is stated."""
    figure, axes = _axes(5.2, 5.0)
    ends = [float(min(truth.min(), value.min())), float(max(truth.max(), value.max()))]
    axes.plot(ends, ends, ":", color="0.5", lw=1)
    axes.errorbar(truth, value, sigma, fmt=".", ms=3, lw=0.5, alpha=0.4, color=COLOURS[0])
    axes.set(xlabel=f"true {name}", ylabel=f"estimated {name}")
    return png_of(figure)


def target_plot(names: Sequence[str], truth: NDArray[np.float64], values: NDArray[np.float64]) -> bytes:
    """Estimates ``(n, target)`` against truth, a panel per target, with the line where they agree."""
    figure = Figure(figsize=(4 * len(names), 3.8), layout="constrained")
    for k, (name, axes) in enumerate(zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True)):
        mean = float(truth[:, k].mean())
        axes.plot(truth[:, k], values[:, k], ".", markersize=3, alpha=0.5)
        axes.axline((mean, mean), slope=1, color="0.6", linestyle=":")
        axes.set(xlabel=f"true {name}", ylabel="predicted")
    return png_of(figure)


def plane_plot(vectors: NDArray[np.float64], labels: NDArray[np.integer]) -> bytes:
    """Vectors ``(n, size)`` in the plane of their two largest variances, a colour per label; grey without one."""
    there = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    _, _, axes_of = np.linalg.svd(there - there.mean(axis=0), full_matrices=False)
    x, y = axes_of[:2] @ (there - there.mean(axis=0)).T
    figure, axes = _axes(5.4, 5.0)
    for value in np.unique(labels):
        colour = COLOURS[value % len(COLOURS)] if value >= 0 else "0.6"
        axes.plot(x[labels == value], y[labels == value], ".", markersize=3, alpha=0.6, color=colour)
    axes.set(xlabel="first direction", ylabel="second direction")
    return png_of(figure)


def domains_plot(
    source: NDArray[np.float64],
    source_labels: NDArray[np.integer],
    target: NDArray[np.float64],
    target_labels: NDArray[np.integer],
) -> bytes:
    """Features ``(n, 2 or more)`` of two domains, the target's as crosses, a colour per label; grey without one."""
    figure, axes = _axes(5.8, 5.0)
    for name, marker, xy, labels in (("source", ".", source, source_labels), ("target", "x", target, target_labels)):
        for value in np.unique(labels):
            colour = COLOURS[value % len(COLOURS)] if value >= 0 else "0.6"
            some = xy[labels == value]
            label = f"{name}, {value if value >= 0 else 'no label'}"
            axes.plot(some[:, 0], some[:, 1], marker, markersize=3, alpha=0.6, color=colour, label=label)
    axes.set(xlabel="first direction of the features", ylabel="second direction")
    axes.legend(frameon=False, fontsize=7)
    return png_of(figure)


def noise_left_plot(ratio: NDArray[np.float64], left: NDArray[np.float64]) -> bytes:
    """What a denoiser leaves of the difference from the deep exposure, by ratio of exposure times; a point per pair."""
    figure, axes = _axes(6.4, 4.0)
    axes.axhline(1.0, color="0.5", linestyle=":", lw=1)
    axes.plot(ratio, left, ".", markersize=3, alpha=0.5, color=COLOURS[0])
    axes.set(xscale="log", ylim=(0, None), xlabel="ratio of exposure times", ylabel="difference left, of the input's")
    return png_of(figure)


def audit_plot(models: Mapping[str, Mapping[str, dict[str, float]]]) -> bytes:
    """Mean (bar) and largest (tick) change of the output by kind of change of the image, one colour a name."""
    kinds = list(next(iter(models.values())))
    figure, axes = _axes(7.2, 1.4 + 0.34 * len(kinds) * max(1, len(models)))
    step = 0.8 / len(models)
    for k, (colour, (name, rows)) in enumerate(zip(COLOURS * 9, models.items(), strict=False)):
        y = np.arange(len(kinds)) + k * step
        mean = np.array([rows[kind]["mean"] for kind in kinds])
        most = np.array([rows[kind]["largest"] for kind in kinds])
        axes.barh(y, np.maximum(mean, 1e-9), height=step * 0.9, color=colour, label=name)
        axes.plot(np.maximum(most, 1e-9), y, "|", color=colour, ms=11)
    axes.set_yticks(np.arange(len(kinds)) + 0.4 - step / 2, kinds)
    axes.invert_yaxis()
    least = min(row["mean"] for rows in models.values() for row in rows.values())
    lowest = 10 ** np.floor(np.log10(max(least, 1e-9)) - 0.3)
    axes.set(xscale="log", xlim=(lowest, 1.5), xlabel="change of the output: mean (bar), largest (tick)")
    figure.legend(fontsize=8, loc="outside lower center")
    return png_of(figure)


def errors_plot(models: Mapping[str, Sequence[Mapping[str, Any]]], quantity: str, label: str) -> bytes:
    """
    One quantity in bins of the signal-to-noise of a pixel, one line per name; the first is drawn in grey.

    Parameters
    ----------
    models : mapping
        By name, the bins: ``low`` and ``high`` (null where open) and the quantity, null where there is no pixel.
    """
    figure, axes = _axes(6.4, 4.0)
    bins = next(iter(models.values()))
    names = [bin_name(row) for row in bins]
    for colour, (name, rows) in zip(("0.5", *COLOURS * 9), models.items(), strict=False):
        y = [np.nan if row[quantity] is None else row[quantity] for row in rows]
        axes.plot(range(len(rows)), y, "o-", ms=4, lw=1, color=colour, label=name)
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="signal-to-noise of the pixel", ylabel=label, ylim=(0, None))
    axes.legend(fontsize=8)
    return png_of(figure)


def bin_name(row: Mapping[str, Any]) -> str:
    """
    Words for a bin that may be open.

    Examples
    --------
    >>> bin_name({"low": None, "high": 1.0}), bin_name({"low": 1.0, "high": 3.0}), bin_name({"low": 3.0, "high": None})
    ('below 1', '1 to 3', '3 and more')
    """
    low, high = row["low"], row["high"]
    if low is None:
        return f"below {high:g}"
    return f"{low:g} and more" if high is None else f"{low:g} to {high:g}"


def stamps_plot(columns: Sequence[str], stamps: NDArray[np.floating]) -> bytes:
    """Stamps ``(row, column, y, x)`` in units of noise, one arcsinh stretch for all, row 0 at the bottom."""
    n_row, n_column = stamps.shape[:2]
    figure = Figure(figsize=(1.9 * n_column, 1.8 * n_row + 0.3), layout="constrained")
    panels = figure.subplots(n_row, n_column, squeeze=False)
    for k, row in enumerate(panels):
        for axes, name, stamp in zip(row, columns, stamps[k], strict=True):
            axes.imshow(np.arcsinh(stamp / 2), cmap="gray_r", vmin=-1, vmax=4, origin="lower")
            axes.set_axis_off()
            if not k:
                axes.set_title(name, fontsize=9)
    return png_of(figure)


def side_by_side(made: NDArray[np.floating], taken: NDArray[np.floating], *, n_column: int = 12) -> bytes:
    """Stretched stamps ``(n, channel, y, x)`` in grey, those that were made above those that were taken."""
    grey = [x.mean(axis=1) for x in (made, taken)]
    low, high = np.quantile(grey[1], [0.01, 0.998])
    scale = 255 / max(high - low, 1e-9)
    colour = [np.repeat(np.clip((x - low) * scale, 0, 255).astype(np.uint8)[..., None], 3, axis=-1) for x in grey]
    sheets = [contact_sheet(x, n_column=n_column) for x in colour]
    return png_of(np.concatenate([sheets[0], np.full_like(sheets[0][:4], 255), sheets[1]]))
