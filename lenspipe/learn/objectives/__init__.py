"""
What a training is for: one file per task or method, all of one shape (`lenspipe.learn.objectives.contract`).

The table imports no torch, so a command can list what there is before anything is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lenspipe import plugins
from lenspipe.errors import ConfigError
from lenspipe.learn.adapt import ADAPTATIONS
from lenspipe.learn.generate import GAMES

if TYPE_CHECKING:
    from lenspipe.learn.adapt.contract import Adaptation
    from lenspipe.learn.objectives.contract import Objective


def _find() -> Objective:
    from lenspipe.learn.objectives.find import FindLenses

    return FindLenses()


def _classify() -> Objective:
    from lenspipe.learn.objectives.classify import ClassifyStamps

    return ClassifyStamps()


def _regress() -> Objective:
    from lenspipe.learn.objectives.regress import RegressTargets

    return RegressTargets()


def _denoise() -> Objective:
    from lenspipe.learn.objectives.denoise import DenoiseImages

    return DenoiseImages()


def _simclr() -> Objective:
    from lenspipe.learn.objectives.embed import SimCLR

    return SimCLR()


def _byol() -> Objective:
    from lenspipe.learn.objectives.embed import BYOL

    return BYOL()


def _prototypical() -> Objective:
    from lenspipe.learn.objectives.few_shot import Prototypical

    return Prototypical()


def _umtra() -> Objective:
    from lenspipe.learn.objectives.few_shot import OwnTasks

    return OwnTasks()


def _mae() -> Objective:
    from lenspipe.learn.objectives.mae import MaskedPatches

    return MaskedPatches()


def _deflect() -> Objective:
    from lenspipe.learn.objectives.deflect import Deflected

    return Deflected()


def _bend() -> Objective:
    from lenspipe.learn.objectives.deflect import BentStamps

    return BentStamps()


def _rebuild() -> Objective:
    from lenspipe.learn.objectives.anomaly import RebuildStamps

    return RebuildStamps()


def _generate(game: str) -> Objective:
    from lenspipe.learn.objectives.generate import GenerateStamps

    return GenerateStamps(GAMES[game]())


def _fitted(score: str) -> Objective:
    from lenspipe.learn.objectives.anomaly import FittedScore

    return FittedScore(score)


def _cluster() -> Objective:
    from lenspipe.learn.objectives.cluster import ClusterStamps

    return ClusterStamps()


def _adapted(task: str, method: str) -> Objective:
    from lenspipe.learn.objectives.adapted import AdaptedClassify, AdaptedFind

    kinds: dict[str, Callable[[Adaptation], Objective]] = {"find": AdaptedFind, "classify": AdaptedClassify}
    return kinds[task](ADAPTATIONS[method]())


def _adaptations(task: str) -> dict[str, Callable[[], Objective]]:
    return {name: functools.partial(_adapted, task, name) for name in ADAPTATIONS}


SCORES = ("max-softmax", "energy", "mahalanobis", "knn", "isolation-forest")
"""Scores of what a trained network gives (`lenspipe.nn.families.outlier`)."""

METHODS: dict[str, dict[str, Callable[[], Objective]]] = {
    "find": {"supervised": _find} | _adaptations("find"),
    "classify": {"supervised": _classify} | _adaptations("classify"),
    "regress": {"supervised": _regress},
    "denoise": {"pairs": _denoise},
    "embed": {
        "simclr": _simclr,
        "byol": _byol,
        "mae": _mae,
        "deflect": _deflect,
        "prototypical": _prototypical,
        "umtra": _umtra,
    },
    "anomaly": {"rebuild": _rebuild, "deflect": _bend} | {name: functools.partial(_fitted, name) for name in SCORES},
    "cluster": {"neighbours": _cluster},
    "generate": {name: functools.partial(_generate, name) for name in GAMES},
}
"""By the name of a task, the ways to learn it, the first where none is named."""


def _of_package(name: str) -> Objective:
    made: Objective = plugins.load(plugins.METHODS, name)()
    return made


for _name in plugins.entries(plugins.METHODS):  # TASK.METHOD
    METHODS.setdefault(_name.partition(".")[0], {}).setdefault(
        _name.partition(".")[2], functools.partial(_of_package, _name)
    )


def method_names() -> list[str]:
    """Names of all methods, each once."""
    return list(dict.fromkeys(name for methods in METHODS.values() for name in methods))


def method_of(task: str, method: str | None = None, *, family: str | None = None) -> str:
    """
    Name of the method that a task is learnt by: the one asked for, one that the family is named after, or the first.

    Raises
    ------
    ConfigError
        No training is known for the task, or not by this method.

    Examples
    --------
    >>> method_of("embed"), method_of("embed", "byol")
    ('simclr', 'byol')
    """
    if task not in METHODS:
        raise ConfigError(f"no such task of a training; known: {', '.join(METHODS)}", task=task)
    known = METHODS[task]
    if method is not None and method not in known:
        raise ConfigError(f"no such method for the task {task}; known: {', '.join(known)}", method=method)
    return method or (family if family in known else next(iter(known)))


def objective_of(task: str | Any, method: str | None = None, *, family: str | None = None) -> Objective:
    """
    Objective by the name of a task, or by what a card's network gives (`lenspipe.nn.outputs`), and of a method.

    Raises
    ------
    ConfigError
        As of `method_of`.
    """
    name = task if isinstance(task, str) else task.task
    return _made(name, method_of(name, method, family=family))


@functools.cache
def _made(task: str, method: str) -> Objective:
    return METHODS[task][method]()
