"""
An image minus what its other images say under a fitted smooth lens, as one more plane of a network's input.

Lensing keeps surface brightness: all images of one point of the source are equally bright. Images inside the critical
curve of a smooth lens are brought back to the source plane and seen again outside it, and the other way round; what is
left is noise, blur, and whatever is not smooth in the lens. No model of the source is needed.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

COARSE, STEPS = 10, (5, 3)
"""Trial Einstein radii, and Gauss-Newton steps of the fit on coarse pixels and on all of them."""
LEAST, MOST, MOST_SHEAR = 0.15, 0.8, 0.4
"""Einstein radii that are looked at, in units of half the side, and the largest shear."""
FIT_PX = 28
"""Coarse pixels are added up to about this many a side."""
BATCH = 16
"""Stamps that are fitted together outside of trainings."""
SHEARS = ((0.0, 0.0), (0.12, 0.0), (-0.12, 0.0), (0.0, 0.12), (0.0, -0.12))
"""Shears that are tried with every radius."""


def fit_smooth(brightness: Tensor) -> Tensor:
    """
    The isothermal sphere in shear that makes the images of each stamp most alike.

    Einstein radius and shear minimise, over all bands, the squared difference between images plus the squared
    brightness where there is no other image: first over a range of radii and shears, then by damped Gauss-Newton steps,
    each kept where it is better. The lens lies at the centre of the stamp, and its ellipticity goes into the shear.

    Parameters
    ----------
    brightness : Tensor (n, band, y, x)
        Background-subtracted and square, in any unit.

    Returns
    -------
    Tensor (n, 3)
        Einstein radius in units of half the side, and the two components of the shear.
    """
    pooled = max(1, brightness.shape[-1] // FIT_PX)
    coarse = avg_pool2d(brightness, pooled)
    radii = [LEAST + (MOST - LEAST) * k / (COARSE - 1) for k in range(COARSE)]
    trials = brightness.new_tensor([(radius, *shear) for radius in radii for shear in SHEARS])
    costs = torch.stack([_left_by(coarse, lens.expand(len(coarse), 3))[1] for lens in trials])
    lens = _refined(coarse, trials[costs.argmin(dim=0)], STEPS[0])
    return _refined(brightness, lens, STEPS[1]) if pooled > 1 else lens


def _left_by(brightness: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    left = _left(brightness, lens)[0].flatten(1)
    return left, left.square().sum(1)


def _refined(brightness: Tensor, lens: Tensor, n_step: int) -> Tensor:
    left, cost = _left_by(brightness, lens)
    damping = torch.full_like(cost, 0.03)
    moves = torch.diag(lens.new_tensor([4e-3, 8e-3, 8e-3]))
    for _ in range(n_step):
        slopes = [
            (_left_by(brightness, lens + move)[0] - _left_by(brightness, lens - move)[0]) / (2 * move.sum())
            for move in moves
        ]
        jacobian = torch.stack(slopes, dim=1)
        inner = jacobian @ jacobian.transpose(1, 2)
        inner = inner + torch.diag_embed(damping[:, None] * inner.diagonal(dim1=1, dim2=2) + 1e-12 * cost[:, None])
        change = torch.linalg.solve_ex(inner, jacobian @ left[:, :, None])[0][:, :, 0]
        trial = _allowed(lens - change.nan_to_num(0.0))
        new_left, new_cost = _left_by(brightness, trial)
        better = new_cost < cost
        lens, left = (torch.where(better[:, None], new, old) for new, old in ((trial, lens), (new_left, left)))
        cost, damping = torch.where(better, new_cost, cost), torch.where(better, damping * 0.3, damping * 8)
    return lens


def smooth_residual(brightness: Tensor, lens: Tensor | None = None) -> Tensor:
    """
    Stamps minus what their other images say under a smooth lens, the fitted one where none is given.

    Turned and mirrored stamps give turned and mirrored planes.

    Parameters
    ----------
    brightness : Tensor (n, band, y, x)
        Background-subtracted and square, in any unit.
    lens : Tensor (n, 3), optional
        As `fit_smooth` gives it.

    Returns
    -------
    Tensor, same shape
        In the unit of the stamps; 0 where there is no other image.
    """
    left, seen = _left(brightness, fit_smooth(brightness) if lens is None else lens)
    return torch.where(seen, left, torch.zeros_like(left))


def with_residual(brightness: NDArray[np.floating]) -> NDArray[np.float32]:
    """
    Stamps ``(..., band, y, x)`` followed along the axis of bands by their `smooth_residual`.

    Fitted in batches of one size, the last filled up, so that no stamp's numbers hang on how many there are.
    """
    stamps = np.ascontiguousarray(brightness, np.float32).reshape(-1, *brightness.shape[-3:])
    residual = np.empty_like(stamps)
    with torch.inference_mode():
        for start in range(0, len(stamps), BATCH):
            some = stamps[start : start + BATCH]
            batch = np.zeros((BATCH, *stamps.shape[1:]), np.float32)
            batch[: len(some)] = some
            residual[start : start + BATCH] = smooth_residual(torch.from_numpy(batch)).numpy()[: len(some)]
    whole = np.concatenate([stamps, residual], axis=1)
    return whole.reshape(*brightness.shape[:-3], *whole.shape[1:])


def _allowed(lens: Tensor) -> Tensor:
    size = lens[:, 1:].norm(dim=1, keepdim=True)
    shear = lens[:, 1:] * (MOST_SHEAR / size.clamp(min=MOST_SHEAR))
    return torch.cat([lens[:, :1].clamp(LEAST / 2, MOST), shear], dim=1)


def _left(brightness: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of the images, all of them where there is no other, and where there is one ``(n, 1, y, x)``."""
    side = brightness.shape[-1]
    axis = (torch.arange(side, dtype=brightness.dtype, device=brightness.device) - (side - 1) / 2) * (2 / side)
    x, y = axis[None, None, :], axis[None, :, None]
    r = torch.sqrt(x * x + y * y).clamp(min=1 / side)
    theta, g1, g2 = (lens[:, k, None, None] for k in range(3))
    ux, uy = x / r, y / r
    places = torch.stack([x - theta * ux - g1 * x - g2 * y, y - theta * uy - g2 * x + g1 * y], dim=-1)
    bend = theta / r
    outside = ((1 - g1 - bend * uy * uy) * (1 + g1 - bend * ux * ux) - (bend * ux * uy - g2) ** 2) > 0
    said, weight = torch.zeros_like(brightness), torch.zeros_like(brightness[:, :1])
    for own in (outside, ~outside):
        light, covered = _source(brightness * own[:, None], own[:, None].to(brightness), places)
        other = ~own[:, None]
        there = grid_sample(torch.cat([light, covered], dim=1), places, align_corners=False)
        said = said + there[:, :-1] * other
        weight = weight + there[:, -1:] * other
    seen = weight > 0.05
    return torch.where(seen, brightness - said / weight.clamp(min=0.05), brightness), seen


def _source(light: Tensor, weight: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels brought to their places on the source plane, and how much of them lies there, on the stamp's grid."""
    n, n_band, side, _ = light.shape
    at = (places + 1) * (side / 2) - 0.5
    low = at.floor()
    part = at - low
    values = torch.cat([light, weight], dim=1).flatten(2)
    out = torch.zeros(n, n_band + 1, side * side, dtype=light.dtype, device=light.device)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = low[..., 0] + dx, low[..., 1] + dy
            share = (part[..., 0] if dx else 1 - part[..., 0]) * (part[..., 1] if dy else 1 - part[..., 1])
            share = share * ((column >= 0) & (column < side) & (row >= 0) & (row < side))
            cell = (row.clamp(0, side - 1) * side + column.clamp(0, side - 1)).long().flatten(1)
            out.scatter_add_(2, cell[:, None].expand(-1, n_band + 1, -1), values * share.flatten(1)[:, None])
    # images inside are small, and leave cells of the source plane empty: each is filled from its neighbours
    spread = avg_pool2d(out.view(n, n_band + 1, side, side), 3, stride=1, padding=1)
    return spread[:, :-1], spread[:, -1:]
