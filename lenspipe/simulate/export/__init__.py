"""Simulated lenses as users of other tools keep them: one small file per format, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lenspipe.simulate.export.scene import Scene


def _lenstronomy(scene: Scene, folder: Path) -> None:
    from lenspipe.simulate.export.lenstronomy import write_lenstronomy

    write_lenstronomy(scene, folder)


def _autolens(scene: Scene, folder: Path) -> None:
    from lenspipe.simulate.export.autolens import write_autolens

    write_autolens(scene, folder)


def _coolest(scene: Scene, folder: Path) -> None:
    from lenspipe.simulate.export.coolest import write_coolest

    write_coolest(scene, folder)


FORMATS: dict[str, Callable[[Any, Path], None]] = {
    "lenstronomy": _lenstronomy,
    "autolens": _autolens,
    "coolest": _coolest,
}
"""Writers by name of the format."""
