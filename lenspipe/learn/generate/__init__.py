"""
Generators: one small file per way to learn one, all of one shape (`lenspipe.learn.generate.contract`).

The table imports no torch, so a command can list what there is before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lenspipe.learn.generate.contract import Game


def _gan() -> Game:
    from lenspipe.learn.generate.gan import NonSaturating

    return NonSaturating()


def _wgan() -> Game:
    from lenspipe.learn.generate.wgan import WassersteinPenalty

    return WassersteinPenalty()


def _stylegan() -> Game:
    from lenspipe.learn.generate.stylegan import SlopesAtStamps

    return SlopesAtStamps()


def _diffusion() -> Game:
    from lenspipe.learn.generate.diffusion import Denoising

    return Denoising()


GAMES: dict[str, Callable[[], Game]] = {"gan": _gan, "wgan": _wgan, "stylegan": _stylegan, "diffusion": _diffusion}
"""Ways to learn a generator, by the names of the families they belong to; the first where a family has none."""
