"""Colour composites that keep faint arcs visible beside bright cores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def humvi_composite(
    surface_brightness: NDArray[np.floating], *, band_scales: Sequence[float], alpha: float, q: float
) -> NDArray[np.float32]:
    """
    Composite of Lupton et al. [1]_ as HumVI [2]_ makes it: one asinh of the mean intensity scales all bands.

    With ``x_b = s_b f_b`` and ``I`` the mean of ``x_b`` over bands, channel ``b`` is
    ``x_b asinh(alpha q I) / (q I)``, clipped to [0, 1]. The ratio is ``alpha`` where ``I = 0`` and even in ``I``.
    Lupton et al. rescale all bands where one exceeds 1, which keeps the hue of bright cores; here, as in HumVI,
    each channel is clipped by itself and cores go white. Bands keep their order: nothing is swapped to red,
    green, blue.

    Parameters
    ----------
    surface_brightness : array (..., band, y, x)
        nJy / arcsec^2.
    band_scales : sequence of float
        ``s_b``, (nJy / arcsec^2)^-1.
    alpha : float
        Slope at faint intensities.
    q : float
        Compression of bright ones.

    Returns
    -------
    array, same shape, float32
        Between 0 and 1.

    References
    ----------
    .. [1] Lupton et al. 2004, PASP 116, 133, equation 2.
    .. [2] Marshall et al. 2016, MNRAS 455, 1171, section 2.2; HumVI by P. Marshall.

    Examples
    --------
    >>> faint = np.full((3, 1, 1), 1e-3)
    >>> humvi_composite(faint, band_scales=(1.0, 1.0, 1.0), alpha=2.0, q=1.0)[:, 0, 0].round(5)
    array([0.002, 0.002, 0.002], dtype=float32)
    """
    scales = np.asarray(band_scales, np.float32)[:, None, None]
    if scales.shape[0] != surface_brightness.shape[-3]:
        raise ValueError(f"band_scales needs one value per band, got {len(band_scales)} for {surface_brightness.shape}")
    scaled = surface_brightness.astype(np.float32, copy=False) * scales
    intensity = np.abs(scaled.mean(axis=-3, keepdims=True)) * np.float32(q)
    # below 1e-6 the ratio equals alpha to float32 precision
    safe = np.maximum(intensity, np.float32(1e-6))
    ratio = np.arcsinh(np.float32(alpha) * safe) / safe
    composite: NDArray[np.float32] = np.clip(scaled * ratio, 0.0, 1.0)
    return composite


def humvi_inverse(
    composite: NDArray[np.floating], *, band_scales: Sequence[float], alpha: float, q: float
) -> NDArray[np.float32]:
    """
    Surface brightness (nJy / arcsec^2) of an unclipped composite: the inverse of `humvi_composite`.

    Pixels that were clipped come back at the clip: negative noise is lost and saturated cores are too faint.

    Examples
    --------
    >>> how = dict(band_scales=(1.0, 2.0, 3.0), alpha=0.1, q=1.0)
    >>> sky = np.array([5.0, 1.0, 0.5]).reshape(3, 1, 1)
    >>> humvi_inverse(humvi_composite(sky, **how), **how).ravel().round(4)
    array([5. , 1. , 0.5], dtype=float32)
    """
    scales = np.asarray(band_scales, np.float64)[:, None, None]
    mean = composite.mean(axis=-3, keepdims=True, dtype=np.float64)
    # the mean over bands of the composite is asinh(alpha q I) / q
    intensity = np.sinh(q * mean) / (alpha * q)
    gain = np.where(mean > 0, intensity / np.where(mean > 0, mean, 1.0), 1.0 / alpha)
    sky: NDArray[np.float32] = (composite * gain / scales).astype(np.float32)
    return sky
