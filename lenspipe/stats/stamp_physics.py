"""What physics says of stamps, as numbers per stamp: flux, radial profile, noise and its correlation, opposite arcs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.robust import robust_sigma
from lenspipe.stats.generated import N_RING, ring_means

Array = NDArray[np.float64]
LAGS = ((0, 1), (1, 0), (1, 1))
"""Steps in y and x between pixels whose noise is compared."""
N_SECTOR = 12
LEAST_FRAME = 3


def frame_of(side: int) -> NDArray[np.bool_]:
    """Pixels ``(side, side)`` of a stamp's outer frame, an eighth of the side wide and 3 pixels at least."""
    width = max(LEAST_FRAME, side // 8)
    frame = np.ones((side, side), bool)
    frame[width:-width, width:-width] = False
    return frame


def per_stamp(stamps_njy: NDArray[np.floating], bands: Sequence[str]) -> dict[str, Array]:
    """
    Numbers of stamps whose distributions are to agree.

    Parameters
    ----------
    stamps_njy : array (n, band, y, x)
    bands : sequence of str

    Returns
    -------
    dict of array (n,)
        ``flux_BAND``: arcsinh of the total flux over its noise, as a flux may be negative; ``profile_BAND_RING``:
        arcsinh of the mean brightness of a ring over a pixel's noise; ``opposition``: see `opposition`.
    """
    noise = noise_of_frames(stamps_njy)
    scale = np.median(noise, axis=0)
    in_noise = stamps_njy / scale[:, None, None]
    side = stamps_njy.shape[-1]
    rings = np.arcsinh(ring_means(in_noise)).reshape(len(stamps_njy), len(bands), -1)
    found = {}
    for k, band in enumerate(bands):
        found[f"flux_{band}"] = np.arcsinh(in_noise[:, k].sum((1, 2)) / side)
        found |= {f"profile_{band}_{ring}": rings[:, k, ring] for ring in range(rings.shape[2])}
    return found | {"opposition": opposition(in_noise.mean(axis=1))}


def opposition(image: NDArray[np.floating]) -> Array:
    """
    How alike what is opposite looks: arcs and their counter-images, or two sides of a ring.

    A stamp is cut into six rings of twelve sectors; each ring less its mean is what is not round. The number is the
    correlation of the rings, all together, with themselves turned by half a turn: 1 for what is the same on both sides,
    -1 for what stands on one side alone of a pair, near 0 for noise.

    Parameters
    ----------
    image : array (n, y, x)
        One image per stamp, of any unit.

    Returns
    -------
    array (n,)
        Of a stamp that is round to the last bit 0.
    """
    side = image.shape[-1]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    ring = (np.hypot(x, y) * N_RING / (side / 2)).astype(int)
    sector = ((np.arctan2(y, x) / (2 * np.pi) % 1) * N_SECTOR).astype(int) % N_SECTOR
    # the innermost ring has too few pixels for twelve sectors
    weight = np.stack(
        [
            ((ring == k) & (sector == s)).ravel() / max(1, ((ring == k) & (sector == s)).sum())
            for k in range(1, N_RING)
            for s in range(N_SECTOR)
        ],
        axis=1,
    )
    cells = (image.reshape(len(image), -1) @ weight).reshape(len(image), N_RING - 1, N_SECTOR)
    uneven = cells - cells.mean(axis=2, keepdims=True)
    power = (uneven**2).sum((1, 2))
    both = (uneven * np.roll(uneven, N_SECTOR // 2, axis=2)).sum((1, 2))
    return np.asarray(both / np.where(power > 0, power, 1.0), np.float64)


def noise_of_frames(stamps: NDArray[np.floating]) -> Array:
    """Noise of a pixel in the outer frame of each stamp and band ``(n, band)``."""
    pixels = stamps[..., frame_of(stamps.shape[-1])].astype(np.float64)
    return np.asarray(robust_sigma(pixels, 2), np.float64)


def noise_facts(stamps: NDArray[np.floating], bands: Sequence[str]) -> dict[str, float]:
    """
    Noise of the outer frames over all stamps: its level by band, and its correlation with neighbours and other bands.

    Of each stamp's frame its median is taken off; correlations are of pixels within 4 times the noise, so that a
    bright source in some frames does not count.

    Returns
    -------
    dict
        ``sigma_BAND``; ``lag_Y_X``, the mean over bands; ``bands_A_B`` for each pair.
    """
    frame = frame_of(stamps.shape[-1])
    pixels = np.where(frame, stamps, np.nan).astype(np.float64)
    pixels -= np.nanmedian(pixels, axis=(2, 3), keepdims=True)
    sigma = np.median(noise_of_frames(stamps), axis=0)
    pixels[np.abs(pixels) > 4 * sigma[:, None, None]] = np.nan
    facts = {f"sigma_{band}": float(s) for band, s in zip(bands, sigma, strict=True)}
    for dy, dx in LAGS:
        here, there = pixels[..., dy:, dx:], pixels[..., : pixels.shape[-2] - dy, : pixels.shape[-1] - dx]
        facts[f"lag_{dy}_{dx}"] = float(np.mean([_correlation(here[:, k], there[:, k]) for k in range(len(bands))]))
    for (i, one), (j, other) in itertools.combinations(enumerate(bands), 2):
        facts[f"bands_{one}_{other}"] = _correlation(pixels[:, i], pixels[:, j])
    return facts


def _correlation(one: Array, other: Array) -> float:
    both = np.isfinite(one) & np.isfinite(other)
    a, b = one[both] - one[both].mean(), other[both] - other[both].mean()
    return float((a * b).mean() / max(1e-300, float(np.sqrt((a**2).mean() * (b**2).mean()))))
