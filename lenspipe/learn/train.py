"""One training from request to model: check, claim the folder, train, or resume what was cut off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from lenspipe.learn.fit_state import STATE_FILE
from lenspipe.learn.job import TrainJob, make_job, refuse_pickle
from lenspipe.learn.local import OnStep, train_local
from lenspipe.learn.objectives import objective_of
from lenspipe.learn.settings import TrainSettings
from lenspipe.nn.card import CARD_FILE, ModelCard, read_card
from lenspipe.rundir import open_run
from lenspipe.runner import SILENT, Progress, Start, here
from lenspipe.stamps.joined import Data, absolute, asked_for, digest_of_data, open_stamps


class Runner(Protocol):
    """Trains a job and writes its model to ``job.out``; the plain loop, or Ray."""

    def __call__(self, job: TrainJob, *, n_worker: int, on_step: OnStep) -> None:
        """Train by ``n_worker`` workers."""
        ...


PLAIN: Start[Runner] = here(train_local)


def train(
    data: Data,
    *,
    model: str | None,
    task: str,
    out: str | Path,
    settings: TrainSettings,
    seed: int = 0,
    runner: Start[Runner] = PLAIN,
    n_worker: int = 1,
    pretrained: str | None = None,
    keep_head: bool = False,
    progress: Progress = SILENT,
    on_step: OnStep | None = None,
) -> ModelCard:
    """
    Train a network and write it, or go on with a training that was cut off.

    The folder remembers the request: called again with the same one, the training goes on after its last whole epoch
    and ends with the weights of an unbroken run; a finished one is left as it is.

    Parameters
    ----------
    data : path, or sequence of `lenspipe.stamps.joined.Source`
        Data set of stamps with splits, or several that are read as one.
    model : str, optional
        Network family, or a kernel machine (`lenspipe.learn.classical`); a task that builds on a model has its network.
    task : str
    out : path
        Folder of the model; with several nodes one that all of them write to.
    settings : TrainSettings
    seed : int
    runner : Start, optional
        What trains: the plain loop by default, whose weights one Ray worker's equal.
    n_worker : int
        Workers of the runner, which share every batch; the weights depend on it.
    pretrained : path, optional
        Weights to begin from, or the folder of their model.
    keep_head : bool
        Begin from their head too: the same task goes on, with other stamps.
    progress : Progress, optional
        Shown the steps, and a line per epoch.
    on_step : function, optional
        Called with the epoch, the steps done in it and the history: after every step by the plain loop.

    Raises
    ------
    ConfigError, DataError, ModelError
        What is wrong with the request, the data, the network or the stored state.
    """
    objective = objective_of(task, settings.method, family=model)
    model, settings, pretrained = objective.begun_from(model, settings, pretrained)
    refuse_pickle(pretrained)
    request: dict[str, Any] = {
        "command": "train",
        "data": asked_for(data),
        "data_digest": digest_of_data(open_stamps(data)),
        "model": model,
        "task": task,
        "seed": seed,
        "workers": n_worker,
        "pretrained": None if pretrained is None else os.path.abspath(pretrained),
        "settings": settings.model_dump(mode="json"),
        **({"keep_head": True} if keep_head else {}),  # left out elsewhere, so that older requests stay the same
        **_target_of(settings),
    }
    out = Path(os.path.abspath(out))
    # everything is checked before the folder is claimed, so that a request that was wrong can be made again
    job = make_job(
        absolute(data),
        model,
        task,
        out,
        settings,
        seed=seed,
        n_worker=n_worker,
        pretrained=request["pretrained"],
        keep_head=keep_head,
    )
    return run_job(job, request, runner=runner, n_worker=n_worker, progress=progress, on_step=on_step)


def _target_of(settings: TrainSettings) -> dict[str, Any]:
    """What a request remembers of the target of an adaptation."""
    if settings.adapt is None or not settings.adapt.target:
        return {}
    return {"target_digest": digest_of_data(open_stamps(settings.adapt.target))}


def run_job(
    job: TrainJob,
    request: dict[str, Any],
    *,
    runner: Start[Runner] = PLAIN,
    n_worker: int = 1,
    progress: Progress = SILENT,
    on_step: OnStep | None = None,
) -> ModelCard:
    """
    Train a job in its folder, which remembers ``request``: what must be the same for the training to be resumed.

    Raises
    ------
    ConfigError, DataError, ModelError
        As of `train`.
    """
    from lenspipe.learn.classical import KERNELS, train_kernel

    out, model, objective = Path(job.out), job.card.family, job.objective
    if model not in KERNELS and not objective.at_once:
        from lenspipe.learn.network import fresh_network

        fresh_network(job)
    made = (STATE_FILE, CARD_FILE)
    with open_run(
        out,
        request,
        resume=True,
        command="--out",
        has_work=lambda: any((out / name).exists() for name in made),
        readme="model",
    ):
        if (out / CARD_FILE).exists():
            return read_card(out)
        if model in KERNELS:
            return train_kernel(job, KERNELS[model])
        if objective.at_once:
            return objective.fit_at_once(job)
        with runner() as run:
            run(job, n_worker=n_worker, on_step=_Shown(job, progress, on_step))
        return read_card(out)


def said(numbers: dict[str, Any]) -> str:
    """The numbers of an epoch in a line."""
    parts = [f"{name} {value:.4g}" for name, value in numbers.items() if isinstance(value, float) and name != "seconds"]
    return ", ".join(parts)


class _Shown:
    """Steps of a training as progress: a stage of steps, a line per epoch."""

    def __init__(self, job: TrainJob, progress: Progress, on_step: OnStep | None) -> None:
        self._job, self._progress, self._on_step = job, progress, on_step
        self._done: int | None = None
        self._epochs = 0

    def __call__(self, epoch: int, step: int, history: list[dict[str, Any]]) -> None:
        done = epoch * self._job.steps + step
        if self._done is None:
            self._progress.stage("Training", self._job.settings.optim.epochs * self._job.steps, done)
            self._done, self._epochs = done, len(history)
            if self._epochs:
                self._progress.say(f"going on after epoch {self._epochs}")
        self._progress.advance(max(0, done - self._done))
        self._done = max(done, self._done)
        for row in history[self._epochs :]:
            self._progress.say(f"epoch {row['epoch']}: " + said({k: v for k, v in row.items() if k != "epoch"}))
        self._epochs = len(history)
        if self._on_step:
            self._on_step(epoch, step, history)
