"""What a training leaves behind: the model, its history as a table, and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.learn.batches import measure_on
from lenspipe.learn.job import TrainJob, facts_of
from lenspipe.nn.card import ModelCard
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.export import plain_card
from lenspipe.nn.network import Network
from lenspipe.report.picture import write_png
from lenspipe.rundir import atomic_path
from lenspipe.tables import write_table

HISTORY_FILE, LOSS_PLOT = "history.parquet", "loss.png"
Array = NDArray[np.float64]


def finish(
    job: TrainJob, module: Network, history: list[dict[str, Any]], outputs: Array, *, n_worker: int, device: str
) -> ModelCard:
    """
    Write the model and what there is to look at; the card comes last, so a folder with a card is finished.

    Parameters
    ----------
    job : TrainJob
    module : Network
        Trained, on the CPU; an equivariant network is stored in its plain form.
    history : list of dict
        One row per epoch.
    outputs : array (n,) or (n, n_out)
        On the validation stamps.
    n_worker, device
        Facts for the card.
    """
    out = Path(job.out)
    write_history(out / HISTORY_FILE, history)
    plot_history(out / LOSS_PLOT, history)
    rows = job.truth.validation
    for name, picture in job.objective.pictures(outputs, job.truth, rows).items():
        write_png(out / name, picture)
    measured = measure_on(job, outputs, rows)
    card = job.card.model_copy(
        update={
            "training": facts_of(job, history, n_worker=n_worker, device=device)
            | {"n_parameter": sum(parameter.numel() for parameter in module.parameters())},
            "metrics": {"validation": measured | {"n": job.truth.counts(rows)}}
            | job.objective.concluded(job, history, measured),
        }
    )
    card = job.objective.finished(card, outputs, job.truth, rows)
    return save_model(out, module.plain(), plain_card(card, module))


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Write one row per epoch as Parquet."""
    names = list(dict.fromkeys(name for row in history for name in row))
    columns = {
        name: pa.array([row.get(name) for row in history], pa.int64() if name == "epoch" else pa.float64())
        for name in names
    }
    with atomic_path(path) as temporary:
        write_table(pa.table(columns), temporary)


def plot_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Loss of training and validation, and what else is measured between 0 and 1, by epoch."""
    from matplotlib.figure import Figure  # here and not above: most workers draw nothing
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    shares = [
        name
        for name in ("auc", "accuracy", "tpr_at_fpr_1e-2", "noise_left", "knn_auc")
        if any(row.get(name) for row in history)
    ]
    figure = Figure(figsize=(9 if shares else 5, 3.6), layout="constrained")
    left = figure.add_subplot(1, 2 if shares else 1, 1)
    for name, label in (("loss", "training, augmented"), ("val_loss", "validation, averaged weights")):
        if any(name in row for row in history):
            left.plot(epochs, [row.get(name, np.nan) for row in history], marker=".", label=label)
    left.set(xlabel="epoch", ylabel="loss")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    if left.lines:
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
    write_png(path, figure)
