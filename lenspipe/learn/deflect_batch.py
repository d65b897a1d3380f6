"""Copies of stamps whose light is bent a little more: lenses as they would look with further small masses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lenspipe.nn.blur import blurred, gaussian_line

PLAIN, POINTS, LINE = 0, 1, 2
"""What a copy was bent by: nothing, a few point masses, a line of mass."""
N_MASS = 12
"""Most point masses, and those that a line is made of."""
SOFT_PX = 0.5
"""Length that softens a point mass."""
DAMPING = 0.04
"""Keeps displacements near the critical curve finite: at most 2.5 times the deflection."""
RADIUS_SCATTER = 0.1
"""How well the mean radius of the light is trusted as Einstein radius of the lens (of its logarithm)."""
FROM_SIGMA, TO_SIGMA = 4.0, 8.0
"""Smoothed light, in units of its noise, between which the bending grows from none to all of it."""
Floats = NDArray[np.floating]


def bent(
    stamps: Tensor,
    kinds: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    radius_px: tuple[float, float],
    noise: Sequence[float],
) -> Tensor:
    """
    Copies of stamps, each moved by a part of a pixel and with its light bent as its kind says.

    Masses lie where there is light, drawn by its square. The plain copies are moved as well, and where no light is seen
    above the noise (`lit`) the bent ones are only moved: there interpolation smooths the noise of both alike. Within
    the light it smooths that of plain copies evenly and that of bent ones by places, which tells them too.

    Parameters
    ----------
    stamps : Tensor (n, band, y, x), float32
        Surface brightness, which lenses keep; square, the lens at the centre.
    kinds : int array (n,)
        `PLAIN`, `POINTS`, or `LINE`.
    rng : numpy Generator
    radius_px : float, float
        Range of the Einstein radius of all small masses of a stamp together; uniform in its logarithm.
    noise : sequence of float, one per band
        Noise of a pixel, in the stamps' unit.

    Returns
    -------
    Tensor, same shape
        Bicubic; empty sky comes in at the edges.
    """
    n, _, side, _ = stamps.shape
    light = stamps.sum(1).clamp(min=0).square().cpu().reshape(n, -1).numpy().astype(np.float64)
    light += 1e-12 * (1e-30 + light.max(axis=1, keepdims=True))
    at = np.arange(side) - (side - 1) / 2
    pixel = np.stack(np.meshgrid(at, at), axis=-1)
    mean = (light * np.hypot(pixel[..., 0], pixel[..., 1]).ravel()).sum(axis=1) / light.sum(axis=1)
    lens = mean * np.exp(rng.normal(0, RADIUS_SCATTER, n))
    place, square = masses(light, pixel.reshape(-1, 2), kinds, rng, radius_px=radius_px)
    shift = rng.uniform(-0.5, 0.5, (n, 1, 1, 2))
    part = lit(stamps, noise, sigma_px=radius_px[1] / 2).cpu().numpy()[..., None]
    seen = pixel.astype(np.float32)
    seen = seen + part * (comes_from(pixel, lens, place, square) - seen) - np.float32(shift)
    grid = torch.from_numpy((seen + np.float32(side / 2)) * np.float32(2 / side) - np.float32(1)).to(stamps.device)
    return functional.grid_sample(stamps, grid, mode="bicubic", align_corners=False)


def lit(stamps: Tensor, noise: Sequence[float], *, sigma_px: float) -> Tensor:
    """
    Where the light of stamps is seen above the noise: 0 in empty sky, 1 on arcs and near them, smooth between.

    The light of all bands is smoothed by a Gaussian; from `FROM_SIGMA` times what noise without correlations leaves of
    itself to `TO_SIGMA` times, a cubic leads from 0 to 1.

    Parameters
    ----------
    stamps : Tensor (n, band, y, x)
        Surface brightness, its background subtracted.
    noise : sequence of float, one per band
        Noise of a pixel, in the stamps' unit; where all are 0, all light is seen.
    sigma_px : float
        Width of the Gaussian.

    Returns
    -------
    Tensor (n, y, x)
    """
    light = blurred(stamps.sum(1, keepdim=True), sigma_px)[:, 0]
    kept = float(gaussian_line(sigma_px, stamps).square().sum())  # of noise, by the line twice, each its root
    left = max(float(np.linalg.norm(noise)) * kept, 1e-30)
    part = ((light / left - FROM_SIGMA) / (TO_SIGMA - FROM_SIGMA)).clamp(0, 1)
    return part * part * (3 - 2 * part)


def masses(
    light: Floats,
    pixel: Floats,
    kinds: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    radius_px: tuple[float, float],
) -> tuple[Floats, Floats]:
    """
    Places ``(n, m, 2)`` of small masses, pixels from the centre, and the squares of their Einstein radii ``(n, m)``.

    Parameters
    ----------
    light : array (n, k)
        How likely a mass lies at each pixel, not normalised.
    pixel : array (k, 2)
        Places of the pixels, x before y.
    kinds, rng, radius_px
        As of `bent`.
    """
    n, reach = len(light), float(pixel.max()) * 2
    drawn = np.log(light) + rng.gumbel(size=light.shape)  # the largest are draws without replacement
    bright = pixel[np.argpartition(-drawn, N_MASS, axis=1)[:, :N_MASS]]
    first = pixel[drawn.argmax(axis=1)]
    share = rng.dirichlet(np.ones(N_MASS), n) * (np.arange(N_MASS) < rng.integers(1, N_MASS + 1, (n, 1)))
    angle, length = rng.uniform(0, np.pi, n), rng.uniform(0.15, 0.5, n) * reach
    along = (np.arange(N_MASS) / (N_MASS - 1) - 0.5) * length[:, None]
    line = first[:, None] + along[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]
    place = np.where((kinds == LINE)[:, None, None], line, bright)
    part = np.where((kinds == LINE)[:, None], 1 / N_MASS, share / share.sum(axis=1, keepdims=True))
    low, high = (float(np.log(radius)) for radius in radius_px)
    total = np.exp(rng.uniform(low, high, n)) ** 2 * (kinds != PLAIN)
    return place, part * total[:, None]


def comes_from(pixel: Floats, lens: Floats, place: Floats, square: Floats) -> NDArray[np.float32]:
    """
    Where the light of each pixel came from before there were small masses, pixels from the centre ``(n, y, x, 2)``.

    Small masses bend by a, a point mass of Einstein radius r by r² d / |d|², and so a pixel x shows the source a away
    from what it showed. With an isothermal sphere of Einstein radius R at the centre this is, to first order, what was
    seen a_t / m along the circle and a_r towards the centre, with m = 1 - R / |x|; m / (m² + `DAMPING`) stands for
    1 / m, which nothing of a real lens reaches.

    Parameters
    ----------
    pixel : array (y, x, 2)
        Places, x before y.
    lens : array (n,)
        R.
    place, square : arrays (n, m, 2), (n, m)
        As of `masses`.
    """
    x, ring = pixel.astype(np.float32), lens.astype(np.float32)[:, None, None, None]
    bend = np.zeros((len(lens), *x.shape), np.float32)
    for where, much in zip(place.astype(np.float32).swapaxes(0, 1), square.astype(np.float32).T, strict=True):
        apart = x - where[:, None, None]
        bend += much[:, None, None, None] * apart / ((apart**2).sum(-1, keepdims=True) + np.float32(SOFT_PX**2))
    outwards = x / np.maximum(np.hypot(x[..., :1], x[..., 1:]), 1e-6)
    stretch = 1 - ring / np.maximum(np.hypot(x[..., :1], x[..., 1:]), 1e-6)
    radial = (bend * outwards).sum(-1, keepdims=True) * outwards
    return x - radial - stretch / (stretch**2 + np.float32(DAMPING)) * (bend - radial)
