"""
Smooth lenses with a Sérsic source, fitted to many stamps at a time, and what they leave.

An isothermal ellipsoid in shear images a Sérsic source, beside a Sérsic lens galaxy where there is one, through a
Gaussian PSF. Every parameter has a Gaussian prior. What a fit leaves of a stamp, in units of the noise, is noise and
what is not smooth in lens and source.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.functional import avg_pool2d, pad

from lenspipe.errors import ConfigError

NAMES = (
    *("theta_e_arcsec", "lens_e1", "lens_e2", "gamma1", "gamma2", "x_arcsec", "y_arcsec"),
    *("log_brightness", "log_radius", "log_n", "e1", "e2", "centre_x_arcsec", "centre_y_arcsec"),
    *("light_log_brightness", "light_log_radius", "light_log_n", "light_e1", "light_e2"),
)
"""
Einstein radius, ellipticity and shear of the lens; place seen from the lens, brightness at the effective radius,
effective radius, Sérsic index and ellipticity of the source; place of the lens and of its light, from the middle of the
stamp; brightness to ellipticity of the lens galaxy. Lengths are in arcsec, logarithms natural, ellipticities
``(1 - q^2) / (1 + q^2)`` times cosine and sine of twice the angle from +x to +y.
"""
N_ARC = 14
"""So many of them move the arcs; the others are the lens galaxy's, as is `CENTRE`."""
CENTRE = slice(N_ARC - 2, N_ARC)
"""Those of the place, which mass and light share: mass that may lie elsewhere takes up what substructure does."""
COARSE, N_START = 2, 3
"""Pixels a side that are averaged for the trials, and trials that are fitted."""
COARSE_STEPS, STEPS, KEPT = 8, 6, 3
"""Damped Gauss-Newton steps on coarse and on whole pixels; on these, slopes are kept for so many steps."""
COARSE_ERROR = 0.03
"""Relative error of the coarse images."""
REACH = 1.2
"""Of the PSF, over its FWHM: a thousandth of a line's light comes from further away."""


@dataclass(frozen=True, eq=False)
class Priors:
    """What is known of the parameters before a stamp is seen."""

    mean: Tensor
    """``(parameter,)``, in the order of `NAMES`."""
    width: Tensor
    """Standard deviations; a parameter of width 0 is fixed."""
    light: bool = True
    """Whether the lens galaxy shines."""

    def __post_init__(self) -> None:
        if (
            self.mean.shape != (len(NAMES),)
            or self.width.shape != (len(NAMES),)
            or not (torch.isfinite(self.mean) & torch.isfinite(self.width) & (self.width >= 0)).all()
        ):
            raise ConfigError(
                "priors need a finite mean and a finite width from 0 on for each parameter", parameters=",".join(NAMES)
            )

    def free(self, own: slice) -> Tensor:
        """Places of the parameters of a part that are fitted, counted from its start."""
        return torch.nonzero(self.width[own] > 0)[:, 0]


class Pixels:
    """
    Pixels of square stamps, finer points inside them, and the PSF.

    Parameters
    ----------
    size_px : int
    pixel_scale_arcsec, fwhm_arcsec : float
        FWHM of the Gaussian PSF.
    finer : int
        Points per pixel and axis.
    mask_arcsec : float
        Radius of what is left out around the cusp of a lens galaxy, which coarse points sample badly.
    shift_px : float
        Of the middle of the pixels from the centre of the lens, in pixels.
    beyond_px : int
        Pixels beyond each edge whose light the PSF brings in; 0: all is dark there.
    """

    def __init__(
        self,
        size_px: int,
        pixel_scale_arcsec: float,
        fwhm_arcsec: float,
        *,
        finer: int,
        mask_arcsec: float,
        shift_px: float = 0.0,
        beyond_px: int = 0,
    ) -> None:
        n, step = (size_px + 2 * beyond_px) * finer, pixel_scale_arcsec / finer
        inside = slice(beyond_px * finer, (beyond_px + size_px) * finer)
        axis = (torch.arange(n) - (n - 1) / 2) * step + shift_px * pixel_scale_arcsec
        self.x, self.y = axis.expand(n, n), axis[:, None].expand(n, n)
        sigma = fwhm_arcsec / math.sqrt(8 * math.log(2)) / step
        blur = torch.exp(-0.5 * ((torch.arange(n)[:, None] - torch.arange(n)) / sigma) ** 2)
        self.blur = (blur / blur[n // 2].sum())[inside].reshape(size_px, finer, n).mean(1)
        centres = torch.hypot(self.x, self.y)[inside, inside].reshape(size_px, finer, size_px, finer).mean((1, 3))
        self.kept = (centres > mask_arcsec).float()

    def arcs(self, values: Tensor) -> Tensor:
        """Images ``(y, x)`` of the source, of the first `N_ARC` values."""
        theta, e1, e2, g1, g2, x, y = values[:7]
        px, py = self.x - values[12], self.y - values[13]
        # Kormann, Schneider & Bartelmann 1994, A&A 284, 285, with theta_E on the intermediate axis
        e = torch.sqrt(e1 * e1 + e2 * e2).clamp(max=0.95)
        q = torch.sqrt((1 - e) / (1 + e))
        angle = 0.5 * torch.atan2(e2, e1)
        c, s = torch.cos(angle), torch.sin(angle)
        along, across = c * px + s * py, c * py - s * px
        flat = torch.sqrt(1 - q * q).clamp(min=1e-3)
        size = torch.sqrt(q * q * along**2 + across**2 + 1e-8)
        bend = theta * torch.sqrt(q) / flat
        u, v = bend * torch.atan(flat * along / size), bend * torch.atanh(flat * across / size)
        bx = px - (c * u - s * v) - g1 * px - g2 * py - x
        by = py - (s * u + c * v) + g1 * py - g2 * px - y
        return self._seen(values[7:12], bx, by)

    def light(self, values: Tensor) -> Tensor:
        """The lens galaxy ``(y, x)``, of the other values and those of `CENTRE`."""
        return self._seen(values[:5], self.x - values[5], self.y - values[6])

    def _seen(self, shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
        brightness, radius, log_n, e1, e2 = shape
        m2 = ((1 - e1) * x * x - 2 * e2 * x * y + (1 + e1) * y * y) / torch.sqrt(1 - (e1 * e1 + e2 * e2).clamp(max=0.9))
        n = log_n.exp()
        b = 2 * n - 1 / 3 + 0.0099 / n  # Prugniel & Simien 1997, A&A 321, 111
        # the core softened by a hundredth of the radius: slopes are finite there
        profile = brightness.exp() * torch.exp(-b * ((m2 * torch.exp(-2 * radius) + 1e-4) ** (0.5 / n) - 1))
        return self.blur @ profile @ self.blur.T


@dataclass(frozen=True, eq=False)
class SersicFit:
    """The fit for stamps of one size, scale, PSF and population."""

    fine: Pixels
    """The stamps' own."""
    coarse: Pixels
    """Means over `COARSE` pixels a side."""
    priors: Priors

    @classmethod
    def of(
        cls,
        size_px: int,
        pixel_scale_arcsec: float,
        fwhm_arcsec: float,
        priors: Priors,
        *,
        finer: int = 2,
        lit_beyond: bool = False,
    ) -> SersicFit:
        """
        A fit; a side that is odd gets a row and a column that count for nothing on coarse pixels.

        Around a lens galaxy that shines 1.25 times the FWHM are left out. With ``lit_beyond`` the PSF brings light from
        outside the stamps, as in those that are cut from a larger image; simulated ones are dark there.

        Raises
        ------
        ConfigError
            What is not left out is less than there are parameters.
        """
        mask = 1.25 * fwhm_arcsec if priors.light else -1.0
        odd = size_px % COARSE
        n, scale = (size_px + odd) // COARSE, COARSE * pixel_scale_arcsec
        beyond, of_coarse = (
            math.ceil(REACH * fwhm_arcsec / one) if lit_beyond else 0 for one in (pixel_scale_arcsec, scale)
        )
        fine = Pixels(size_px, pixel_scale_arcsec, fwhm_arcsec, finer=finer, mask_arcsec=mask, beyond_px=beyond)
        coarse = Pixels(
            n,
            scale,
            fwhm_arcsec,
            finer=max(1, finer // 2),
            mask_arcsec=mask,
            shift_px=odd / 2 / COARSE,
            beyond_px=of_coarse,
        )
        if odd:
            coarse.kept[-1] = coarse.kept[:, -1] = 0
        if coarse.kept.sum() < len(NAMES):
            raise ConfigError(
                "the stamps are too small for a fit, or the PSF too wide",
                size_px=size_px,
                pixel_scale_arcsec=pixel_scale_arcsec,
                fwhm_arcsec=fwhm_arcsec,
            )
        return cls(fine, coarse, priors)

    def __call__(self, stamps: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """
        The most probable smooth lens of each stamp, and what it leaves.

        Parameters
        ----------
        stamps, sigma : Tensor (n, y, x)
            Brightness of a pixel and its noise, in one unit.

        Returns
        -------
        values : Tensor (n, parameter)
            In the order of `NAMES`; brightness in the unit of the stamps.
        left : Tensor (n, y, x)
            Stamp less model, in units of the noise; 0 where the middle is left out.
        """
        n, odd = len(stamps), stamps.shape[-1] % COARSE
        pooled = avg_pool2d(pad(stamps[:, None], (0, odd, 0, odd)), COARSE)[:, 0]
        error = avg_pool2d(pad(sigma[:, None], (0, odd, 0, odd), value=1.0), COARSE)[:, 0] / COARSE
        weight = self.coarse.kept / torch.sqrt(error**2 + (COARSE_ERROR * pooled) ** 2)
        begun = self._begun(pooled, self.coarse.kept / error).flatten(0, 1)
        often = pooled.repeat_interleave(N_START, 0), weight.repeat_interleave(N_START, 0)
        found, cost, _ = self._refined(self.coarse, *often, begun, n_step=COARSE_STEPS, kept=1, damping=0.1)
        best = found.view(n, N_START, -1)[torch.arange(n), cost.view(n, N_START).argmin(1)]
        weight = self.fine.kept / sigma
        values, _, left = self._refined(self.fine, stamps, weight, best, n_step=STEPS, kept=KEPT, damping=1e-3)
        return values, -left

    def image(self, pixels: Pixels, values: Tensor) -> Tensor:
        """Model images ``(n, y, x)`` of values ``(n, parameter)``."""
        arcs = vmap(pixels.arcs)(values[:, :N_ARC])
        return arcs + vmap(pixels.light)(_of_light(values)) if self.priors.light else arcs

    def _begun(self, pooled: Tensor, weight: Tensor) -> Tensor:
        """The `N_START` best of trial places of the source and shears, brightness solved for."""
        mean, width = self.priors.mean, self.priors.width
        at = {name: k for k, name in enumerate(NAMES)}
        trials = []
        shears = [("gamma1", 0.0), ("gamma1", 1.2), ("gamma1", -1.2), ("gamma2", 1.2), ("gamma2", -1.2)]
        radii = (-1.0, 0.0, 1.0, 2.0) if width[at["theta_e_arcsec"]] > 0 else (0.0,)
        for (gamma, sign), larger in product(shears, radii):
            for r, k in [(0.0, 0)] + [(r, k) for r in (0.34, 0.84, 1.34, 1.84) for k in range(8)]:
                trial = mean.clone()
                trial[at["theta_e_arcsec"]] += larger * width[at["theta_e_arcsec"]]
                trial[at[gamma]] += sign * width[at[gamma]]
                trial[at["x_arcsec"]] += r * width[at["x_arcsec"]] * math.cos(k * math.pi / 4)
                trial[at["y_arcsec"]] += r * width[at["y_arcsec"]] * math.sin(k * math.pi / 4)
                trials.append(trial)
        tried = torch.stack(trials)
        sizes = [at["log_brightness"]] + [at["light_log_brightness"]] * self.priors.light
        tried[:, sizes] = 0.0
        shown = [vmap(self.coarse.arcs)(tried[:, :N_ARC])]
        if self.priors.light:
            shown.append(vmap(self.coarse.light)(_of_light(tried)))
        parts = torch.stack(shown, 1).flatten(2)
        w2, data = weight.flatten(1) ** 2, pooled.flatten(1)
        inner = torch.einsum("sap,np,sbp->nsab", parts, w2, parts)
        outer = torch.einsum("sap,np->nsa", parts, w2 * data)
        ridge = 1e-6 * inner.diagonal(dim1=2, dim2=3).mean(-1)[..., None, None] * torch.eye(len(sizes))
        least = 1e-3 * data.abs().amax(1)[:, None, None] + 1e-30
        solved = torch.linalg.solve_ex(inner + ridge, outer[..., None])[0][..., 0]  # no solution: images outside
        size = torch.maximum(solved.nan_to_num(0.0, 0.0, 0.0), least)
        gain = 2 * (size * outer).sum(-1) - torch.einsum("nsa,nsab,nsb->ns", size, inner, size)
        best = gain.topk(N_START, dim=1).indices
        begun = tried[best]
        begun[..., sizes] = torch.gather(size, 1, best[..., None].expand(-1, -1, len(sizes))).log()
        return torch.where(width > 0, begun, mean)

    def _refined(
        self, pixels: Pixels, data: Tensor, weight: Tensor, values: Tensor, *, n_step: int, kept: int, damping: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values, their cost and weighted model less data, after damped steps; each is taken where it is better."""
        free = self.priors.free(slice(0, len(NAMES) if self.priors.light else N_ARC))
        mean, width = self.priors.mean[free], self.priors.width[free]

        def cost_of(values: Tensor) -> tuple[Tensor, Tensor]:
            off = (self.image(pixels, values) - data) * weight
            return off.flatten(1).square().sum(1) + ((values[:, free] - mean) / width).square().sum(1), off

        cost, off = cost_of(values)
        damped = torch.full_like(cost, damping)
        for step in range(n_step):
            if step % kept == 0:
                slopes = (self._slopes(pixels, values) * weight[:, None]).flatten(2)
                inner = slopes @ slopes.transpose(1, 2) + torch.diag(width**-2)
            pull = (slopes @ off.flatten(1)[:, :, None])[:, :, 0] + (values[:, free] - mean) / width**2
            stiff = inner + torch.diag_embed(damped[:, None] * inner.diagonal(dim1=1, dim2=2))
            trial = values.clone()
            trial[:, free] -= torch.linalg.solve_ex(stiff.double(), pull.double())[0].float().nan_to_num()
            new_cost, new_off = cost_of(trial)
            better = new_cost < cost
            values, off = torch.where(better[:, None], trial, values), torch.where(better[:, None, None], new_off, off)
            cost, damped = torch.where(better, new_cost, cost), torch.where(better, damped * 0.2, damped * 10)
        return values, cost, off

    def _slopes(self, pixels: Pixels, values: Tensor) -> Tensor:
        """Change of the image per free parameter ``(n, parameter, y, x)``, by differences."""

        def of(see: Callable[[Tensor], Tensor], here: Tensor, width: Tensor) -> Tensor:
            free = torch.nonzero(width > 0)[:, 0]
            step = 0.01 * width[free].clamp(0.05, 0.3)
            moved = here[:, None] + torch.zeros(len(free), here.shape[1]).scatter(1, free[:, None], step[:, None])
            at = vmap(see)(here)
            there = vmap(see)(moved.flatten(0, 1)).view(len(here), len(free), *at.shape[1:])
            return (there - at[:, None]) / step[:, None, None]

        width = self.priors.width
        slopes = of(pixels.arcs, values[:, :N_ARC], width[:N_ARC])
        if not self.priors.light:
            return slopes
        own, n_centre = of(pixels.light, _of_light(values), _of_light(width)), int((width[CENTRE] > 0).sum())
        both = slopes.shape[1] - n_centre, own.shape[1] - n_centre
        slopes[:, both[0] :] += own[:, both[1] :]
        return torch.cat([slopes, own[:, : both[1]]], 1)


def _of_light(values: Tensor) -> Tensor:
    """Values of the lens galaxy ``(..., parameter)``, its place last."""
    return torch.cat([values[..., N_ARC:], values[..., CENTRE]], -1)
