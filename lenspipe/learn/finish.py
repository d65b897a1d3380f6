"""What a training leaves behind: the model, its history as a table, and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import nn

from lenspipe.learn.job import TrainJob, facts_of
from lenspipe.learn.loop import measure_on
from lenspipe.learn.measure import score_counts, scores_of
from lenspipe.nn.card import ModelCard
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.export import plain_card, to_plain
from lenspipe.rundir import atomic_path
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import roc

HISTORY_FILE, LOSS_PLOT, ROC_PLOT, FIT_PLOT = "history.parquet", "loss.png", "roc.png", "targets.png"
Array = NDArray[np.float64]


def finish(
    job: TrainJob, module: nn.Module, history: list[dict[str, Any]], outputs: Array, *, n_worker: int, device: str
) -> ModelCard:
    """
    Write the model and what there is to look at; the card comes last, so a folder with a card is finished.

    Parameters
    ----------
    job : TrainJob
    module : nn.Module
        Trained, on the CPU; an equivariant network is stored in its plain form.
    history : list of dict
        One row an epoch.
    outputs : array (n,) or (n, n_out)
        On the validation stamps.
    n_worker, device
        Facts for the card.
    """
    out = Path(job.out)
    write_history(out / HISTORY_FILE, history)
    plot_history(out / LOSS_PLOT, history)
    rows = job.truth.validation
    if job.task == "regress":
        plot_targets(out / FIT_PLOT, job, outputs)
    else:
        plot_roc(out / ROC_PLOT, job, outputs)
    measured = measure_on(job, outputs, rows)
    card = job.card.model_copy(
        update={
            "training": facts_of(job, history, n_worker=n_worker, device=device)
            | {"n_parameter": sum(parameter.numel() for parameter in module.parameters())},
            "metrics": {"validation": measured | {"n": job.truth.counts(rows)}},
        }
    )
    return save_model(out, to_plain(module), plain_card(card, module))


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Write one row an epoch as Parquet."""
    names = list(dict.fromkeys(name for row in history for name in row))
    columns = {
        name: pa.array([row.get(name) for row in history], pa.int64() if name == "epoch" else pa.float64())
        for name in names
    }
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def plot_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Loss of training and validation, and what else is measured between 0 and 1, by epoch."""
    epochs = [row["epoch"] for row in history]
    shares = [name for name in ("auc", "accuracy", "tpr_at_fpr_1e-2") if any(row.get(name) for row in history)]
    figure = Figure(figsize=(9 if shares else 5, 3.6), layout="constrained")
    left = figure.add_subplot(1, 2 if shares else 1, 1)
    for name, label in (("loss", "training, augmented"), ("val_loss", "validation, averaged weights")):
        if any(name in row for row in history):
            left.plot(epochs, [row.get(name, np.nan) for row in history], marker=".", label=label)
    left.set(xlabel="epoch", ylabel="loss")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False)
    if shares:
        right = figure.add_subplot(1, 2, 2)
        for name in shares:
            values = [np.nan if row.get(name) is None else row[name] for row in history]
            right.plot(epochs, values, marker=".", label=name)
        if "auc_low" in history[-1]:
            low, high = ([row[k] for row in history] for k in ("auc_low", "auc_high"))
            right.fill_between(epochs, low, high, alpha=0.2, label="auc, 95 %")
        right.set(xlabel="epoch", ylabel="validation")
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.legend(frameon=False, loc="lower right")
    _save(figure, path)


def plot_roc(path: Path, job: TrainJob, outputs: Array) -> None:
    """True against false positive rate on the validation stamps; of a classifier one curve a class."""
    labels = job.truth.labels[job.truth.validation]
    if job.task == "find":
        curves = {"lens": score_counts(outputs, labels, "find")}
    else:
        scores = scores_of(outputs, job.task)
        curves = {name: ScoreCounts.of(scores[:, k], labels == k) for k, name in enumerate(job.card.classes)}
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot()
    least = 1.0
    for name, counts in curves.items():
        false, true, _ = roc(counts)
        least = min(least, 1 / counts.n_other)
        rates = np.maximum(false / counts.n_other, 0.5 / counts.n_other)
        axes.step(
            rates,
            true / counts.n_lens,
            where="post",
            label=f"{name} ({counts.n_lens} of {counts.n_lens + counts.n_other})",
        )
    chance = np.geomspace(least, 1, 50)
    axes.plot(chance, chance, color="0.6", linestyle=":", label="chance")
    axes.set(
        xscale="log", xlim=(least / 2, 1), ylim=(0, 1.02), xlabel="false positive rate", ylabel="true positive rate"
    )
    axes.legend(frameon=False, loc="lower right")
    _save(figure, path)


def plot_targets(path: Path, job: TrainJob, outputs: Array) -> None:
    """Predicted against true targets of the validation stamps."""
    card, rows = job.card, job.truth.validation[:20_000]
    values = outputs.reshape(len(outputs), -1)
    figure = Figure(figsize=(4 * len(card.targets), 3.8), layout="constrained")
    for k, name in enumerate(card.targets):
        mean, spread = card.target_means[k], card.target_spreads[k]
        truth = job.truth.targets[rows, k] * spread + mean
        axes = figure.add_subplot(1, len(card.targets), k + 1)
        axes.plot(truth, values[: len(rows), k] * spread + mean, ".", markersize=3, alpha=0.5)
        axes.axline((mean, mean), slope=1, color="0.6", linestyle=":")
        axes.set(xlabel=f"true {name}", ylabel="predicted")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
