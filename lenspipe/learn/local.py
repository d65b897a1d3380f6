"""The plain loop of a training in this process: the reference that one Ray worker must equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lenspipe.errors import ConfigError
from lenspipe.learn.job import TrainJob

OnStep = Callable[[int, int, list[dict[str, Any]]], None]
"""Called with the epoch, the steps done in it, and the history."""


def train_local(job: TrainJob, *, n_worker: int, on_step: OnStep) -> None:
    """
    Train on this machine's GPU, or its CPU where it has none; see `lenspipe.learn.train.Runner`.

    Raises
    ------
    ConfigError
        More than one worker is asked for.
    """
    refuse_workers(n_worker)
    import torch

    from lenspipe.learn.finish import finish
    from lenspipe.learn.loop import train_loop
    from lenspipe.learn.world import World

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module, state, outputs = train_loop(job, World(device=device), on_step)
    finish(job, module, state.history, outputs, n_worker=1, device=device)


def refuse_workers(n_worker: int) -> None:
    """Raise `ConfigError` where more than one worker is asked for."""
    if n_worker > 1:
        raise ConfigError("the plain loop is one worker: leave --runner local out for several", workers=n_worker)
