"""From stamps of a data set, of any even or odd size, to a network's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError, ModelError
from lenspipe.image.resample import cubic_matrix
from lenspipe.infer.prepare import input_of
from lenspipe.nn.card import ModelCard, fits
from lenspipe.nn.preprocess import resamples

LEAST_FIELD = 0.6
"""Part of the side of the model's field that a stamp must cover; what is missing around it is empty sky."""


def covered_side(card: ModelCard, size_px: int, pixel_scale_arcsec: float) -> float:
    """
    Part of the side of a model's field that stamps cover, at most 1.

    Raises
    ------
    DataError
        It is less than 0.6: the stamps are too small for the model.
    """
    scale = card.pixel_scale_arcsec if resamples(card, pixel_scale_arcsec) else pixel_scale_arcsec
    want_arcsec, have_arcsec = card.stamp_px * scale, size_px * pixel_scale_arcsec
    part = min(1.0, have_arcsec / want_arcsec)
    if part < LEAST_FIELD:
        raise DataError(
            f"the stamps are too small for {card.name}: they cover less than {LEAST_FIELD:g} of its side",
            got_arcsec=round(have_arcsec, 3),
            want_arcsec=round(want_arcsec, 3),
        )
    return part


def stamp_brightness(
    stamps_njy: NDArray[np.float32], *, bands: Sequence[str], pixel_scale_arcsec: float, card: ModelCard
) -> NDArray[np.float32]:
    """
    Stamps ``(n, band, y, x)`` in nJy a pixel as surface brightness on the card's grid, nJy / arcsec^2.

    The centre of the stamp stays the centre. Where the parity of the sides differs that takes an interpolation by half
    a pixel, else stamps within the card's tolerance are cropped; beyond it they are resampled as the scan does
    (`lenspipe.infer.prepare`). Sky outside small stamps is empty (`covered_side`).

    Raises
    ------
    ModelError
        Bands or pixel scale do not fit the card.
    DataError
        The stamps are not square or too small, or a pixel is not finite.
    """
    if reason := fits(card, tuple(bands), pixel_scale_arcsec):
        raise ModelError(f"the stamps do not fit the model: {reason}")
    side, want = stamps_njy.shape[-1], card.stamp_px
    if stamps_njy.ndim != 4 or stamps_njy.shape[2] != side or stamps_njy.shape[1] != len(bands):
        raise DataError("stamps must be (n, band, y, x), square, a plane a band", got=str(stamps_njy.shape))
    covered_side(card, side, pixel_scale_arcsec)
    broken = np.flatnonzero(~np.isfinite(stamps_njy).all(axis=(1, 2, 3)))
    if len(broken):
        raise DataError("stamps must be finite: mask or drop these rows", n=len(broken), first=int(broken[0]))
    chosen = stamps_njy[:, [list(bands).index(band) for band in card.bands]].astype(np.float32, copy=False)
    if resamples(card, pixel_scale_arcsec):
        matrix = cubic_matrix(side, pixel_scale_arcsec, want, card.pixel_scale_arcsec)
    elif (side - want) % 2:
        matrix = cubic_matrix(side, 1.0, want, 1.0)
    else:
        return _cropped(chosen, want) / np.float32(pixel_scale_arcsec**2)
    on_grid: NDArray[np.float32] = np.matmul(np.matmul(matrix, chosen), matrix.T)
    on_grid /= np.float32(pixel_scale_arcsec**2)
    return on_grid


def stamp_input(
    stamps_njy: NDArray[np.float32], *, bands: Sequence[str], pixel_scale_arcsec: float, card: ModelCard
) -> NDArray[np.float32]:
    """Network input ``(n, channel, stamp_px, stamp_px)`` of stamps; see `stamp_brightness`."""
    brightness = stamp_brightness(stamps_njy, bands=bands, pixel_scale_arcsec=pixel_scale_arcsec, card=card)
    return input_of(brightness, card.stretch)


def _cropped(stamps: NDArray[np.float32], want: int) -> NDArray[np.float32]:
    side = stamps.shape[-1]
    if side >= want:
        edge = (side - want) // 2
        return stamps[..., edge : edge + want, edge : edge + want]
    out = np.zeros((*stamps.shape[:2], want, want), np.float32)
    edge = (want - side) // 2
    out[..., edge : edge + side, edge : edge + side] = stamps
    return out
