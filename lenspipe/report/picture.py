"""The one way to a PNG, of a figure or of pixels: as bytes for a page, or as a file that appears whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lenspipe.rundir import atomic_path

if TYPE_CHECKING:  # who writes pixels does not wait for matplotlib
    from matplotlib.figure import Figure

DPI = 110
Picture: TypeAlias = "Figure | NDArray[np.uint8] | bytes"
"""A figure, pixels ``(y, x)`` or ``(y, x, 3)`` with the top row first, or a PNG that is made already."""


def png_of(picture: Picture) -> bytes:
    """
    PNG of a picture.

    Examples
    --------
    >>> png_of(np.zeros((2, 3), np.uint8))[1:4]
    b'PNG'
    """
    if isinstance(picture, bytes):
        return picture
    stream = io.BytesIO()
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(stream, format="PNG", optimize=True)
    else:
        picture.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def write_png(path: Path, picture: Picture) -> None:
    """Write a PNG atomically."""
    png = png_of(picture)
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)
