"""What spoils pixels: cosmic rays, bleed trails of saturated stars, masked gaps. Applied after the noise, in place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ARTEFACTS = ("cosmic_rays", "bleed_trail", "masked_gap")


def add_artefact(
    name: str, image_njy: NDArray[np.float32], rng: np.random.Generator, sky_rms_njy: NDArray[np.float64]
) -> None:
    """Spoil an image ``(band, y, x)`` in place by one of `ARTEFACTS`, at a place and strength drawn from ``rng``."""
    {"cosmic_rays": _cosmic_rays, "bleed_trail": _bleed_trail, "masked_gap": _masked_gap}[name](
        image_njy, rng, sky_rms_njy
    )


def _cosmic_rays(image: NDArray[np.float32], rng: np.random.Generator, rms: NDArray[np.float64]) -> None:
    """One to five straight tracks, each in a single band: exposures of different bands are hit independently."""
    n_band, n_y, n_x = image.shape
    for _ in range(int(rng.integers(1, 6))):
        band, length = int(rng.integers(n_band)), rng.exponential(8.0) + 1
        x0, y0, turn = rng.uniform(0, n_x), rng.uniform(0, n_y), rng.uniform(0, 2 * np.pi)
        steps = np.arange(0, length, 0.5)
        x = np.round(x0 + steps * np.cos(turn)).astype(int)
        y = np.round(y0 + steps * np.sin(turn)).astype(int)
        inside = (x >= 0) & (x < n_x) & (y >= 0) & (y < n_y)
        track = np.zeros((n_y, n_x), bool)
        track[y[inside], x[inside]] = True
        image[band][track] += np.float32(rms[band] * rng.uniform(15, 150))


def _bleed_trail(image: NDArray[np.float32], rng: np.random.Generator, rms: NDArray[np.float64]) -> None:
    """Charge of a saturated star that ran along its columns: full height or ending inside, all bands, own lengths."""
    n_band, n_y, n_x = image.shape
    column, width = rng.uniform(0, n_x), int(rng.integers(1, 4))
    row = rng.uniform(-0.5, 1.5) * n_y
    columns = np.arange(int(column), min(int(column) + width, n_x))
    for band in range(n_band):
        reach = rng.uniform(0.2, 1.2) * n_y
        rows = slice(int(np.clip(row - reach, 0, n_y)), int(np.clip(row + reach, 0, n_y)))
        level = np.float32(rms[band] * rng.uniform(80, 400))
        image[band, rows, columns[0] : columns[-1] + 1] = level * rng.uniform(0.9, 1.1, len(columns)).astype(np.float32)


def _masked_gap(image: NDArray[np.float32], rng: np.random.Generator, rms: NDArray[np.float64]) -> None:
    """Pixels without data, stored as zero: a chip gap at the same place in all bands, or one band missing."""
    n_band, n_y, n_x = image.shape
    if n_band > 1 and rng.uniform() < 0.25:
        image[int(rng.integers(n_band))] = 0
        return
    along_rows = bool(rng.integers(2))
    n = n_y if along_rows else n_x
    start, width = int(rng.integers(0, n)), int(rng.integers(3, max(4, n // 4)))
    if along_rows:
        image[:, start : start + width, :] = 0
    else:
        image[:, :, start : start + width] = 0
