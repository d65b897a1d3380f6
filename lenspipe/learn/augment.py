"""Augmentation of scenes: each stamp of a batch turned, shifted, dimmed, blurred and made noisier, then stretched."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lenspipe.nn.card import ModelCard
from lenspipe.nn.preprocess import network_input

SHIFT_PX = 1.4
BRIGHTNESS, BAND_BRIGHTNESS = 0.10, 0.03
BLUR_PX = 1.3
NOISE = (8.0, 90.0)


def augment(scenes: NDArray[np.floating], rng: np.random.Generator, *, card: ModelCard) -> NDArray[np.float32]:
    """
    Network input drawn from scenes; the same draws for lenses and for all else.

    Of each stamp: one of the eight dihedral views; a shift, normal with 1.4 pixels a coordinate, as the centroid of a
    blend of galaxy and arc is off the galaxy; brightness by 25 %, single bands by 7 % (one sigma); for half of the
    stamps a Gaussian blur up to 1.3 pixels, alike in all bands up to 30 %; for half of them more noise, 8 to 90
    nJy / arcsec^2.

    Parameters
    ----------
    scenes : array (n, band, y, x)
        Surface brightness, nJy / arcsec^2, wider than the card's stamp.

    Returns
    -------
    array (n, band, stamp_px, stamp_px), float32
    """
    n, n_band, size, _ = scenes.shape
    side = card.stamp_px
    margin = (size - side) // 2
    out = np.empty((n, n_band, side, side), np.float32)
    shifts = np.clip(np.rint(rng.normal(0, SHIFT_PX, (n, 2))), -margin, margin).astype(int) + margin
    gains = 10 ** (rng.normal(0, BRIGHTNESS, (n, 1)) + rng.normal(0, BAND_BRIGHTNESS, (n, n_band)))
    gains = gains.astype(np.float32)
    blur = np.where(rng.uniform(size=(n, 1)) < 0.5, rng.uniform(0, BLUR_PX, (n, 1)), 0.0)
    blur = blur * rng.uniform(0.7, 1.3, (n, n_band))
    level = np.exp(rng.uniform(np.log(NOISE[0]), np.log(NOISE[1]), (n, 1)))
    noise = np.where(rng.uniform(size=(n, 1)) < 0.5, level, 0.0)
    noise = (noise * rng.uniform(0.6, 1.6, (n, n_band))).astype(np.float32)
    views: list[int] = rng.integers(0, 8, size=(n,)).tolist()
    for i in range(n):
        y0, x0 = int(shifts[i, 0]), int(shifts[i, 1])
        stamp = scenes[i, :, y0 : y0 + side, x0 : x0 + side].astype(np.float32)
        stamp *= gains[i, :, None, None]
        for band in range(n_band):
            if blur[i, band] > 0.2:
                line = blur_matrix(side, blur[i, band])
                stamp[band] = line @ stamp[band] @ line
        if noise[i, 0] > 0:
            stamp += rng.standard_normal(stamp.shape, np.float32) * noise[i, :, None, None]
        out[i] = dihedral(stamp, views[i])
    return stretch(out, card)


def stretch(surface_brightness: NDArray[np.floating], card: ModelCard) -> NDArray[np.float32]:
    """Surface brightness to network input by the card's stretch."""
    return network_input(surface_brightness, card.stretch)


def dihedral(stamp: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """View 0 to 7 of the eight symmetries of the square: quarter turns, the last four mirrored."""
    turned = np.rot90(stamp, view % 4, axes=(-2, -1))
    return turned[..., ::-1] if view >= 4 else turned


def blur_matrix(side: int, sigma_px: float) -> NDArray[np.float32]:
    """Symmetric matrix ``(side, side)`` of a Gaussian of this sigma along one axis; dark outside."""
    reach = np.arange(side, dtype=np.float32)
    line = np.exp(-0.5 * ((reach[:, None] - reach[None, :]) / sigma_px) ** 2)
    total = np.exp(-0.5 * (np.arange(-8, 9) / sigma_px) ** 2).sum()
    matrix: NDArray[np.float32] = (line / total).astype(np.float32)
    return matrix
