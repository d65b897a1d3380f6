"""
Figures are drawn where a test looks at them.

Elsewhere a blank takes their place: laying one out takes as long as a toy training.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

draw = Figure.savefig


def leave_blank(figure: Figure, fname: Path | str | io.BytesIO, **options: Any) -> None:
    Image.new("L", (1, 1)).save(fname, format=options.get("format", "png").upper())


@contextlib.contextmanager
def drawn() -> Iterator[None]:
    """For a while, figures are those that a user sees."""
    before = Figure.savefig
    Figure.savefig = draw
    try:
        yield
    finally:
        Figure.savefig = before
