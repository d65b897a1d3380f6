"""Stamps for people: cut and sampled on one grid, one colour composite, and many side by side on a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lenspipe.image.stretch import humvi_composite
from lenspipe.robust import robust_sigma

MARGIN_PX = 2
GAINS = {1: (1.0,), 3: (0.7, 1.0, 1.6)}
"""Weights of red, green and blue in units of the noise: early types look yellow, young galaxies blue."""
GROUND, HATCH = (52, 58, 70), (104, 114, 132)
"""Where there are no data; the gallery's page has the same."""
ALPHA, Q = 0.05, 4.0
"""Slope at faint intensities and compression of bright ones; the gallery's page begins with the same."""


def sample_stamps(
    image: NDArray[np.float32],
    bands: Sequence[str],
    x_px: NDArray[np.floating],
    y_px: NDArray[np.floating],
    *,
    channels: Sequence[str],
    stamp_px: int,
    step_px: float,
) -> NDArray[np.float32]:
    """
    Stamps around positions, sampled bilinearly; 0 beyond the image.

    Parameters
    ----------
    image : array (band, y, x)
    bands : sequence of str
        Its bands.
    x_px, y_px : arrays (n,)
        Positions, 0-based in ``image``; each comes to lie in the middle of its stamp.
    channels : sequence of str
        Bands to sample; one that the image lacks is the mean of those that it has.
    stamp_px : int
        Side of a stamp.
    step_px : float
        Distance of a stamp's pixels, in pixels of the image.

    Returns
    -------
    array (n, channel, stamp_px, stamp_px)
        In the image's unit.
    """
    offset = (np.arange(stamp_px) - (stamp_px - 1) / 2) * step_px
    y = np.asarray(y_px)[:, None, None] + offset[None, :, None] + np.zeros((1, 1, stamp_px))
    x = np.asarray(x_px)[:, None, None] + offset[None, None, :] + np.zeros((1, stamp_px, 1))
    cut = np.stack(
        [ndimage.map_coordinates(plane, [y, x], order=1, mode="constant", cval=0.0) for plane in image], axis=1
    )
    shown = [cut[:, bands.index(c)] if c in bands else cut.mean(axis=1) for c in channels]
    return np.stack(shown, axis=1)


def sample_covered(
    mask: NDArray[np.bool_],
    bands: Sequence[str],
    x_px: NDArray[np.floating],
    y_px: NDArray[np.floating],
    *,
    channels: Sequence[str],
    stamp_px: int,
    step_px: float,
) -> NDArray[np.bool_]:
    """
    Where `sample_stamps` of the same arguments shows data: not masked in the nearest pixel, and inside the image.

    Parameters
    ----------
    mask : array (band, y, x), bool
        True where a pixel is bad.

    Returns
    -------
    array (n, channel, stamp_px, stamp_px), bool
        A channel that the image lacks has data where all its bands have.
    """
    offset = (np.arange(stamp_px) - (stamp_px - 1) / 2) * step_px
    x = np.floor(np.asarray(x_px)[:, None] + offset + 0.5).astype(np.int64)
    y = np.floor(np.asarray(y_px)[:, None] + offset + 0.5).astype(np.int64)
    n_y, n_x = mask.shape[1:]
    inside = ((y >= 0) & (y < n_y))[:, :, None] & ((x >= 0) & (x < n_x))[:, None, :]
    good = ~mask[:, np.clip(y, 0, n_y - 1)[:, :, None], np.clip(x, 0, n_x - 1)[:, None, :]] & inside
    return np.stack([good[bands.index(c)] if c in bands else good.all(axis=0) for c in channels], axis=1)


def mark_no_data(colour: NDArray[np.uint8], covered: NDArray[np.bool_]) -> None:
    """
    Hatch the pixels without data, in place, so that they are not taken for dark sky.

    Parameters
    ----------
    colour : array (n, y, x, 3), uint8
    covered : array (n, y, x), bool
    """
    y, x = np.indices(colour.shape[1:3])
    on_line: NDArray[np.bool_] = np.asarray((x + y) % 8 < 2)
    hatch = np.where(on_line[..., None], np.array(HATCH, np.uint8), np.array(GROUND, np.uint8))
    colour[~covered] = np.broadcast_to(hatch, colour.shape)[~covered]


def colour_stamps(channels: NDArray[np.floating], *, noise: NDArray[np.floating] | None = None) -> NDArray[np.uint8]:
    """
    Stamps as people see them: the HumVI composite of red, green and blue, or of one band in grey, one stretch for all.

    Parameters
    ----------
    channels : array (n, channel, y, x)
        Flux in red, green and blue (`lenspipe.bands.colour_bands`), or in one band; any unit.
    noise : array (channel,), optional
        Noise of a pixel, that of the middle channel counts; the median over stamps of `robust_sigma` where not given.

    Returns
    -------
    array (n, y, x, 3), uint8

    Examples
    --------
    >>> colour_stamps(np.full((1, 1, 2, 2), 1e6), noise=np.ones(1))[0, 0, 0]
    array([255, 255, 255], dtype=uint8)
    """
    n, n_channel = channels.shape[:2]
    middle = n_channel // 2
    if noise is None:
        spread = robust_sigma(channels[:, middle].reshape(n, -1).astype(np.float64), 1)
        sigma = float(np.median(spread[spread > 0])) if (spread > 0).any() else 1.0  # blank stamps have none
    else:
        sigma = float(noise[middle])
    scales = [gain / sigma for gain in GAINS[n_channel]]
    composite = humvi_composite(channels, band_scales=scales, alpha=ALPHA, q=Q)
    return np.moveaxis(np.rint(255 * np.broadcast_to(composite, (n, 3, *channels.shape[2:]))).astype(np.uint8), 1, -1)


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
