"""
lenspipe: find strong gravitational lenses in whole imaging surveys.

``import lenspipe as lp`` is quick: what is named here is imported when it is first used (`lenspipe.api`). Types are in
the stub beside this file, so that no module of the package depends on what stands above it by importing its version.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {"StampSet": "lenspipe.stamps.format"} | dict.fromkeys(
    ("Model", "Run", "Stamp", "cutouts", "paint", "rgb", "scan_survey", "score", "similar", "simulate_lens"),
    "lenspipe.api",
)
__all__ = ["__version__", "completeness", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name == "completeness":
        return import_module("lenspipe.completeness")
    if name not in _HOME:
        raise AttributeError(f"module 'lenspipe' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
