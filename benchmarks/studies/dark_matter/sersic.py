"""
Smooth lenses with a Sérsic source and a Sérsic lens galaxy, fitted to many stamps at a time.

An isothermal sphere in shear, imaged through a Gaussian PSF; every parameter has a Gaussian prior, which a recipe's
ranges give. What a fit leaves of a stamp, in units of the noise, is noise and what is not smooth in the lens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.functional import avg_pool2d

NAMES = (
    *("theta_e_arcsec", "gamma1", "gamma2", "x_arcsec", "y_arcsec"),
    *("log_brightness", "log_radius", "log_n", "e1", "e2"),
    *("light_log_brightness", "light_log_radius", "light_log_n", "light_e1", "light_e2"),
)
"""The lens, its source (place, brightness at the effective radius, shape), the lens galaxy; e is (1-q^2)/(1+q^2)."""
N_ARC = 10
"""So many of them move the arcs; the others are the lens galaxy's."""
MASK_ARCSEC = 0.3
"""Radius of what is left out around the cusp of the lens galaxy, which coarse pixels sample badly."""
COARSE, N_START = 2, 3
"""Pixels that are averaged for the trials, and trials that are fitted."""
COARSE_STEPS, STEPS, KEPT = 8, 6, 3
"""Damped Gauss-Newton steps on coarse and on whole pixels; on these, slopes are kept for so many steps."""
COARSE_ERROR = 0.03
"""Relative error of the coarse images."""


class Pixels:
    """Pixels of a stamp, finer points inside them, and the PSF."""

    def __init__(self, size_px: int, pixel_scale_arcsec: float, fwhm_arcsec: float, finer: int) -> None:
        n, step = size_px * finer, pixel_scale_arcsec / finer
        axis = (torch.arange(n) - (n - 1) / 2) * step
        self.x, self.y = axis.expand(n, n), axis[:, None].expand(n, n)
        self.r = torch.sqrt(self.x**2 + self.y**2 + 1e-8)
        sigma = fwhm_arcsec / math.sqrt(8 * math.log(2)) / step
        blur = torch.exp(-0.5 * ((torch.arange(n)[:, None] - torch.arange(n)) / sigma) ** 2)
        self.blur = (blur / blur[n // 2].sum()).reshape(size_px, finer, n).mean(1)
        centres = self.r.reshape(size_px, finer, size_px, finer).mean((1, 3))
        self.kept = (centres > MASK_ARCSEC).float()

    def arcs(self, values: Tensor) -> Tensor:
        """Images of the source of the first `N_ARC` values."""
        theta, g1, g2, x, y = values[:5]
        bx = self.x * (1 - theta / self.r - g1) - g2 * self.y - x
        by = self.y * (1 - theta / self.r + g1) - g2 * self.x - y
        return self._seen(values[5:], bx, by)

    def light(self, values: Tensor) -> Tensor:
        """The lens galaxy of the other values."""
        return self._seen(values, self.x, self.y)

    def image(self, values: Tensor) -> Tensor:
        """Both."""
        return self.arcs(values[:N_ARC]) + self.light(values[N_ARC:])

    def _seen(self, shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
        brightness, radius, log_n, e1, e2 = shape
        m2 = ((1 - e1) * x * x - 2 * e2 * x * y + (1 + e1) * y * y) / torch.sqrt(1 - (e1 * e1 + e2 * e2).clamp(max=0.9))
        n = log_n.exp()
        b = 2 * n - 1 / 3 + 0.0099 / n  # Prugniel & Simien 1997, A&A 321, 111
        # the core softened by a hundredth of the radius: slopes are finite there
        profile = brightness.exp() * torch.exp(-b * ((m2 * torch.exp(-2 * radius) + 1e-4) ** (0.5 / n) - 1))
        return self.blur @ profile @ self.blur.T


def fitted(
    stamps: Tensor, sigma: Tensor, fine: Pixels, coarse: Pixels, mean: Tensor, width: Tensor
) -> tuple[Tensor, Tensor]:
    """
    The most probable smooth lens of each stamp, and what it leaves.

    Parameters
    ----------
    stamps, sigma : Tensor (n, y, x)
        Brightness and its noise, in one unit.
    fine, coarse : Pixels
        Those of the stamps, and of their means over `COARSE` pixels a side.
    mean, width : Tensor (parameter,)
        Priors, in the order of `NAMES`.

    Returns
    -------
    values : Tensor (n, parameter)
    left : Tensor (n, y, x)
        Stamp less model, in units of the noise; 0 within `MASK_ARCSEC`.
    """
    n = len(stamps)
    pooled = avg_pool2d(stamps[:, None], COARSE)[:, 0]
    error = avg_pool2d(sigma[:, None], COARSE)[:, 0] / COARSE
    weight = coarse.kept / torch.sqrt(error**2 + (COARSE_ERROR * pooled) ** 2)
    begun = _begun(pooled, coarse.kept / error, coarse, mean, width).flatten(0, 1)
    often = pooled.repeat_interleave(N_START, 0), weight.repeat_interleave(N_START, 0)
    found, cost, _ = _refined(*often, coarse, begun, mean, width)
    best = found.view(n, N_START, -1)[torch.arange(n), cost.view(n, N_START).argmin(1)]
    values, _, left = _refined(stamps, fine.kept / sigma, fine, best, mean, width, n_step=STEPS, kept=KEPT)
    return values, -left


def _begun(pooled: Tensor, weight: Tensor, coarse: Pixels, mean: Tensor, width: Tensor) -> Tensor:
    """The `N_START` best of trial places of the source and shears, amplitudes solved for ``(n, start, parameter)``."""
    reach = 2 * float(width[3])
    places = [(0.0, 0.0)] + [
        (reach * r * math.cos(k * math.pi / 4), reach * r * math.sin(k * math.pi / 4))
        for r in (0.17, 0.42, 0.67, 0.92)
        for k in range(8)
    ]
    trials = torch.stack(
        [
            mean + torch.zeros(len(NAMES)).index_put((torch.tensor([1, 3, 4]),), torch.tensor([shear, x, y]))
            for shear in (-1.2 * float(width[1]), 0.0, 1.2 * float(width[1]))
            for x, y in places
        ]
    )
    trials[:, [5, 10]] = 0.0
    shown = torch.stack([vmap(coarse.arcs)(trials[:, :N_ARC]), vmap(coarse.light)(trials[:, N_ARC:])], 1).flatten(2)
    w2, data = weight.flatten(1) ** 2, pooled.flatten(1)
    inner = torch.einsum("sap,np,sbp->nsab", shown, w2, shown)
    outer = torch.einsum("sap,np->nsa", shown, w2 * data)
    ridge = 1e-6 * inner.diagonal(dim1=2, dim2=3).mean(-1)[..., None, None] * torch.eye(2)
    size = torch.linalg.solve(inner + ridge, outer[..., None])[..., 0].clamp(min=1e-3 * float(data.abs().max()))
    gain = 2 * (size * outer).sum(-1) - torch.einsum("nsa,nsab,nsb->ns", size, inner, size)
    best = gain.topk(N_START, dim=1).indices
    begun = trials[best]
    begun[..., [5, 10]] = torch.gather(size, 1, best[..., None].expand(-1, -1, 2)).log()
    return begun


def _refined(
    data: Tensor,
    weight: Tensor,
    pixels: Pixels,
    values: Tensor,
    mean: Tensor,
    width: Tensor,
    *,
    n_step: int = COARSE_STEPS,
    kept: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, their cost and weighted model less data, after damped steps; each is taken where it is better."""
    seen = vmap(pixels.image)

    def cost_of(values: Tensor) -> tuple[Tensor, Tensor]:
        off = (seen(values) - data) * weight
        return off.flatten(1).square().sum(1) + ((values - mean) / width).square().sum(1), off

    cost, off = cost_of(values)
    damping = torch.full_like(cost, 1e-1 if kept == 1 else 1e-3)
    for step in range(n_step):
        if step % kept == 0:
            slopes = (_slopes(pixels, values, width) * weight[:, None]).flatten(2)
            inner = slopes @ slopes.transpose(1, 2) + torch.diag(width**-2)
        pull = (slopes @ off.flatten(1)[:, :, None])[:, :, 0] + (values - mean) / width**2
        stiff = inner + torch.diag_embed(damping[:, None] * inner.diagonal(dim1=1, dim2=2))
        trial = values - torch.linalg.solve(stiff.double(), pull.double()).float()
        new_cost, new_off = cost_of(trial)
        better = new_cost < cost
        values, off = torch.where(better[:, None], trial, values), torch.where(better[:, None, None], new_off, off)
        cost, damping = torch.where(better, new_cost, cost), torch.where(better, damping * 0.2, damping * 10)
    return values, cost, off


def _slopes(pixels: Pixels, values: Tensor, width: Tensor) -> Tensor:
    """Change of the image per parameter ``(n, parameter, y, x)``, by differences."""
    step = 0.01 * width.clamp(0.05, 0.3)
    moved = values[:, None] + torch.diag(step)

    def of(see: Callable[[Tensor], Tensor], own: slice) -> Tensor:
        here, n_own = vmap(see)(values[:, own]), own.stop - own.start
        there = vmap(see)(moved[:, own, own].reshape(-1, n_own))
        return there.view(len(values), n_own, *here.shape[1:]) - here[:, None]

    parts = of(pixels.arcs, slice(0, N_ARC)), of(pixels.light, slice(N_ARC, len(NAMES)))
    return torch.cat(parts, 1) / step[:, None, None]
