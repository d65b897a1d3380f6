"""Stamps as bytes in sprite sheets: 256 to a file, in a code from which the page computes any stretch."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PER_SIDE = 16
PER_SHEET = PER_SIDE**2
FLOOR, RANGE = -2.5, 12.0
"""The code is linear in asinh(f / 2 sigma): byte 0 is -12 sigma, byte 255 is 13 000 sigma, a step at the sky 0.1."""
JPEG_QUALITY = 92


def encode(surface_brightness: NDArray[np.floating], noise: NDArray[np.floating]) -> NDArray[np.uint8]:
    """
    Bytes of surface brightness (..., channel, y, x), for the noise (channel,) of the whole catalogue.

    Examples
    --------
    >>> sky = np.array([[[0.0, 1.0, 100.0]]])
    >>> np.abs(decode(encode(sky, np.array([1.0])), np.array([1.0])) - sky).round(1).max() <= 3.0
    np.True_
    """
    scaled = np.arcsinh(surface_brightness / (2 * noise[:, None, None]))
    return np.clip(np.rint((scaled - FLOOR) / RANGE * 255), 0, 255).astype(np.uint8)


def decode(code: NDArray[np.uint8], noise: NDArray[np.floating]) -> NDArray[np.float64]:
    """Inverse of `encode`, to the step of the code; the page does the same."""
    return np.asarray(2 * noise[:, None, None] * np.sinh(code / 255 * RANGE + FLOOR), np.float64)


def sheet(stamps: NDArray[np.uint8]) -> str:
    """
    One sheet of up to 256 stamps (n, channel, y, x) as a JPEG in a data URL; rows from top to bottom.

    A data URL in a script, because a page opened from disk may not read the pixels of image files beside it.
    """
    n, n_channel, side, _ = stamps.shape
    canvas = np.zeros((PER_SIDE * side, PER_SIDE * side, n_channel), np.uint8)
    for i in range(n):
        row, column = divmod(i, PER_SIDE)
        at = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
        canvas[at] = stamps[i].transpose(1, 2, 0)[::-1]  # FITS rows grow upwards
    picture = Image.fromarray(canvas[..., 0] if n_channel == 1 else canvas)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
