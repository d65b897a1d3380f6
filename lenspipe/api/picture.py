"""Colour pictures of arrays, with a stretch that is measured on the pixels themselves."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.bands import colour_bands
from lenspipe.errors import DataError
from lenspipe.image.contact import colour_stamps
from lenspipe.robust import robust_sigma

NO_DATA = 64
"""Grey of pixels that hold no data: not black, which is sky."""
BRIGHT_PART, NOISE_FREE, MODEL_DEPTH = 0.995, 1e4, 100.0
"""Quantile of pixels that is called bright; how far it is above the noise of what is a model, and in its picture."""


def rgb(
    images: NDArray[np.floating], bands: Sequence[str] | None = None, *, noise: Sequence[float] | None = None
) -> NDArray[np.uint8]:
    """
    Colour picture of a stamp, or of many with one stretch; sky near black, faint arcs visible, cores not burnt out.

    The stretch is HumVI's (`lenspipe.image.stretch.humvi_composite`), its scale the noise of the pixels, so that no
    number has to be known. Bands are shown as red, green and blue by wavelength (`lenspipe.bands.colour_bands`).

    Parameters
    ----------
    images : array (band, y, x) or (n, band, y, x)
        Flux or surface brightness, sky subtracted, any unit. NaN: no data.
    bands : sequence of str, optional
        Names along the band axis. Where not given, three bands are taken to go from blue to red, and one is grey.
    noise : sequence of float, optional
        Noise of a pixel per band, in the unit of ``images``. Where not given, it is measured on them; of images without
        noise, which hold no negative pixel, a part of their brightest light takes its place.

    Returns
    -------
    array (y, x, 3) or (n, y, x, 3), uint8
        Row 0 stays row 0: show it with ``plt.imshow(picture, origin="lower")``.

    Raises
    ------
    DataError
        The shape is another, the names are not as many as the bands, or no pixel holds data.

    Examples
    --------
    >>> sky = np.random.default_rng(0).normal(size=(3, 32, 32))
    >>> picture = rgb(sky, bands="gri")
    >>> picture.shape, picture.dtype, bool(picture.mean() < 60)
    ((32, 32, 3), dtype('uint8'), True)
    """
    pixels = np.asarray(images, np.float32)
    names = tuple(bands) if bands is not None else None
    if pixels.ndim not in (3, 4):
        raise DataError("images are (band, y, x), or (n, band, y, x) for several", got=str(pixels.shape))
    many = pixels if pixels.ndim == 4 else pixels[None]
    n_band = many.shape[1]
    if names is None:
        if n_band not in (1, 3):
            raise DataError("say which bands these are: bands=...", got=n_band)
        shown = [0] if n_band == 1 else [2, 1, 0]
    elif len(names) != n_band:
        raise DataError("one name per band is needed", bands=" ".join(names), got=str(pixels.shape))
    else:
        shown = [names.index(band) for band in colour_bands(names)]
    channels = many[:, shown]
    there = np.isfinite(channels)
    if not there.any():
        raise DataError("no pixel holds data", got=str(pixels.shape))
    levels = _measured_noise(channels) if noise is None else np.asarray(noise, np.float64)[shown]
    picture = colour_stamps(np.where(there, channels, np.float32(0)), noise=levels)
    picture[~there.all(axis=1)] = NO_DATA
    return picture if pixels.ndim == 4 else picture[0]


def _measured_noise(channels: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Noise ``(channel,)`` of the stamps that have any, and else a part of the light of models, such as arcs alone."""
    noisy, models = list[float](), list[float]()
    for stamp in channels[:, channels.shape[1] // 2].astype(np.float64):
        values = stamp[np.isfinite(stamp) & (stamp != 0)]  # a blank part is filled with zeros as often as with NaN
        if not values.size:
            continue
        bright = float(np.quantile(np.abs(values), BRIGHT_PART))
        if _is_model(stamp, values, bright):
            models.append(bright / MODEL_DEPTH)
        elif (sigma := float(robust_sigma(values))) > 0:
            noisy.append(sigma)
    measured = noisy or models
    return np.full(channels.shape[1], np.median(measured)) if measured else None


def _is_model(stamp: NDArray[np.float64], values: NDArray[np.float64], bright: float) -> bool:
    """Whether a stamp ``(y, x)`` has no noise: light alone is nowhere negative, but for rounding, and smooth."""
    if (values < -1e-6 * bright).mean() > 0.05:
        return False
    steps = np.abs(stamp[1:, 1:] - stamp[1:, :-1] - stamp[:-1, 1:] + stamp[:-1, :-1])
    return bool(np.isfinite(steps).any() and np.nanmedian(steps) * NOISE_FREE < bright)


def png(picture: NDArray[np.uint8], *, least_px: int = 240) -> bytes:
    """PNG of a picture ``(y, x, 3)``, north up where row 0 is south; enlarged by a whole number to ``least_px``."""
    from PIL import Image

    times = max(1, least_px // max(picture.shape[:2]))
    large = picture[::-1].repeat(times, axis=0).repeat(times, axis=1)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(large)).save(stream, "PNG")
    return stream.getvalue()
