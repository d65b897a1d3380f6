"""The one way to a PNG, of a figure or of pixels: as bytes for a page, or as a file that appears whole."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lenspipe.rundir import atomic_path

DPI = 110
Picture = Figure | NDArray[np.uint8] | bytes
"""A figure, pixels ``(y, x)`` or ``(y, x, 3)`` with the top row first, or a PNG that is made already."""


def png_of(picture: Picture) -> bytes:
    """
    PNG of a picture.

    Examples
    --------
    >>> png_of(np.zeros((2, 3), np.uint8))[:4]
    b'\\x89PNG'
    """
    if isinstance(picture, bytes):
        return picture
    stream = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(stream, format="png", dpi=DPI)
    else:
        Image.fromarray(picture).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def write_png(path: Path, picture: Picture) -> None:
    """Write a PNG atomically."""
    png = png_of(picture)
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)
