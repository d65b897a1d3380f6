"""One trial of a sweep: train, report every epoch, weigh and audit what came out."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenspipe.errors import LenspipeError
from lenspipe.learn.sweep.space import SweepSpace, Trial
from lenspipe.learn.sweep.trials import (
    AUDIT,
    ERROR_FILE,
    MODEL_FOLDER,
    RESULT_FILE,
    TRIAL_FILE,
    TRIALS,
    trial_history,
    write_result,
)
from lenspipe.learn.train import PLAIN, Runner, train
from lenspipe.rundir import write_json
from lenspipe.runner import Start
from lenspipe.stamps.joined import Data

Audit = Callable[[Path, Data], dict[str, float]]
"""Largest change of a model's output by kind of change, of a model's folder and a data set (`lenspipe.evaluate.audit`,
which stands above `learn`)."""


@dataclass(frozen=True)
class SweepJob:
    """What the trials of a sweep share."""

    data: Data
    out: Path
    """Folder of the sweep."""
    space: SweepSpace
    seed: int
    n_worker: int
    """Workers of each training."""
    audit: Audit | None = None


def begin_trial(trial: Trial, out: Path) -> Path:
    """Folder of a trial, with what was asked of it: from here on it has a row, whatever becomes of its process."""
    folder = out / TRIALS / trial.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TRIAL_FILE, {"family": trial.family, "choice": trial.choice})
    return folder


def run_trial(
    trial: Trial, job: SweepJob, report: Callable[[dict[str, Any]], None], *, runner: Start[Runner] = PLAIN
) -> None:
    """
    Train one trial, or resume it; one that is done is only reported.

    Parameters
    ----------
    trial : Trial
    job : SweepJob
    report : function
        Called with the numbers of every epoch, those from before a restart too.
    runner : Start, optional
        What trains.

    Raises
    ------
    Exception
        What the training raised, after it was written into the trial's folder.
    """
    folder = begin_trial(trial, job.out)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    reported = 0

    def report_new(history: list[dict[str, Any]]) -> None:
        nonlocal reported
        for row in history[reported:]:
            reported += 1
            if row.get(job.space.metric_name) is not None:
                report(row)

    report_new(trial_history(folder))  # so that early stopping knows what was learnt before a restart
    if (folder / RESULT_FILE).exists():
        return
    optim = trial.settings.optim.model_copy(update={"threads": trial.settings.optim.threads or 1})
    try:
        train(
            job.data,
            model=trial.family,
            task=job.space.task,
            out=folder / MODEL_FOLDER,
            settings=trial.settings.model_copy(update={"optim": optim, "name": trial.name}),
            seed=job.seed,
            runner=runner,
            n_worker=job.n_worker,
            on_step=lambda epoch, step, history: report_new(history),
        )
        report_new(trial_history(folder))
        write_result(folder, _weigh(folder / MODEL_FOLDER, job))
    except Exception as error:
        said = str(error) if isinstance(error, LenspipeError) else "".join(traceback.format_exception_only(error))
        write_json(folder / ERROR_FILE, {"error": f"{type(error).__name__}: {said.strip()}"})
        raise


def _weigh(model: Path, job: SweepJob) -> dict[str, Any]:
    """Cost of a finished model, and its equivariance audit on some validation stamps."""
    from lenspipe.learn.cost import count_parameters, multiply_adds
    from lenspipe.nn.checkpoint import load_model

    module, card = load_model(model)
    result: dict[str, Any] = {
        "parameters": card.training.get("n_parameter") or count_parameters(module),
        "multiply_adds": multiply_adds(module, card.n_channel, card.stamp_px, len(card.features)),
    }
    changes = job.audit(model, job.data) if job.audit else {}
    return result | {column: changes.get(kind) for column, kind in AUDIT.items()}
