"""
Smooth lenses with a Sérsic source, fitted to many stamps at a time, and what they leave.

An isothermal ellipsoid in shear images a Sérsic source, with clumps where they are asked for, beside a Sérsic lens
galaxy where there is one, through a Gaussian PSF. Every parameter has a Gaussian prior. What a fit leaves of a stamp,
in units of the noise, is noise and what is not smooth in lens and source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from lenspipe.errors import ConfigError
from lenspipe.nn.damped import Damped, clumps_of, n_clump_of
from lenspipe.nn.sersic_image import BRIGHTER, CLUMP, N_ARC, NAMES, SMALLER, Pixels, clump_trials, of_light

COARSE, N_START = 2, 3
"""Pixels a side that are averaged for the trials, and trials that are fitted."""
COARSE_STEPS, STEPS, KEPT = 8, 6, 3
"""Damped Gauss-Newton steps on coarse and on whole pixels; on these, slopes are kept for so many steps."""
SEARCH = 2
"""Points per pixel and axis with which lenses and clumps are sought, where the model has more."""
LAST_STEPS, MORE_STEPS, LAST_KEPT = 3, 12, 2
"""Steps after the search, and of fits that leave too much then."""
TOO_MUCH = 2.0
"""Above the noise, in units of its scatter: what a fit leaves that is tried in another way."""
NO_WEIGHT = 1e-6
"""Of a pixel, over the largest of its stamp: of less, there are no data."""
ROUGH_ERROR = 0.3
"""Relative error of a stamp of which the smooth source alone is to be found, where a first fit lost itself: clumps are
left for later, and do not bend the source."""
ROUNDS = (("coarse", ROUGH_ERROR), ("swapped", ROUGH_ERROR), ("smooth", ROUGH_ERROR), ("smooth", 1.0))
"""What lenses with clumps are sought again from, and the relative error with which each round begins: the lens of the
coarse pixels; the best so far, its source taken for a clump of a larger one; and what of it is no clump."""
SWAPPED = (-1.0, 1.5)
"""Logarithms of brightness and radius of a source over that which was a clump of it."""
COARSE_ERROR = 0.03
"""Relative error of the coarse images."""
MOST_FWHM = 0.5
"""Of the PSF, over the side of a stamp."""
REACH = 1.2
"""Of the PSF, over its FWHM: a thousandth of a line's light comes from further away."""
AT_ONCE = 16
"""Stamps that are fitted together: of more, memory is fetched anew for each image, which took as long as the rest."""
LEAST_GAIN = 25.0
"""By so much the cost must fall for a clump to be kept."""


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

    def free(self, n: int) -> Tensor:
        """Places of those of the first ``n`` parameters that are fitted."""
        return torch.nonzero(self.width[:n] > 0)[:, 0]


Passed = list[tuple[Tensor, Tensor]]
"""Rows of stamps, and values that a search had of them on its way."""


@dataclass(frozen=True, eq=False)
class Others:
    """Minima of fits beside the best ones."""

    row: Tensor
    """Stamp ``(minimum,)``."""
    values: Tensor
    """``(minimum, parameter)``, as of `SersicFit.sought`."""


@dataclass(frozen=True, eq=False)
class SersicFit:
    """The fit for stamps of one size, scale, PSF and population."""

    fine: Pixels
    """The stamps' own."""
    search: Pixels
    """Likewise, with few enough points to seek with; `fine` where it has no more."""
    coarse: Pixels
    """Means over `COARSE` pixels a side."""
    priors: Priors
    clumps: int = 0
    """Clumps that the source may have; they are sought one by one, and kept where they make the fit better by much."""
    rounds: int = 0
    """So many of `ROUNDS` for lenses with clumps, whose fits have many minima."""

    @classmethod
    def of(
        cls,
        size_px: int,
        pixel_scale_arcsec: float,
        fwhm_arcsec: float,
        priors: Priors,
        *,
        finer: int = 2,
        clumps: int = 0,
        rounds: int = 0,
        lit_beyond: bool = False,
    ) -> SersicFit:
        """
        A fit; a side that is odd gets a row and a column that count for nothing on coarse pixels.

        Around a lens galaxy that shines 1.25 times the FWHM are left out. With ``lit_beyond`` the PSF brings light from
        outside the stamps, as in those that are cut from a larger image; simulated ones are dark there.

        Raises
        ------
        ConfigError
            What is not left out is less than there are parameters, or the PSF half as wide as the stamps.
        """
        mask = 1.25 * fwhm_arcsec if priors.light else -1.0
        odd = size_px % COARSE
        n, scale = (size_px + odd) // COARSE, COARSE * pixel_scale_arcsec
        beyond, of_coarse = (
            math.ceil(REACH * fwhm_arcsec / one) if lit_beyond else 0 for one in (pixel_scale_arcsec, scale)
        )

        def pixels(points: int) -> Pixels:
            return Pixels(size_px, pixel_scale_arcsec, fwhm_arcsec, finer=points, mask_arcsec=mask, beyond_px=beyond)

        fine = pixels(finer)
        search = fine if finer <= SEARCH else pixels(SEARCH)
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
        if coarse.kept.sum() < len(NAMES) or fwhm_arcsec > MOST_FWHM * size_px * pixel_scale_arcsec:
            raise ConfigError(
                "the stamps are too small for a fit, or the PSF too wide",
                size_px=size_px,
                pixel_scale_arcsec=pixel_scale_arcsec,
                fwhm_arcsec=fwhm_arcsec,
            )
        return cls(fine, search, coarse, priors, clumps, rounds if clumps else 0)

    def __call__(self, stamps: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable smooth lens of each stamp, and what it leaves: `sought` without the others."""
        return self.sought(stamps, sigma)[:2]

    def sought(self, stamps: Tensor, sigma: Tensor, *, others: bool = False) -> tuple[Tensor, Tensor, Others]:
        """
        The most probable smooth lens of each stamp, what it leaves, and on request what else was come by on the way.

        Parameters
        ----------
        stamps, sigma : Tensor (n, y, x)
            Brightness of a pixel and its noise, in one unit.

        Returns
        -------
        values : Tensor (n, parameter)
            In the order of `NAMES`, then of `CLUMP` for each of `clumps`, NaN where there is none; brightness in the
            unit of the stamps.
        left : Tensor (n, y, x)
            Stamp less model, in units of the noise; 0 where the middle is left out.
        others : Others
            With fewer or more clumps, or of other rounds, the best among them; none where they are not asked for.
        """
        values, left, rows, passed = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
        for k in range(0, len(stamps), AT_ONCE):
            path = Passed() if others else None
            found, off = self._fitted(stamps[k : k + AT_ONCE], sigma[k : k + AT_ONCE], path)
            values.append(found)
            left.append(off)
            rows += [own + k for own, _ in path or ()]
            passed += [some for _, some in path or ()]
        zero, row = torch.zeros_like(stamps), torch.cat([torch.zeros(0, dtype=torch.long), *rows])
        more = [
            self._polished(stamps[own], self.fine.kept / sigma[own], some, zero[own], n_step=LAST_STEPS)[0]
            for own, some in zip(rows, passed, strict=True)
        ]
        best = torch.cat(values)
        return best, torch.cat(left), Others(row, torch.cat([best[:0], *more]))

    def image(self, pixels: Pixels, values: Tensor) -> Tensor:
        """Model images ``(n, y, x)`` of values ``(n, parameter)``, of which there may be those of clumps."""
        arcs = pixels.arcs(values[:, :N_ARC], clumps_of(values))
        return arcs + pixels.light(of_light(values)) if self.priors.light else arcs

    def _fitted(self, stamps: Tensor, sigma: Tensor, path: Passed | None) -> tuple[Tensor, Tensor]:
        n, odd = len(stamps), stamps.shape[-1] % COARSE
        pooled = avg_pool2d(pad(stamps[:, None], (0, odd, 0, odd)), COARSE)[:, 0]
        error = avg_pool2d(pad(sigma[:, None], (0, odd, 0, odd), value=1.0), COARSE)[:, 0] / COARSE
        weight = self.coarse.kept / torch.sqrt(error**2 + (COARSE_ERROR * pooled) ** 2)
        begun = self._begun(pooled, self.coarse.kept / error).flatten(0, 1)
        often = pooled.repeat_interleave(N_START, 0), weight.repeat_interleave(N_START, 0)
        damped = Damped(self, self.coarse, *often, *self.known(begun))
        found, cost, _ = damped(begun, n_step=COARSE_STEPS, kept=1, damping=0.1)
        best = found.view(n, N_START, -1)[torch.arange(n), cost.view(n, N_START).argmin(1)]
        sharp = self.fine.kept / sigma
        values, cost, off = self._sought(stamps, sharp, best, torch.arange(n), path, error=0.0)
        for what, rough in ROUNDS[: max(self.rounds, self.clumps > 0)]:
            if not len(lost := self._may_be_better(values, off, sharp)):
                break
            begun = {"coarse": best, "swapped": self._swapped(values), "smooth": values[:, : len(NAMES)]}[what][lost]
            other, less, left = self._sought(stamps[lost], sharp[lost], begun, lost, path, error=rough)
            # clumps that a round begins with earn their place as those do that are sought
            better = less + LEAST_GAIN * n_clump_of(other) < cost[lost] + LEAST_GAIN * n_clump_of(values[lost])
            own = lost[better]
            values[own], cost[own], off[own] = other[better], less[better], left[better]
        if self.fine is not self.search:
            values, off = self._polished(stamps, sharp, values, off, n_step=LAST_STEPS)
        if (self.clumps or self.fine is not self.search) and len(again := self._may_be_better(values, off, sharp)):
            values[again], off[again] = self._polished(
                stamps[again], sharp[again], values[again], off[again], n_step=MORE_STEPS
            )
        return values, -off

    def _may_be_better(self, values: Tensor, off: Tensor, weight: Tensor) -> Tensor:
        """Which fits leave more than noise does, in the pixels that there are; with `rounds`, those with clumps too."""
        n_px = (weight > weight.flatten(1).amax(1)[:, None, None] * NO_WEIGHT).flatten(1).sum(1)
        found = off.flatten(1).square().sum(1) > n_px + TOO_MUCH * torch.sqrt(2.0 * n_px)
        if self.rounds:
            found |= torch.isfinite(values[:, len(NAMES)])
        return torch.nonzero(found)[:, 0]

    def _sought(
        self, stamps: Tensor, weight: Tensor, begun: Tensor, rows: Tensor, path: Passed | None, *, error: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        The source as it is begun, then clumps one by one: values, their cost and weighted model less data.

        With a relative ``error`` the source is first fitted to no better than that. What there is with each number of
        clumps is added to the path, under the names ``rows`` of the stamps.
        """
        n, known = len(stamps), self.known(begun)
        n_clump = (begun.shape[1] - len(NAMES)) // len(CLUMP)
        whole, values = Damped(self, self.search, stamps, weight, *known), begun
        if error:
            softer = weight / torch.sqrt(1 + (error * stamps * weight) ** 2)
            values, _, _ = Damped(self, self.search, stamps, softer, *known)(
                begun, n_step=STEPS, kept=KEPT, damping=1e-2
            )
        if error and not n_clump:  # clumps that are not there yet would bend it
            cost, off = whole.cost(values)
        else:
            values, cost, off = whole(values, n_step=STEPS, kept=KEPT, damping=1e-3)
        missing = torch.full((n, (self.clumps - n_clump) * len(CLUMP)), torch.nan)
        values, going = torch.cat([values, missing], 1), torch.arange(n)
        if path is not None:
            path.append((rows, values.clone()))
        for k in range(n_clump, self.clumps):
            if not len(going):
                break
            size = len(NAMES) + k * len(CLUMP)
            before = values[going, :size]
            rest = Damped(self, self.search, stamps[going], weight[going], *self.known(before))
            gain, clump = self._best_clump(rest, before, off[going])
            promising = gain > 0.5 * LEAST_GAIN
            going, before, clump = going[promising], before[promising], clump[promising]
            tried = torch.cat([before, clump], 1)
            more = Damped(self, self.search, stamps[going], weight[going], *self.known(tried))
            better, less, left = more(tried, n_step=STEPS, kept=KEPT, damping=1e-2)
            taken = cost[going] - less > LEAST_GAIN
            going = going[taken]
            values[going, : size + len(CLUMP)] = better[taken]
            cost[going], off[going] = less[taken], left[taken]
            if path is not None and len(going):
                path.append((rows[going], values[going]))
        return values, cost, off

    def _polished(
        self, stamps: Tensor, weight: Tensor, values: Tensor, off: Tensor, *, n_step: int
    ) -> tuple[Tensor, Tensor]:
        """Values after more steps with all points, and weighted model less data."""
        values, off = values.clone(), off.clone()
        n_clump = n_clump_of(values)
        for k in sorted(set(n_clump.tolist())):
            own, size = torch.nonzero(n_clump == k)[:, 0], len(NAMES) + k * len(CLUMP)
            some = values[own, :size]
            rest = Damped(self, self.fine, stamps[own], weight[own], *self.known(some))
            values[own, :size], _, off[own] = rest(some, n_step=n_step, kept=LAST_KEPT, damping=1e-2)
        return values, off

    def _swapped(self, values: Tensor) -> Tensor:
        """Values with one clump, the source that there was, of a larger and fainter one around all that there was."""
        at = {name: NAMES.index(name) for name in CLUMP}
        old, clumps = values[:, list(at.values())], clumps_of(values)
        every = old[:, None] if clumps is None else torch.cat([old[:, None], clumps], 1)
        flux = torch.exp(every[..., 2] + 2 * every[..., 3]).nan_to_num(0.0)
        found = values[:, : len(NAMES)].clone()
        for k, name in enumerate(CLUMP[:2]):
            found[:, at[name]] = (flux * every[..., k].nan_to_num(0.0)).sum(1) / flux.sum(1)
        for name, step in zip(CLUMP[2:], SWAPPED, strict=True):
            found[:, at[name]] += step
        for name in ("log_n", "e1", "e2"):
            found[:, NAMES.index(name)] = 0.0
        return torch.cat([torch.where(self.priors.width > 0, found, values[:, : len(NAMES)]), old], 1)

    @cached_property
    def _trials(self) -> tuple[Tensor, Tensor]:
        """Places of the source and shears that are tried ``(trial, parameter)``, and their images at brightness 1."""
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
        tried[:, self._sizes] = 0.0
        shown = [self.coarse.arcs(tried[:, :N_ARC])]
        if self.priors.light:
            shown.append(self.coarse.light(of_light(tried)))
        return tried, torch.stack(shown, 1).flatten(2)

    @property
    def _sizes(self) -> list[int]:
        return [NAMES.index("log_brightness")] + [NAMES.index("light_log_brightness")] * self.priors.light

    def _begun(self, pooled: Tensor, weight: Tensor) -> Tensor:
        """The `N_START` best of the trials, brightness solved for."""
        tried, parts = self._trials
        sizes = self._sizes
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
        return torch.where(self.priors.width > 0, begun, self.priors.mean)

    def known(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which of the values are fitted ``(parameter,)``, and their means ``(n, parameter)`` and widths."""
        free = self.priors.free(len(NAMES) if self.priors.light else N_ARC)
        mean = self.priors.mean[free].expand(len(values), -1)
        width = self.priors.width[free].expand(len(values), -1)
        n_clump = (values.shape[1] - len(NAMES)) // len(CLUMP)
        if not n_clump:
            return free, mean, width
        # around the source as it is now
        x, y, brightness, radius = (values[:, NAMES.index(name)] for name in CLUMP)
        middle = torch.stack([x, y, brightness + BRIGHTER[0], radius + SMALLER[0]], 1)
        spread = torch.stack([radius.exp(), radius.exp(), *(torch.full_like(x, v[1]) for v in (BRIGHTER, SMALLER))], 1)
        own = len(NAMES) + torch.arange(n_clump * len(CLUMP))
        return (
            torch.cat([free, own]),
            torch.cat([mean, middle.repeat(1, n_clump)], 1),
            torch.cat([width, spread.repeat(1, n_clump)], 1),
        )

    def _best_clump(self, rest: Damped, values: Tensor, off: Tensor) -> tuple[Tensor, Tensor]:
        """What one more clump would take off the cost ``(n,)``, as far as no other value could, and its values."""
        tried = clump_trials(values)
        shown = (rest.pixels.lone_clumps(values[:, :N_ARC], tried) * rest.weight[:, None]).flatten(2)
        _, slopes, inner = rest.normal(values)
        along = slopes @ shown.transpose(1, 2)
        absorbed = torch.linalg.solve_ex(inner.double(), along.double())[0].float().nan_to_num()
        square = shown.square().sum(2) - (along * absorbed).sum(1)
        pull = (-off.flatten(1)[:, None] * shown).sum(2)
        # a trial that the other values can make, or that lies outside, is none
        square = torch.where(square > 1e-3 * shown.square().sum(2) + 1e-20, square, torch.inf)
        gain, best = (pull.clamp(min=0) ** 2 / square).max(1)
        rows = torch.arange(len(values))
        clump = tried[rows, best]
        clump[:, 2] = torch.log((pull / square)[rows, best].clamp(min=1e-30))
        return gain, clump
