"""What a training is for: one file per task, all of one shape (`lenspipe.learn.objectives.contract`)."""

from __future__ import annotations

from typing import Any

from lenspipe.errors import ConfigError
from lenspipe.learn.objectives.classify import ClassifyStamps
from lenspipe.learn.objectives.contract import Objective
from lenspipe.learn.objectives.denoise import DenoiseImages
from lenspipe.learn.objectives.find import FindLenses
from lenspipe.learn.objectives.regress import RegressTargets

__all__ = ["OBJECTIVES", "Objective", "objective_of"]

_ALL: tuple[Objective, ...] = (FindLenses(), ClassifyStamps(), RegressTargets(), DenoiseImages())
OBJECTIVES: dict[str, Objective] = {objective.task: objective for objective in _ALL}
"""Objective of each task that a network can be trained for, by the task's name."""


def objective_of(task: str | Any) -> Objective:
    """
    Objective by the name of a task, or by what a card's network gives (`lenspipe.nn.outputs`).

    Raises
    ------
    ConfigError
        No training is known for the task.
    """
    name = task if isinstance(task, str) else task.task
    if name not in OBJECTIVES:
        raise ConfigError(f"no such task of a training; known: {', '.join(OBJECTIVES)}", task=name)
    return OBJECTIVES[name]
