"""
Domain adaptation: one small file per method, all of one shape (`lenspipe.learn.adapt.contract`).

The table imports no torch, so a command can list what there is before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lenspipe.learn.adapt.contract import Adaptation


def _source_only() -> Adaptation:
    from lenspipe.learn.adapt.source_only import SourceOnly

    return SourceOnly()


def _fine_tune() -> Adaptation:
    from lenspipe.learn.adapt.fine_tune import FineTune

    return FineTune()


def _adabn() -> Adaptation:
    from lenspipe.learn.adapt.adabn import TargetStatistics

    return TargetStatistics()


def _coral() -> Adaptation:
    from lenspipe.learn.adapt.coral import Coral

    return Coral()


def _mmd() -> Adaptation:
    from lenspipe.learn.adapt.mmd import MeanDiscrepancy

    return MeanDiscrepancy()


def _dann() -> Adaptation:
    from lenspipe.learn.adapt.dann import DomainAdversarial

    return DomainAdversarial()


def _adda() -> Adaptation:
    from lenspipe.learn.adapt.adda import AdversarialDiscriminative

    return AdversarialDiscriminative()


def _wdgrl() -> Adaptation:
    from lenspipe.learn.adapt.wdgrl import WassersteinGuided

    return WassersteinGuided()


def _adamatch() -> Adaptation:
    from lenspipe.learn.adapt.adamatch import AdaMatch

    return AdaMatch()


def _self_ensemble() -> Adaptation:
    from lenspipe.learn.adapt.self_ensemble import SelfEnsemble

    return SelfEnsemble()


def _target_trained() -> Adaptation:
    from lenspipe.learn.adapt.target_trained import TargetTrained

    return TargetTrained()


ADAPTATIONS: dict[str, Callable[[], Adaptation]] = {
    "source-only": _source_only,
    "fine-tune": _fine_tune,
    "adabn": _adabn,
    "coral": _coral,
    "mmd": _mmd,
    "dann": _dann,
    "adda": _adda,
    "wdgrl": _wdgrl,
    "adamatch": _adamatch,
    "self-ensemble": _self_ensemble,
    "target-trained": _target_trained,
}
"""Methods by name; the first and the last are what the others are compared with."""
