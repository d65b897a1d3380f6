"""A fixed set of statistics of stamps, which no network chose: profiles, colours, noise and shape."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.robust import robust_sigma

RINGS_ARCSEC = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.5)
"""Edges of the rings of the profile; the last ring that fits the stamp is where the noise is measured."""
GROUPS = ("profile", "colours", "noise", "shape")
"""What the statistics are about; each name begins with one of these words."""


def image_statistics(
    stamps_njy: NDArray[np.floating], *, bands: Sequence[str], pixel_scale_arcsec: float
) -> tuple[NDArray[np.float64], list[str]]:
    """
    Statistics of stamps, each by itself.

    - profile: arcsinh of the mean of each ring, in units of the noise of a pixel, and the spread within the ring;
    - colours: difference of arcsinh means between neighbouring bands, ring by ring;
    - noise: its level (logarithm), and how pixels outside of all rings but the last correlate with their neighbours;
    - shape: asymmetry under half a turn, Gini coefficient (Lotz, Primack & Madau 2004, AJ 128, 163), and the light
      within 1" over that within 2.5".

    Parameters
    ----------
    stamps_njy : array (n, band, y, x)
        Sky subtracted, square, the source in the middle; exact zeros have no data.
    bands : sequence of str
    pixel_scale_arcsec : float

    Returns
    -------
    values : float64 array (n, k)
        Finite.
    names : list of str

    Examples
    --------
    >>> values, names = image_statistics(np.random.default_rng(1).normal(size=(2, 1, 33, 33)), bands=("r",),
    ...                                  pixel_scale_arcsec=0.3)
    >>> values.shape == (2, len(names)), sorted({name.split()[0] for name in names})
    (True, ['noise', 'profile', 'shape'])
    """
    n, n_band, side, _ = stamps_njy.shape
    axis = (np.arange(side) - (side - 1) / 2) * pixel_scale_arcsec
    radius = np.hypot(axis[:, None], axis[None, :])
    edges = [e for e in RINGS_ARCSEC if e < axis[-1]]
    rings = [(radius >= low) & (radius < high) for low, high in itertools.pairwise(edges)]
    rings = [ring for ring in rings if ring.any()]
    outside = radius >= edges[-1]
    if outside.sum() < 30:
        outside = radius >= edges[-2]
    stamps = np.asarray(stamps_njy, np.float64)
    noise = np.maximum(robust_sigma(stamps[:, :, outside], 2), 1e-12)
    columns: dict[str, NDArray[np.float64]] = {}
    means = np.empty((n, n_band, len(rings)))
    for k, ring in enumerate(rings):
        inside = stamps[:, :, ring]
        means[:, :, k] = np.arcsinh(inside.mean(axis=2) / noise)
        for b, band in enumerate(bands):
            columns[f"profile {band} ring {k}"] = means[:, b, k]
            if ring.sum() > 3:
                columns[f"profile {band} spread {k}"] = np.arcsinh(inside[:, b].std(axis=1) / noise[:, b])
    for b, (one, two) in enumerate(itertools.pairwise(bands)):
        for k in range(len(rings)):
            columns[f"colours {one}-{two} ring {k}"] = means[:, b, k] - means[:, b + 1, k]
    for b, band in enumerate(bands):
        plane = np.clip(stamps[:, b] / noise[:, b, None, None], -5, 5)
        columns[f"noise {band} level"] = np.log(noise[:, b])
        for name, (dy, dx) in {"along x": (0, 1), "along y": (1, 0), "diagonal": (1, 1), "two along x": (0, 2)}.items():
            both = outside[dy:, dx:] & outside[: side - dy, : side - dx]
            product = plane[:, dy:, dx:] * plane[:, : side - dy, : side - dx]
            columns[f"noise {band} {name}"] = product[:, both].mean(axis=1)
        columns[f"noise {band} tail"] = (np.abs(plane[:, outside]) > 2.5).mean(axis=1)
        columns |= {f"shape {band} {name}": v for name, v in _shape(stamps[:, b], radius, noise[:, b]).items()}
    return np.stack(list(columns.values()), axis=1), list(columns)


def _shape(
    plane: NDArray[np.float64], radius: NDArray[np.float64], noise: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    inner = radius < 2.5
    light = plane[:, inner]
    turned = plane[:, ::-1, ::-1][:, inner]
    total = np.maximum(light.sum(axis=1), noise * np.sqrt(inner.sum()))
    ranked = np.sort(np.abs(light), axis=1)
    m = ranked.shape[1]
    weights = 2 * np.arange(1, m + 1) - m - 1
    gini = (ranked * weights).sum(axis=1) / np.maximum(ranked.mean(axis=1) * m * (m - 1), 1e-12)
    return {
        "asymmetry": np.abs(light - turned).sum(axis=1) / np.maximum(np.abs(light).sum(axis=1), 1e-12),
        "gini": gini,
        "concentration": np.clip(plane[:, radius < 1.0].sum(axis=1) / total, -2, 2),
    }
