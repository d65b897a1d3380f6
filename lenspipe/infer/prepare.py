"""From cutouts in nJy to a network's input: choose bands, resample to the card's pixel scale, crop, stretch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError, ModelError
from lenspipe.image.resample import KERNEL_REACH
from lenspipe.nn.card import ModelCard, Stretch, fits
from lenspipe.nn.preprocess import network_input, resamples, surface_brightness


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
    together = card.stretch.smooth_residual  # lenses are fitted many at a time
    n_plane = len(card.bands) if together else card.stretch.n_channel
    out = np.empty((shape[0], n_plane, card.stamp_px, card.stamp_px), np.float32)
    for i in range(shape[0]):
        stamp = cutouts_njy[i, order].astype(np.float32, copy=False)
        if mask is not None:
            stamp = np.where(mask[i, order], np.float32(0), stamp)
        brightness = surface_brightness(stamp, cutout_scale_arcsec, size_px=card.stamp_px, card=card)
        out[i] = brightness if together else network_input(brightness, card.stretch)
    return input_of(out, card.stretch) if together else out


def input_of(brightness: NDArray[np.float32], stretch: Stretch) -> NDArray[np.float32]:
    """Network input of surface brightness ``(n, band, y, x)`` on the card's pixels; lenses are fitted where it asks."""
    if stretch.smooth_residual:
        from lenspipe.nn.smooth_lens import with_residual  # the only thing here that needs torch

        brightness = with_residual(brightness)
    return network_input(brightness, stretch)


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
