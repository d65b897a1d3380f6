"""Augmentation of a batch on its device: views, shifts, zoom, shear, PSF, noise, background and gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenspipe.learn.settings import AugmentSettings

NONE = AugmentSettings(
    dihedral=False, affine_fraction=0, noise_fraction=0, blur_fraction=0, background=0, gap_fraction=0
)
"""Leaves stamps as they are."""
VIEWS_ONLY = NONE.model_copy(update={"dihedral": True})
"""Turns and mirrors them, exactly, and nothing else."""


def augment_batch(
    stamps: Tensor, settings: AugmentSettings, rng: np.random.Generator, *, noise_levels: Sequence[float]
) -> Tensor:
    """
    Augmented copy of a batch of surface brightness, before the stretch.

    In this order: one of the eight views, and factors on all bands and on each; for a part of the stamps one affine map
    about the centre (shift, zoom, shear; bilinear, empty sky outside) and a Gaussian blur, alike in all bands; then a
    constant for each band, noise, and a gap of zeros in all bands. The map keeps surface brightness, as a magnified
    image of the sky does. ``zoom`` is the part of the side that is seen, as in Keras: 0.75 enlarges by 4/3.

    Every draw comes from ``rng``; the noise of the pixels from a generator on the device, seeded by it.

    Parameters
    ----------
    stamps : Tensor (n, band, y, x), float32
        Surface brightness, square.
    settings : AugmentSettings
    rng : numpy Generator
        The same generator gives the same batch on the same kind of device.
    noise_levels : sequence of float, one a band
        Noise of a pixel in the data, in the stamps' unit.

    Returns
    -------
    Tensor, same shape
    """
    n, n_band, side, _ = stamps.shape
    device = stamps.device
    levels = torch.tensor(list(noise_levels), dtype=torch.float32, device=device)[None, :, None, None]
    views = rng.integers(0, 8, n)
    moved = np.flatnonzero(rng.uniform(size=n) < settings.affine_fraction)
    maps = affine_maps(settings, rng, n)[moved]
    blurred = np.flatnonzero(rng.uniform(size=n) < settings.blur_fraction)
    sigmas = rng.uniform(0.0, 1.0, n)[blurred] * settings.blur_px
    constants = rng.standard_normal((n, n_band)) * settings.background
    gains = 10 ** (
        rng.standard_normal((n, 1)) * settings.brightness + rng.standard_normal((n, n_band)) * settings.band_brightness
    )
    low, high = np.log(np.maximum(settings.noise, 1e-12))
    noise = np.where(rng.uniform(size=n) < settings.noise_fraction, np.exp(rng.uniform(low, high, n)), 0.0)
    gaps = gap_windows(settings, rng, n, side)
    seed = int(rng.integers(0, 2**62))

    out = turn(stamps, views) if settings.dihedral else stamps.clone()
    if settings.brightness > 0 or settings.band_brightness > 0:
        out = out * torch.as_tensor(gains, dtype=torch.float32, device=device)[:, :, None, None]
    if len(moved):
        rows = torch.as_tensor(moved, device=device)
        theta = torch.as_tensor(maps, dtype=torch.float32, device=device)
        grid = torch.nn.functional.affine_grid(theta, [len(moved), n_band, side, side], align_corners=False)
        out[rows] = torch.nn.functional.grid_sample(out[rows], grid, mode="bilinear", align_corners=False)
    if len(blurred):
        rows = torch.as_tensor(blurred, device=device)
        lines = blur_lines(torch.as_tensor(sigmas, dtype=torch.float32, device=device), side)
        out[rows] = lines @ out[rows] @ lines
    if settings.background > 0:
        out = out + torch.as_tensor(constants, dtype=torch.float32, device=device)[:, :, None, None] * levels
    if (noise > 0).any():
        generator = torch.Generator(device=device).manual_seed(seed)
        rows = torch.as_tensor(np.flatnonzero(noise > 0), device=device)
        grain = torch.randn((len(rows), n_band, side, side), generator=generator, device=device)
        amount = torch.as_tensor(noise[noise > 0], dtype=torch.float32, device=device)[:, None, None, None]
        out[rows] += grain * amount * levels
    for row, (axis, start, stop) in gaps.items():
        window = (
            (row, slice(None), slice(start, stop)) if axis == 0 else (row, slice(None), slice(None), slice(start, stop))
        )
        out[window] = 0.0
    return out


def only_views(settings: AugmentSettings) -> bool:
    """Whether stamps are turned and mirrored at most."""
    shares = ("affine_fraction", "noise_fraction", "blur_fraction", "gap_fraction")
    return not any(getattr(settings, name) for name in (*shares, "background", "brightness", "band_brightness"))


def turn(stamps: Tensor, views: NDArray[np.integer]) -> Tensor:
    """Views 0 to 7 of square stamps: quarter turns, the last four mirrored; exact copies of the pixels."""
    out = torch.empty_like(stamps)
    for view in range(8):
        rows = torch.as_tensor(np.flatnonzero(views == view), device=stamps.device)
        if len(rows):
            turned = torch.rot90(stamps[rows], view % 4, dims=(-2, -1))
            out[rows] = turned.flip(-1) if view >= 4 else turned
    return out


def affine_maps(settings: AugmentSettings, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """
    Maps ``(n, 2, 3)`` from output to input coordinates, the stamp from -1 to 1 along x and y.

    Zoom times a shear along x, after which the centre moves by the shift.
    """
    zoom = rng.uniform(settings.zoom_min, 1.0, n)
    shear = rng.uniform(-settings.shear, settings.shear, n)
    shift = rng.uniform(-settings.shift, settings.shift, (n, 2)) * 2.0  # the side is 2 in these coordinates
    maps = np.zeros((n, 2, 3))
    maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 1] = zoom, zoom * shear, zoom
    maps[:, :, 2] = shift
    return maps


def gap_windows(
    settings: AugmentSettings, rng: np.random.Generator, n: int, side: int
) -> dict[int, tuple[int, int, int]]:
    """Gaps by row: axis (0 for rows of pixels, 1 for columns), first pixel, end."""
    chosen = rng.uniform(size=n) < settings.gap_fraction
    axes = rng.integers(0, 2, n)
    widths = np.maximum(1, np.rint(rng.uniform(0, settings.gap, n) * side)).astype(int)
    starts = np.floor(rng.uniform(0, 1, n) * (side - widths + 1)).astype(int)
    return {int(i): (int(axes[i]), int(starts[i]), int(starts[i] + widths[i])) for i in np.flatnonzero(chosen)}


def blur_lines(sigma_px: Tensor, side: int) -> Tensor:
    """Symmetric matrices ``(n, 1, side, side)`` of Gaussians of unit sum along one axis; dark outside."""
    sigma = sigma_px.clamp(min=0.05)[:, None, None, None]
    at = torch.arange(side, dtype=torch.float32, device=sigma.device)
    reach = torch.arange(-side, side + 1, dtype=torch.float32, device=sigma.device)
    line = torch.exp(-0.5 * ((at[:, None] - at[None, :]) / sigma) ** 2)
    return line / torch.exp(-0.5 * (reach / sigma) ** 2).sum(dim=-1, keepdim=True)
