"""
What Python sees of lenspipe: ``import lenspipe as lp``. Thin functions over those that the commands call.

A file here is about one thing that a user holds: a run, a model, a stamp, a picture. Each is imported when it is first
asked for: a command that needs one does not wait for the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lenspipe.api.cut import cutouts
    from lenspipe.api.lens import paint, simulate_lens
    from lenspipe.api.likeness import similar
    from lenspipe.api.model import Model, score
    from lenspipe.api.picture import rgb
    from lenspipe.api.run import Run, scan_survey
    from lenspipe.api.stamp import Stamp

__all__ = ["Model", "Run", "Stamp", "cutouts", "paint", "rgb", "scan_survey", "score", "similar", "simulate_lens"]
_HOME = {
    "cutouts": "cut",
    "paint": "lens",
    "simulate_lens": "lens",
    "similar": "likeness",
    "Model": "model",
    "score": "model",
    "rgb": "picture",
    "Run": "run",
    "scan_survey": "run",
    "Stamp": "stamp",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lenspipe.api' has no attribute {name!r}")
    return getattr(import_module(f"lenspipe.api.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
