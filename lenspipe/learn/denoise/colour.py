"""Noise whose neighbouring pixels are correlated, as that of resampled and co-added images is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, ndimage

Array = NDArray[np.float64]
T = TypeVar("T", np.float64, np.bool_)
LAG_PX, PEDESTAL_PX = 2, 6
QUIET_SIGMA, SMOOTH_PX, MARGIN_PX = 0.6, 2.0, 4
LEAST_POWER, LEAST_PIXELS = 0.05, 1000
WHITE: Array = np.pad([[1.0]], LAG_PX)
"""Correlation of noise that has none, ``(5, 5)``."""


def noise_correlation(images_njy: Sequence[NDArray[np.floating]], rms_njy: Sequence[ArrayLike]) -> Array:
    """
    Correlation of the noise of pixels up to 2 apart, over empty sky and the mean of the bands.

    Empty is what lies 4 pixels off anything that stands out by 0.6 sigma after a smoothing of 2 pixels. The
    correlation of pixels 6 apart is taken off: light that is too faint to be cut out, and not noise.

    Parameters
    ----------
    images_njy : sequence of arrays (band, y, x)
        Sky-subtracted; NaN where there are no data.
    rms_njy : sequence of arrays (band,)
        Noise of the sky.

    Returns
    -------
    array (5, 5)
        By lag in y and x, 1 in the middle; `WHITE` where less than 1,000 pixels are empty.
    """
    lags = [(dy, dx) for dy in range(LAG_PX + 1) for dx in range(-LAG_PX, LAG_PX + 1) if (dy, dx) > (0, -1)]
    lags += [(0, PEDESTAL_PX), (PEDESTAL_PX, 0)]
    product, count = np.zeros(len(lags)), np.zeros(len(lags))
    for image, rms in zip(images_njy, rms_njy, strict=True):
        for values, sigma in zip(np.asarray(image, np.float64), np.ravel(rms), strict=True):
            known = np.isfinite(values)
            scaled = np.where(known, values / sigma, 0)
            bright = ndimage.gaussian_filter(scaled, SMOOTH_PX) > QUIET_SIGMA
            empty = known & ~ndimage.binary_dilation(bright, iterations=MARGIN_PX)
            scaled[~empty] = 0
            for k, (dy, dx) in enumerate(lags):
                a, b = _apart(scaled, dy, dx)
                e, f = _apart(empty, dy, dx)
                product[k] += float((a * b).sum())
                count[k] += float((e & f).sum())
    if count.min() < LEAST_PIXELS:
        return WHITE.copy()
    mean = product / count
    pedestal = mean[-2:].mean()
    by_lag = (mean[:-2] - pedestal) / (mean[0] - pedestal)
    out = np.empty((2 * LAG_PX + 1, 2 * LAG_PX + 1))
    for (dy, dx), value in zip(lags, by_lag, strict=False):
        out[LAG_PX + dy, LAG_PX + dx] = out[LAG_PX - dy, LAG_PX - dx] = value
    return out


def resampled_correlation(tap: float) -> Array:
    """Correlation ``(5, 5)`` of white noise after a kernel ``tap, 1, tap`` in x and y: linear interpolation is 0.1 to
    0.3 on average, a sharpening kernel is negative."""
    line = np.convolve([tap, 1, tap], [tap, 1, tap]) / (1 + 2 * tap**2)
    return np.outer(line, line)


def coloured_noise(shape: tuple[int, ...], correlation: Array, rng: np.random.Generator) -> Array:
    """
    Gaussian noise ``(..., y, x)`` of unit variance with a given correlation; it wraps around at the edges.

    Powers below a twentieth of the mean, which a measured correlation may give, are raised to that.
    """
    white = rng.normal(size=shape)
    if np.array_equal(correlation, WHITE):
        return white
    height, width = shape[-2:]
    at_origin = np.zeros((height, width))
    reach = len(correlation) // 2
    np.add.at(
        at_origin,
        (np.arange(-reach, reach + 1)[:, None] % height, np.arange(-reach, reach + 1)[None] % width),
        correlation,
    )
    power = fft.fft2(at_origin).real.clip(LEAST_POWER)
    power /= power.mean()
    spectrum = fft.rfft2(white) * np.sqrt(power[:, : width // 2 + 1])
    noise: Array = fft.irfft2(spectrum, (height, width))
    return noise


def _apart(values: NDArray[T], dy: int, dx: int) -> tuple[NDArray[T], NDArray[T]]:
    height, width = values.shape
    left, right = max(0, -dx), max(0, dx)
    return values[dy:, right : width - left], values[: height - dy, left : width - right]
