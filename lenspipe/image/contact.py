"""A contact sheet: one picture of many stamps, so that a person sees what a recipe makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.robust import robust_sigma

MARGIN_PX = 2


def colour_stamps(images_njy: NDArray[np.floating], *, reddest_first: Sequence[int] | None = None) -> NDArray[np.uint8]:
    """
    Stamps ``(n, band, y, x)`` in nJy as colour ``(n, y, x, 3)``, one asinh stretch for all.

    Three or more bands give red, green and blue from the last, middle and first of the last three; fewer give grey.
    Channels are weighted 0.85, 1.1 and 1.8, which shows early types yellow and young galaxies blue, and the mean of
    the three is stretched from its noise up (Lupton et al. 2004).
    """
    n, n_band = images_njy.shape[:2]
    order = list(reddest_first) if reddest_first else ([n_band - 1, n_band - 2, n_band - 3] if n_band >= 3 else [0] * 3)
    weight = np.array([0.85, 1.1, 1.8] if n_band >= 3 else [1.0, 1.0, 1.0])
    scaled = images_njy[:, order].astype(np.float64) * weight[:, None, None]
    intensity = scaled.mean(axis=1, keepdims=True)
    flat = intensity.reshape(n, -1)
    spread = robust_sigma(flat, 1)
    noise = float(np.median(spread[spread > 0])) if (spread > 0).any() else 1.0  # blank stamps have none
    stretch = np.arcsinh(np.clip(intensity / noise + 0.7, 0, None) / 4.0) / np.arcsinh(25.0)
    colour = stretch * np.where(intensity > 0, scaled / np.where(intensity > 0, intensity, 1), 1)
    return np.moveaxis((255 * np.clip(colour, 0, 1)).astype(np.uint8), 1, -1)


def contact_sheet(colour: NDArray[np.uint8], *, n_column: int) -> NDArray[np.uint8]:
    """Stamps ``(n, y, x, 3)`` side by side, row 0 of each stamp at the bottom, thin grey lines between."""
    n, n_y, n_x, _ = colour.shape
    n_row = -(-n // n_column)
    sheet = np.full((n_row * (n_y + MARGIN_PX), n_column * (n_x + MARGIN_PX), 3), 96, np.uint8)
    for k in range(n):
        y, x = divmod(k, n_column)
        y0, x0 = y * (n_y + MARGIN_PX), x * (n_x + MARGIN_PX)
        sheet[y0 : y0 + n_y, x0 : x0 + n_x] = colour[k, ::-1]
    return sheet
