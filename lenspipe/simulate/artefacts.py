"""What spoils pixels: cosmic rays, bleed trails of saturated stars, masked gaps. Applied after the noise, in place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ARTEFACTS = ("cosmic_rays", "bleed_trail", "masked_gap")
"""What `artefact_fraction` of a recipe draws from; their order and number are part of every stamp that was made."""


def add_artefact(
    name: str,
    image_njy: NDArray[np.float32],
    rng: np.random.Generator,
    sky_rms_njy: NDArray[np.float64],
    *,
    pixel_scale_arcsec: float,
) -> None:
    """
    Spoil an image ``(band, y, x)`` in place, at a place and strength drawn from ``rng``.

    ``name`` is one of `ARTEFACTS`, or ``spoiled`` (`spoil_pixels`).
    """
    if name == "spoiled":
        spoil_pixels(image_njy, pixel_scale_arcsec, rng)
        return
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


def spoil_pixels(
    pixels_njy: NDArray[np.float32], scale_arcsec: float, rng: np.random.Generator, *, clear_arcsec: float = 0.0
) -> None:
    """
    Do to pixels, in place, what detectors do: a saturated star with its bleed and spikes, or pixels that are gone.

    ``pixels_njy`` is ``(band, y, x)``. Pixels that are gone read zero, as cutouts fill masked pixels. Star, trail and
    edge stay ``clear_arcsec`` away from the centre in x.
    """
    n_band, size, _ = pixels_njy.shape
    y, x = np.indices((size, size)) * scale_arcsec
    middle = (size - 1) / 2 * scale_arcsec
    x0 = middle + rng.choice([-1, 1]) * rng.uniform(clear_arcsec, max(0.6 * middle, clear_arcsec + 1.5))
    y0 = middle + rng.choice([-1, 1]) * rng.uniform(0, 0.6 * middle)
    kind = rng.choice(["star", "bleed", "edge", "band"], p=[0.4, 0.3, 0.2, 0.1])
    if kind in ("star", "bleed"):
        r2 = (x - x0) ** 2 + (y - y0) ** 2
        peak = 10 ** rng.uniform(4.5, 7) * scale_arcsec**2
        colour = np.power(10.0, rng.normal(0, 0.25, n_band))
        wings: NDArray[np.float64] = (1 + r2 / 0.36) ** -rng.uniform(1.6, 2.6)
        for dx, dy in ((x - x0, y - y0), (y - y0, x - x0)):
            wings += 0.003 * np.exp(-np.abs(dx) / 0.35) / (1 + np.abs(dy))
        pixels_njy += (peak * colour)[:, None, None].astype(np.float32) * wings.astype(np.float32)
        saturation = 10 ** rng.uniform(4.3, 5.5) * scale_arcsec**2
        np.minimum(pixels_njy, np.float32(saturation), out=pixels_njy)
        if kind == "bleed":
            half, reach = rng.uniform(0.1, 0.5), rng.uniform(2, 12)
            trail = (np.abs(x - x0) < half) & (np.abs(y - y0) < reach)
            for plane in pixels_njy:
                if rng.uniform() < 0.7:
                    plane[trail] = saturation * rng.choice([0.0, rng.uniform(0.1, 1.0), -0.02])
    elif kind == "edge":
        gone = (x > x0) if x0 > middle else (x < x0)
        if rng.uniform() < 0.5:
            gone = gone.T
        pixels_njy[:, gone] = 0
    else:
        gone = np.abs(x - x0) < rng.uniform(0.3, 1.5)
        pixels_njy[rng.integers(n_band)][gone] = 0
