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
NAME_PX = 9
"""Height of the name below a stamp."""
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


def labelled(stamp: NDArray[np.uint8], above: str, below: str = "") -> NDArray[np.uint8]:
    """
    A stamp ``(y, x, 3)``, row 0 at the bottom, with words in it.

    Parameters
    ----------
    stamp : array (y, x, 3), uint8
    above, below : str
        Words at the top, and at the bottom as much of the end as there is room for.
    """
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(NAME_PX)
    side_y, side_x = stamp.shape[:2]
    picture = Image.fromarray(np.ascontiguousarray(stamp[::-1]))
    draw = ImageDraw.Draw(picture)
    draw.text((4, 2), above, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    cut = below
    while cut and font.getlength(cut if cut == below else f"…{cut}") > side_x - 6:
        cut = cut[1:]
    name = below if cut == below else f"…{cut}"
    draw.text((3, side_y - NAME_PX - 4), name, fill=(255, 255, 255), font=font, stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(picture)[::-1]
