"""Damped Gauss-Newton steps of fits of smooth lenses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lenspipe.nn.sersic_image import CENTRE, CLUMP, N_ARC, NAMES, Pixels, of_light

if TYPE_CHECKING:
    from lenspipe.nn.sersic_lens import SersicFit


@dataclass(frozen=True, eq=False)
class Damped:
    """Damped Gauss-Newton steps of some stamps on some pixels; each is taken where it is better."""

    fit: SersicFit
    pixels: Pixels
    data: Tensor
    weight: Tensor
    free: Tensor
    """Which of the values are fitted."""
    mean: Tensor
    width: Tensor

    def __call__(self, values: Tensor, *, n_step: int, kept: int, damping: float) -> tuple[Tensor, Tensor, Tensor]:
        """Values, their cost and weighted model less data; slopes are kept for ``kept`` steps."""
        cost, off = self.cost(values)
        damped = torch.full_like(cost, damping)
        for step in range(n_step):
            if step % kept == 0:
                prior, slopes, inner = self.normal(values)
            pull = (slopes @ off.flatten(1)[:, :, None])[:, :, 0] + (values[:, self.free] - self.mean) * prior
            stiff = inner + torch.diag_embed(damped[:, None] * inner.diagonal(dim1=1, dim2=2))
            trial = values.clone()
            trial[:, self.free] -= torch.linalg.solve_ex(stiff.double(), pull.double())[0].float().nan_to_num()
            new_cost, new_off = self.cost(trial)
            better = new_cost < cost
            values, off = torch.where(better[:, None], trial, values), torch.where(better[:, None, None], new_off, off)
            cost, damped = torch.where(better, new_cost, cost), torch.where(better, damped * 0.2, damped * 10)
        return values, cost, off

    def cost(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Squares of what is left and of how far values lie from their means ``(n,)``, and weighted model less data."""
        off = (self.fit.image(self.pixels, values) - self.data) * self.weight
        unlike = ((values[:, self.free] - self.mean) / self.width).square().sum(1)
        return off.flatten(1).square().sum(1) + unlike, off

    def normal(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What priors weigh ``(n, free)``, weighted slopes ``(n, free, pixel)`` and the normal matrix."""
        free = self.free.tolist()
        arcs = [k for k in free if k < N_ARC]
        of_arcs = self.pixels.arc_slopes(values[:, :N_ARC], clumps_of(values), arcs)
        parts = [of_arcs[:, : len(arcs)]]
        if self.fit.priors.light:
            light = [k - N_ARC for k in free if N_ARC <= k < len(NAMES)]
            shared = [k for k in arcs if k in range(len(NAMES))[CENTRE]]
            places = [len(NAMES) - N_ARC + k - CENTRE.start for k in shared]
            shine = self.pixels.light_slopes(of_light(values), [*light, *places])
            for k, one in zip(shared, shine[:, len(light) :].unbind(1), strict=True):
                parts[0][:, arcs.index(k)] += one
            parts.append(shine[:, : len(light)])
        slopes = torch.cat([*parts, of_arcs[:, len(arcs) :]], 1) * self.weight[:, None]
        prior = self.width**-2
        slopes = slopes.flatten(2)
        return prior, slopes, slopes @ slopes.transpose(1, 2) + torch.diag_embed(prior)


def n_clump_of(values: Tensor) -> Tensor:
    """Clumps of values ``(n,)``."""
    return torch.isfinite(values[:, len(NAMES) :: len(CLUMP)]).sum(1)


def clumps_of(values: Tensor) -> Tensor | None:
    """Values of clumps ``(n, clump, parameter)``; None where there are none."""
    own = values[:, len(NAMES) :]
    return own.reshape(len(own), own.shape[1] // len(CLUMP), len(CLUMP)) if own.shape[1] else None
