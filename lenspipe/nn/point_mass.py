"""How much a point mass at each place of a fitted lens would explain of what the fit leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lenspipe.nn.fitted import MASSES
from lenspipe.nn.response import Response, bending, responses
from lenspipe.nn.sersic_image import Pixels
from lenspipe.nn.sersic_lens import SersicFit

N_MAP = len(MASSES)
"""Maps per stamp, in the order of `MASSES`."""
STEP_PX = 2
"""Pixels between places that are tried."""
RADIUS_ARCSEC = 0.4
"""Einstein radius of a mass, that of a galaxy: where even one is worth less than a sigma, the map fades."""
SMALL_ARCSEC, LARGE_ARCSEC = (0.01, 0.02, 0.03, 0.045, 0.06, 0.08), (0.06, 0.08, 0.11, 0.14, 0.19, 0.25)
"""Einstein radii of small and of large masses, of which the odds are means."""
LEAST_ODDS = -5.0
"""Logarithm of odds below which a mass is not there, however bright the arc that would show it."""
LEAST = 0.02
"""Part of a mass's signal that is left, where the first order says that other parameters take up more."""
PLACES = 64
"""Places whose images are held together."""


def point_mass_maps(fit: SersicFit, stamps: Tensor, sigma: Tensor, values: Tensor) -> Tensor:
    """
    How significant a point mass is at each place, beside the smooth lens that was fitted, and two logarithms of odds.

    To first order a mass of Einstein radius ``theta`` at ``p`` moves what is seen at ``x`` in the source plane by
    ``-theta^2 (x - p) / |x - p|^2``, and changes the image by that times its slope (Koopmans 2005, MNRAS 363, 1136).
    With ``b`` the product of that change, of unit ``theta``, with what is left, and ``a`` its square after everything
    that the other parameters could take up is taken off, the significance is ``b / sqrt(a)``: in noise alone it has a
    spread of 1, less where only masses above `RADIUS_ARCSEC` would show. Masses below nothing have negative values.
    The odds that such a mass is there, to none, are ``exp(theta^2 b - theta^4 a / 2)``; of small and of large masses
    they are means over `SMALL_ARCSEC` and `LARGE_ARCSEC`, of logarithms from `LEAST_ODDS` on.

    Parameters
    ----------
    fit : SersicFit
        That the values are of.
    stamps, sigma : Tensor (n, y, x)
        As of the fit.
    values : Tensor (n, parameter)
        What it found.

    Returns
    -------
    Tensor (n, map, y, x)
        Significance, logarithm of the odds of small masses, of large ones; NaN for a stamp whose parameters cannot be
        told apart.
    """
    found = stamps.new_zeros((len(stamps), N_MAP, *stamps.shape[1:]))
    kernels = _kernels(fit.fine, stamps.shape[-1])
    for own, _, response in responses(fit, stamps, sigma, values):
        found[own] = _maps(response, len(own), stamps.shape[-1], kernels)
    return found


def log_mean(maps: Tensor) -> Tensor:
    """Logarithm ``(n,)`` of the mean odds of maps ``(n, y, x)`` of logarithms: that a mass is somewhere, to nowhere."""
    return torch.logsumexp(maps.flatten(1), 1) - math.log(math.prod(maps.shape[1:]))


def _kernels(pixels: Pixels, size_px: int) -> Tensor:
    """Bending ``(x and y, start, start, y, x)`` at points by a mass whose place the starts say: views of one table."""
    finer, n = pixels.finer, len(pixels.x)
    step = pixels.pixel_scale_arcsec / finer
    # from the last place to the first point, to from the first place to the last point
    axis = torch.arange((1 - size_px) * finer, n) - (pixels.beyond_px + _shift_px(size_px)) * finer - (finer - 1) / 2
    x, y = axis.expand(len(axis), -1) * step, axis[:, None].expand(-1, len(axis)) * step
    return bending(x, y, step).unfold(1, n, 1).unfold(2, n, 1)


def _maps(response: Response, n: int, size: int, kernels: Tensor) -> Tensor:
    starts = torch.arange(size - 1, -1, -STEP_PX) * response.points.finer
    places = torch.cartesian_prod(starts, starts)
    product, weight = torch.zeros(2, n, len(places))
    for first in range(0, len(places), PLACES):
        own = slice(first, first + PLACES)
        bend = kernels[:, places[own, 0], places[own, 1]]
        for k in range(n):
            seen = response.seen(k, bend)
            white = response.whitened(k, seen)
            weight[k, own] = torch.maximum(white.square().sum(1), LEAST * seen.square().sum(1))
            product[k, own] = white @ response.left[k]
    odds = (_log_odds(product, weight, radii) for radii in (SMALL_ARCSEC, LARGE_ARCSEC))
    found = torch.stack([product / torch.sqrt(weight + RADIUS_ARCSEC**-4), *odds], 1)
    found = found.reshape(n, N_MAP, len(starts), len(starts))
    if _shift_px(size):
        return interpolate(found, (size, size))
    return interpolate(found, (size, size), mode="bilinear", align_corners=True)


def _log_odds(product: Tensor, weight: Tensor, radii: Sequence[float]) -> Tensor:
    square = torch.tensor(radii)[:, None, None] ** 2
    odds = torch.logsumexp(square * product - 0.5 * square**2 * weight, 0) - math.log(len(radii))
    return odds.clamp(min=LEAST_ODDS)


def _shift_px(size_px: int) -> float:
    """
    Of the places from whole pixels: a mirrored stamp has the mirrored map.

    Of an even side the places are the corners of four pixels, which share the value; of an odd one every other pixel,
    from the first to the last.
    """
    return 0.5 if size_px % STEP_PX == 0 else 0.0
