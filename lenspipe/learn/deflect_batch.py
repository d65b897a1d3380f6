"""Copies of stamps whose light is bent a little more: the arcs of a lens as further, small masses would show them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

PLAIN, POINTS, LINE = 0, 1, 2
"""What a copy was bent by: nothing, a few point masses, a line of mass."""
N_MASS = 12
"""Most point masses, and those that a line is made of."""
STRETCH = (1.0, 4.0)
"""Range of the magnification along the arcs, by which a deflection becomes a displacement in the image."""


def displacements(
    stamps: Tensor, kinds: NDArray[np.integer], rng: np.random.Generator, *, radius_px: tuple[float, float]
) -> Tensor:
    """
    How far the light of each pixel is moved by small masses near the arcs, pixels ``(n, y, x, 2)``, x before y.

    Point masses of Einstein radii b_k bend by b_k² r / r², softened by half a pixel. To first order an image moves by
    the lens's magnification times that, which is taken as a factor along the arcs, drawn for each stamp from `STRETCH`,
    and as 1 towards the centre. Masses lie at pixels drawn by their light.

    Parameters
    ----------
    stamps : Tensor (n, band, y, x)
        Square; the lens at the centre.
    kinds : int array (n,)
        `PLAIN`, `POINTS`, or `LINE`.
    rng : numpy Generator
    radius_px : float, float
        Range of the Einstein radius of all masses of a stamp together; uniform in its logarithm.

    Returns
    -------
    Tensor (n, y, x, 2), float32
        On the device of the stamps.
    """
    n, _, side, _ = stamps.shape
    middle = (side - 1) / 2
    seeds = torch.Generator().manual_seed(int(rng.integers(0, 2**62)))
    light = stamps.sum(1).clamp(min=0).reshape(n, -1).cpu()
    # the light of noise is little beside that of arcs once it is squared
    drawn = torch.multinomial(light**2 + 1e-12 * (1 + (light**2).amax(1, keepdim=True)), N_MASS, generator=seeds)
    bright = np.stack([drawn.numpy() % side, drawn.numpy() // side], axis=-1) - middle
    radius = np.exp(rng.uniform(*np.log(radius_px), n))
    share = rng.dirichlet(np.ones(N_MASS), n) * (np.arange(N_MASS) < rng.integers(1, N_MASS + 1, (n, 1)))
    share /= share.sum(axis=1, keepdims=True)
    angle, length = rng.uniform(0, np.pi, n), rng.uniform(0.15, 0.5, n) * side
    along = (np.arange(N_MASS) / (N_MASS - 1) - 0.5) * length[:, None]
    line = bright[:, :1] + along[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]
    place = np.where((kinds == LINE)[:, None, None], line, bright)
    weight = np.where((kinds == LINE)[:, None], 1 / N_MASS, share) * (kinds != PLAIN)[:, None]
    stretch = np.exp(rng.uniform(*np.log(STRETCH), n))

    def here(values: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=stamps.device)

    at = torch.arange(side, dtype=torch.float32, device=stamps.device) - middle
    pixel = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1)
    apart = pixel - here(place)[:, :, None, None]
    bend = (here(weight)[:, :, None, None, None] * apart / ((apart**2).sum(-1, keepdim=True) + 0.25)).sum(1)
    bend *= here(radius**2)[:, None, None, None]
    outwards = functional.normalize(pixel, dim=-1)
    radial = (bend * outwards).sum(-1, keepdim=True) * outwards
    return radial + here(stretch)[:, None, None, None] * (bend - radial)


def bent(
    stamps: Tensor, kinds: NDArray[np.integer], rng: np.random.Generator, *, radius_px: tuple[float, float]
) -> Tensor:
    """
    Copies of stamps, each moved by a part of a pixel and with its light bent as its kind says.

    The plain ones are moved as well: what tells the others is how their arcs run, and not that they were interpolated.

    Parameters
    ----------
    stamps : Tensor (n, band, y, x), float32
        Surface brightness, which lenses keep.
    kinds, rng, radius_px
        As of `displacements`.

    Returns
    -------
    Tensor, same shape
        Bicubic; empty sky comes in at the edges.
    """
    side = stamps.shape[-1]
    shift = torch.as_tensor(rng.uniform(-0.5, 0.5, (len(stamps), 1, 1, 2)), dtype=torch.float32, device=stamps.device)
    at = torch.arange(side, dtype=torch.float32, device=stamps.device)
    pixel = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1)
    source = pixel - shift - displacements(stamps, kinds, rng, radius_px=radius_px)
    return functional.grid_sample(stamps, (source + 0.5) * (2 / side) - 1, mode="bicubic", align_corners=False)
