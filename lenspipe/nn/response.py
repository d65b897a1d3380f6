"""What small masses change of fitted stamps to first order, beside everything that lens and source could take up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lenspipe.nn.damped import Damped, clumps_of, n_clump_of
from lenspipe.nn.sersic_image import BRIGHTER, CLUMP, N_ARC, NAMES, clump_trials
from lenspipe.nn.sersic_lens import AT_ONCE, SersicFit

CELL = 0.5
"""Radius within which a mass bends less, over the distance of the points."""
DIM = 0.05
"""Slope of the source, over the noise and per arcsec: of less, a mass that bends by a tenth of that changes nothing."""
SPARE = 0.1
"""Brightness of a clump that was not found, over that of one."""


def bending(x: Tensor, y: Tensor, step_arcsec: float) -> Tensor:
    """By how much a unit mass bends rays ``x`` and ``y`` arcsec from it ``(x and y, …)``: ``r / |r|^2``, softened."""
    square = x * x + y * y + (CELL * step_arcsec) ** 2
    return torch.stack([x / square, y / square])


class Response:
    """
    Images of unit masses, and stamps less their fits, in noise of unit covariance once the fit is marginalised.

    To first order a mass of Einstein radius ``theta`` at ``p`` moves what is seen at ``x`` in the source plane by
    ``-theta^2 (x - p) / |x - p|^2``, and changes the image by that times its slope (Koopmans 2005, MNRAS 363, 1136).
    The fitted parameters with their priors (those of clumps lie around the source as it was fitted) add the covariance
    ``J P J^T`` to the noise, and where a source has clumps so do more of them, anywhere and a tenth as bright: how many
    there are, and where, is never known for sure. Both images and stamps are multiplied by ``(1 + J P J^T)^-1/2``, so
    that plain products are those of likelihoods; NaN where parameters are not finite.

    Parameters
    ----------
    fit : SersicFit
        That the values are of.
    stamps, sigma : Tensor (n, y, x)
        As of the fit.
    values : Tensor (n, parameter)
        What it found, of stamps with equally many clumps.
    """

    def __init__(self, fit: SersicFit, stamps: Tensor, sigma: Tensor, values: Tensor) -> None:
        rest = Damped(fit, fit.fine, stamps, fit.fine.kept / sigma, *fit.known(values))
        _, off = rest.cost(values)
        prior, slopes, _ = rest.normal(values)
        root = prior.rsqrt()
        scaled = (slopes * root[:, :, None]).double()
        away = (values[:, rest.free] - rest.mean).double() / rest.width
        own = away.shape[1]
        if clumps_of(values) is not None:
            more = _more_clumps(fit, values, rest.weight)
            scaled, away = torch.cat([scaled, more.double()], 1), torch.cat([away, away.new_zeros(more.shape[:2])], 1)
        inner = scaled @ scaled.transpose(1, 2)
        ok = torch.isfinite(inner).flatten(1).all(1)
        size, axes = torch.linalg.eigh(torch.where(ok[:, None, None], inner, torch.eye(inner.shape[1]).double()))
        size = size.clamp(min=1e-12)
        less = (1 - torch.rsqrt(1 + size)) / size
        absorbed = (axes * less[:, None]) @ axes.transpose(1, 2)
        # a fit that stopped short of its best, or that priors hold back, has a step to go, which is no mass's
        left = (scaled.transpose(1, 2) @ away[:, :, None])[:, :, 0] - off.flatten(1)
        taken_up = scaled.transpose(1, 2) @ (absorbed @ (scaled @ left[:, :, None]))
        self.left = torch.where(ok[:, None], left - taken_up[:, :, 0], torch.nan).float()
        """Of each stamp ``(n, pixel)``."""
        self.cost = off.flatten(1).double().square().sum(1) + away.square().sum(1)
        """What the fit made least ``(n,)``: squares of what is left, and of how far values lie from their priors."""
        evidence = _log_evidence(inner[:, :own, :own], scaled[:, :own], left)
        self.log_evidence = torch.where(ok, evidence + math.lgamma(int(n_clump_of(values[:1])) + 1), torch.nan)
        """
        Of the fit ``(n,)``, over that of the noise alone: its parameters marginalised, without clumps that it does not
        have, and as often as its clumps can change names.
        """
        self._absorbed, self._scaled = absorbed.float(), scaled.float()
        self.points = fit.fine
        """Pixels and the points inside them, at which masses bend."""
        self._steep = self.points.source_slopes(values, clumps_of(values))
        self._weight = rest.weight
        brightest = self._steep.abs().amax(1) * rest.weight.flatten(1).amax(1)[:, None, None]
        self._box = [_box(one > DIM) for one in brightest]

    def seen(self, k: int, bend: Tensor) -> Tensor:
        """Images ``(place, pixel)`` of stamp ``k``, not whitened, of masses that bend by ``(x and y, place, y, x)``."""
        rows, columns = self._box[k]
        own, blur = (..., rows, columns), self.points.blur
        change = -(self._steep[k, 0][own] * bend[0][own] + self._steep[k, 1][own] * bend[1][own])
        return (blur[:, rows] @ change @ blur[:, columns].T * self._weight[k]).flatten(1)

    def whitened(self, k: int, images: Tensor) -> Tensor:
        """Images ``(…, pixel)`` times the root of the inverse covariance."""
        scaled = self._scaled[k]
        return images - (images @ scaled.T) @ self._absorbed[k] @ scaled


def _log_evidence(inner: Tensor, scaled: Tensor, left: Tensor) -> Tensor:
    """Of what is left ``(n, pixel)`` where parameters add ``scaled^T scaled`` to the noise; ``(n,)``."""
    root, _ = torch.linalg.cholesky_ex(inner.nan_to_num() + torch.eye(inner.shape[1]).double())
    along = scaled @ left[:, :, None]
    taken_up = (along * torch.cholesky_solve(along, root)).flatten(1).sum(1)
    log_det = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
    return -0.5 * (left.square().sum(1) - taken_up + log_det)


def responses(
    fit: SersicFit, stamps: Tensor, sigma: Tensor, values: Tensor, row: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Response]]:
    """
    Places of values with equally many clumps, some at a time, the values without those that are missing, the response.

    Of values ``(m, parameter)`` of the stamps that ``row`` says; of one per stamp where it is left out.
    """
    of = torch.arange(len(stamps)) if row is None else row
    n_clump = n_clump_of(values)
    for k in sorted(set(n_clump.tolist())):
        for own in torch.split(torch.nonzero(n_clump == k)[:, 0], AT_ONCE):
            some = values[own, : len(NAMES) + k * len(CLUMP)]
            yield own, some, Response(fit, stamps[of[own]], sigma[of[own]], some)


def _box(bright: Tensor) -> tuple[slice, slice]:
    """Rows and columns that hold all of a mask ``(y, x)``; one point where there is none."""
    ends = []
    for axis in (1, 0):
        own = torch.nonzero(bright.any(axis))[:, 0]
        ends.append(slice(int(own[0]), int(own[-1]) + 1) if len(own) else slice(0, 1))
    return ends[0], ends[1]


def _more_clumps(fit: SersicFit, values: Tensor, weight: Tensor) -> Tensor:
    """Images ``(n, trial, pixel)``, over the noise, of clumps that may be there besides those that were found."""
    images = fit.fine.lone_clumps(values[:, :N_ARC], clump_trials(values)) * weight[:, None]
    bright = torch.exp(values[:, NAMES.index("log_brightness")] + BRIGHTER[0])
    return SPARE * bright[:, None, None] * images.flatten(2)
