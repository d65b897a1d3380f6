"""Stamps as bytes in sprite sheets: 256 to a file, in a code from which the page computes any stretch."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PER_SIDE = 16
PER_SHEET = PER_SIDE**2
FLOOR, RANGE = -2.5, 12.0
"""The code is linear in asinh(f / 2 sigma): byte 1 is -11 sigma, byte 255 is 13 000 sigma, a step at the sky 0.1."""
NO_DATA, SKY = np.uint8(0), np.uint8(round(-FLOOR / RANGE * 255))
"""Codes of a pixel without data, and of no flux."""
JPEG_QUALITY = 92


def encode(
    surface_brightness: NDArray[np.floating], noise: NDArray[np.floating], covered: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """
    Bytes of surface brightness (..., channel, y, x), for the noise (channel,) of the whole catalogue.

    `NO_DATA` where not ``covered`` (same shape), else 1 to 255.

    Examples
    --------
    >>> sky = np.array([[[0.0, 1.0, 100.0]]])
    >>> np.abs(decode(encode(sky, np.array([1.0])), np.array([1.0])) - sky).round(1).max() <= 3.0
    np.True_
    >>> encode(sky, np.array([1.0]), sky > 0)[0, 0, 0] == NO_DATA
    np.True_
    """
    scaled = np.arcsinh(surface_brightness / (2 * noise[:, None, None]))
    codes = np.clip(np.rint((scaled - FLOOR) / RANGE * 255), 1, 255).astype(np.uint8)
    return codes if covered is None else np.where(covered, codes, NO_DATA)


def decode(code: NDArray[np.uint8], noise: NDArray[np.floating]) -> NDArray[np.float64]:
    """Inverse of `encode`, to the step of the code; the page does the same."""
    return np.asarray(2 * noise[:, None, None] * np.sinh(code / 255 * RANGE + FLOOR), np.float64)


def sheet(codes: NDArray[np.uint8]) -> tuple[str, str | None]:
    """
    One sheet of up to 256 stamps; rows of pixels from top to bottom.

    As data URLs in a script, because a page opened from disk may not read the pixels of image files beside it.

    Parameters
    ----------
    codes : array (n, channel, y, x)
        One channel, which is grey, or two or three; 0 where there are no data.

    Returns
    -------
    jpeg : str
        The codes, with that of the sky where there are no data.
    mask : str or None
        PNG, 0 where there are no data, else 255; None where all stamps are whole.
    """
    there = codes != NO_DATA
    jpeg = _data_url(_canvas(np.where(there, codes, SKY)), "JPEG", quality=JPEG_QUALITY, subsampling=0)
    if there.all():
        return jpeg, None
    return jpeg, _data_url(_canvas(there.astype(np.uint8) * np.uint8(255)), "PNG", optimize=True)


def _canvas(stamps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels (y, x) or (y, x, 3); with two channels the second stands in the place of the third too."""
    n, n_channel, side, _ = stamps.shape
    canvas = np.zeros((PER_SIDE * side, PER_SIDE * side, n_channel), np.uint8)
    for i in range(n):
        row, column = divmod(i, PER_SIDE)
        at = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
        canvas[at] = stamps[i].transpose(1, 2, 0)[::-1]  # FITS rows grow upwards
    return canvas[..., 0] if n_channel == 1 else canvas[..., np.minimum(np.arange(3), n_channel - 1)]


def _data_url(pixels: NDArray[np.uint8], kind: str, **how: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, kind, **how)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(stream.getvalue()).decode()
