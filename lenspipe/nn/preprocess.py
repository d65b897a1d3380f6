"""From pixels in nJy to a network's input, as a card asks for it: its grid, then its stretch."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, ModelError
from lenspipe.image.resample import cubic_matrix
from lenspipe.image.stretch import humvi_composite
from lenspipe.nn.card import ModelCard, Stretch


def resamples(card: ModelCard, pixel_scale_arcsec: float) -> bool:
    """Whether pixels of this scale lie outside the card's tolerance and are resampled."""
    return abs(pixel_scale_arcsec / card.pixel_scale_arcsec - 1) > card.scale_tolerance


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


def network_input(surface_brightness: NDArray[np.floating], stretch: Stretch) -> NDArray[np.float32]:
    """
    Scale bands, mix them into channels, stretch, take off their blur, standardise.

    With ``x`` a scaled and mixed channel: ``humvi`` is `lenspipe.image.stretch.humvi_composite`; ``asinh`` is
    ``asinh(alpha q x) / q``, ``log`` is ``sign(x) log(1 + alpha q |x|) / q``, ``linear`` is ``alpha x``, ``sqrt`` is
    ``2 alpha sign(x) (sqrt(1 + q |x|) - 1) / q``, after which noise whose variance goes as ``1 + q x`` is alike
    everywhere. All have the slope alpha at zero, and only ``humvi`` clips. ``high_pass_px`` then takes off each
    channel's own blur (`low_pass`); with ``high_pass_beside`` the channels as they are stay, before those. Each channel
    is multiplied by its number in ``channel_scales`` at the end. With ``smooth_residual`` the bands are followed by
    what smooth lenses leave of them (`lenspipe.infer.prepare.input_of` sees to it), which are scaled and stretched
    likewise.

    Parameters
    ----------
    surface_brightness : array (..., band, y, x)
        nJy / arcsec^2, finite.
    stretch : Stretch
        Rule of the card.

    Returns
    -------
    array (..., channel, y, x), float32

    Raises
    ------
    ModelError
        The rule has ``smooth_residual``, and only the bands are there.

    Examples
    --------
    >>> rule = Stretch(name="asinh", band_scales=(1.0, 2.0), mix=((0.5, 0.5),), alpha=0.1, q=1.0)
    >>> network_input(np.ones((2, 1, 1)), rule).round(4)
    array([[[0.1494]]], dtype=float32)
    """
    if stretch.smooth_residual and surface_brightness.shape[-3] != 2 * len(stretch.band_scales):
        raise ModelError("the model takes bands and what smooth lenses leave of them", got=surface_brightness.shape[-3])
    scales = np.tile(np.asarray(stretch.band_scales, np.float32), 1 + stretch.smooth_residual)
    if stretch.mix is None and stretch.name == "humvi":
        out = humvi_composite(surface_brightness, band_scales=stretch.band_scales, alpha=stretch.alpha, q=stretch.q)
    else:
        scaled = surface_brightness.astype(np.float32, copy=False) * scales[:, None, None]
        if stretch.mix is not None:
            scaled = np.einsum("cb,...byx->...cyx", np.asarray(stretch.mix, np.float32), scaled)
        out = _stretched(scaled, stretch)
    if stretch.high_pass_px:
        rows, columns = (low_pass(side, stretch.high_pass_px) for side in out.shape[-2:])
        sharp = out - np.matmul(np.matmul(rows, out), columns.T)
        out = np.concatenate([out, sharp], axis=-3) if stretch.high_pass_beside else sharp
    if stretch.channel_scales is not None:
        out = out * np.asarray(stretch.channel_scales, np.float32)[:, None, None]
    if stretch.standardise:
        axes = (-3, -2, -1)
        spread = out.std(axis=axes, keepdims=True)
        centred = out - out.mean(axis=axes, keepdims=True)
        out = (centred / np.where(spread > 0, spread, np.float32(1))).astype(np.float32, copy=False)
    return out


def _stretched(scaled: NDArray[np.float32], stretch: Stretch) -> NDArray[np.float32]:
    alpha, q = np.float32(stretch.alpha), np.float32(stretch.q)
    if stretch.name == "humvi":
        unit = (1.0,) * scaled.shape[-3]
        return humvi_composite(scaled, band_scales=unit, alpha=stretch.alpha, q=stretch.q)
    if stretch.name == "asinh":
        out = np.arcsinh(alpha * q * scaled) / q
    elif stretch.name == "log":
        out = np.sign(scaled) * np.log1p(alpha * q * np.abs(scaled)) / q
    elif stretch.name == "sqrt":
        out = 2 * alpha * np.sign(scaled) * (np.sqrt(1 + q * np.abs(scaled)) - 1) / q
    else:
        out = alpha * scaled
    return np.asarray(out, np.float32)


@functools.cache
def low_pass(side: int, sigma_px: float) -> NDArray[np.float32]:
    """
    Matrix ``(side, side)`` that blurs a line by a Gaussian; near the edges the mean is of what lies inside.

    Examples
    --------
    >>> low_pass(3, 1.0).sum(axis=1)
    array([1., 1., 1.], dtype=float32)
    """
    place = np.arange(side)
    weight = np.exp(-0.5 * ((place[:, None] - place) / sigma_px) ** 2)
    matrix = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def demand_inverse(stretch: Stretch) -> None:
    """Raise `ConfigError` where a stretch cannot be undone: it clips, mixes bands, or forgets a stamp's own scale."""
    if stretch.name == "humvi" or stretch.mix is not None or _forgets(stretch):
        raise ConfigError(
            "this stretch cannot be undone: a generator takes asinh, log, sqrt or linear, without mix, standardise, "
            "smooth_residual, high_pass_px or channel_scales",
            stretch=stretch.name,
        )


def _forgets(stretch: Stretch) -> bool:
    return bool(stretch.standardise or stretch.smooth_residual or stretch.high_pass_px or stretch.channel_scales)


def stretch_inverse(stretched: NDArray[np.floating], stretch: Stretch) -> NDArray[np.float64]:
    """
    Surface brightness, nJy / arcsec^2, of what `network_input` made of it; for stretches without mix.

    Parameters
    ----------
    stretched : array (..., band, y, x)
    stretch : Stretch

    Raises
    ------
    ConfigError
        The stretch cannot be undone (`demand_inverse`).

    Examples
    --------
    >>> rule = Stretch(name="asinh", band_scales=(4.0,), alpha=0.2, q=1.0)
    >>> stretch_inverse(network_input(np.full((1, 1, 1), -7.0), rule), rule).round(5)
    array([[[-7.]]])
    """
    demand_inverse(stretch)
    x, alpha, q = np.asarray(stretched, np.float64), stretch.alpha, stretch.q
    if stretch.name == "asinh":
        x = np.sinh(q * x) / (alpha * q)
    elif stretch.name == "log":
        x = np.sign(x) * np.expm1(q * np.abs(x)) / (alpha * q)
    elif stretch.name == "sqrt":
        x = np.sign(x) * ((1 + q * np.abs(x) / (2 * alpha)) ** 2 - 1) / q
    else:
        x = x / alpha
    return np.asarray(x / np.asarray(stretch.band_scales, np.float64)[:, None, None])
