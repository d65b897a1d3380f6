"""From cutouts in nJy to a network's input: choose bands, resample to the card's pixel scale, crop, stretch."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError, ModelError
from lenspipe.nn.card import ModelCard, fits
from lenspipe.nn.preprocess import channels, network_input

KERNEL_REACH = 2
"""Half-width of the cubic kernel, in pixels of the coarser of the two grids."""


def prepare_stamps(
    cutouts_njy: NDArray[np.floating],
    mask: NDArray[np.bool_] | None = None,
    *,
    cutout_scale_arcsec: float,
    card: ModelCard,
    bands: Sequence[str] | None = None,
) -> NDArray[np.float32]:
    """
    Network input of cutouts; each stamp by itself, so that the result does not depend on its neighbours.

    Within the card's tolerance the pixels are taken as they are and the model sees the sky a little larger or
    smaller; beyond it they are resampled by cubic convolution (Keys 1981, a = -0.5), widened where pixels get
    coarser so that nothing aliases. Surface brightness, not flux per pixel, is what is stretched.

    Parameters
    ----------
    cutouts_njy : array (n, band, y, x)
        Background-subtracted flux a pixel, nJy, square, the source in the middle.
    mask : array (n, band, y, x), optional
        True where a pixel is bad; it is read as empty sky.
    cutout_scale_arcsec : float
        Pixel scale of the cutouts.
    card : ModelCard
    bands : sequence of str, optional
        Names along the band axis; the card's own order where not given.

    Returns
    -------
    array (n, channel, stamp_px, stamp_px), float32

    Raises
    ------
    ModelError
        Bands or pixel scale do not fit the card.
    DataError
        The cutouts are not four-dimensional, square and of the parity of the card's stamps, or are smaller than
        `cutout_size_px` asks for.
    """
    names = tuple(card.bands if bands is None else bands)
    if reason := fits(card, names, cutout_scale_arcsec):
        raise ModelError(f"the cutouts do not fit the model: {reason}")
    need = cutout_size_px(card, cutout_scale_arcsec)
    shape = cutouts_njy.shape
    odd = (shape[-1] - card.stamp_px) % 2
    if len(shape) != 4 or shape[1] != len(names) or shape[2] != shape[3] or odd or shape[3] < need:
        raise DataError(
            "cutouts must be (n, band, y, x), square, odd where the model's stamps are odd and even where they are "
            "even, and large enough for the model",
            got=str(shape),
            want=f"(n, {len(names)}, {need}, {need}) or larger",
        )
    order = [names.index(band) for band in card.bands]
    out = np.empty((shape[0], channels(card.stretch), card.stamp_px, card.stamp_px), np.float32)
    for i in range(shape[0]):
        stamp = cutouts_njy[i, order].astype(np.float32, copy=False)
        if mask is not None:
            stamp = np.where(mask[i, order], np.float32(0), stamp)
        brightness = surface_brightness(stamp, cutout_scale_arcsec, size_px=card.stamp_px, card=card)
        out[i] = network_input(brightness, card.stretch)
    return out


def surface_brightness(
    stamp_njy: NDArray[np.float32], cutout_scale_arcsec: float, *, size_px: int, card: ModelCard
) -> NDArray[np.float32]:
    """
    One stamp ``(band, y, x)`` on the card's pixels, ``size_px`` a side, in nJy / arcsec^2.

    Cropped within the card's tolerance, resampled beyond it. Pixels that the kernel would need from outside the stamp
    are left out of the weighted mean; where it lies mostly outside, the sky is empty.
    """
    side = stamp_njy.shape[-1]
    if resamples(card, cutout_scale_arcsec):
        matrix = cubic_matrix(side, cutout_scale_arcsec, size_px, card.pixel_scale_arcsec)
        on_grid: NDArray[np.float32] = np.matmul(np.matmul(matrix, stamp_njy), matrix.T)
    else:
        edge = (side - size_px) // 2
        on_grid = stamp_njy[:, edge : edge + size_px, edge : edge + size_px].copy()
    on_grid /= np.float32(cutout_scale_arcsec**2)
    return on_grid


def cutout_size_px(card: ModelCard, pixel_scale_arcsec: float) -> int:
    """
    Number of the data's pixels that a model needs around a source; odd where its stamps are odd.

    Where resampling is needed it covers the kernel's reach around the centres of the outermost pixels.
    """
    if not resamples(card, pixel_scale_arcsec):
        return card.stamp_px
    outermost = (card.stamp_px - 1) / 2 * card.pixel_scale_arcsec
    reach = KERNEL_REACH * max(card.pixel_scale_arcsec, pixel_scale_arcsec)
    side = 2 * math.ceil((outermost + reach) / pixel_scale_arcsec) + 1
    return side if card.stamp_px % 2 else side + 1


def field_px(card: ModelCard, pixel_scale_arcsec: float) -> int:
    """Side of the sky that a model sees, in whole pixels of the data."""
    if not resamples(card, pixel_scale_arcsec):
        return card.stamp_px
    return max(1, round(card.stamp_px * card.pixel_scale_arcsec / pixel_scale_arcsec))


def resamples(card: ModelCard, pixel_scale_arcsec: float) -> bool:
    """Whether pixels of this scale lie outside the card's tolerance and are resampled."""
    return abs(pixel_scale_arcsec / card.pixel_scale_arcsec - 1) > card.scale_tolerance


@functools.lru_cache(maxsize=32)
def cubic_matrix(n_in: int, scale_in: float, n_out: int, scale_out: float) -> NDArray[np.float32]:
    """Rows of weights ``(n_out, n_in)``, each of unit sum, that map a line of pixels onto another concentric grid."""
    at = (np.arange(n_out) - (n_out - 1) / 2) * scale_out / scale_in + (n_in - 1) / 2
    stretch = max(1.0, scale_out / scale_in)
    t = np.abs(np.arange(n_in)[None, :] - at[:, None]) / stretch
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    weights = np.where(t < 1, near, np.where(t < KERNEL_REACH, far, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    # a row mostly outside the stamp is empty sky: normalising its few outer, negative weights would blow them up
    weights = np.where(total > 0.5, weights / np.where(total > 0.5, total, 1.0), 0.0)
    matrix: NDArray[np.float32] = weights.astype(np.float32)
    matrix.setflags(write=False)
    return matrix
