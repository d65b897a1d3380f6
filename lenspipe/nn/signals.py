"""How much more probable a fitted stamp is with the substructure of a class than with none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lenspipe.nn.response import Response, bending, responses
from lenspipe.nn.sersic_image import CENTRE
from lenspipe.nn.sersic_lens import SersicFit

N_SIDE, REACH = 27, 1.6
"""Places a side to which masses are laid, and how far from the lens the last ones lie, in its Einstein radii."""
N_AXIS = 128
"""Directions of the pixels in which signals are compared, those in which they are strongest."""
NEAR = 0.25
"""Part of the draws that a stamp is compared with: those of the lenses whose Einstein radii rank about its own."""
BEYOND = 1.1
"""An Einstein radius that is so many times the largest that was drawn, or that part of the least, has no odds."""
TINY = 1e-30
DRAWS = 4096
"""Draws that are laid to places at once."""


@dataclass(frozen=True, eq=False)
class Signals:
    """Substructure as a recipe draws it, on places around any lens."""

    labels: tuple[str, ...]
    theta_e_arcsec: Tensor
    """Of the lenses ``(class, draw)``, rising."""
    squares: Tensor
    """Squares of Einstein radii at places ``(class, draw, place)``, arcsec^2."""

    @classmethod
    def of(cls, table: pa.Table) -> Signals:
        """Of a table as `lenspipe.simulate.signals.draw_signals` makes; classes have equally many draws."""
        label = np.array(table["label"].to_pylist())
        labels = tuple(dict.fromkeys(label.tolist()))
        own = [table.filter(pa.array(label == one)).combine_chunks() for one in labels]
        radii = torch.stack([torch.from_numpy(np.array(one["theta_e_arcsec"], np.float32)) for one in own])
        squares = torch.empty(len(own), radii.shape[1], N_SIDE**2)
        for place, one in zip(squares, own, strict=True):
            _lay(one, place)
        return cls(labels, radii, squares)

    def reach(self, theta_e_arcsec: float) -> bool:
        """Whether there are draws around lenses of about an Einstein radius."""
        low, high = float(self.theta_e_arcsec.min()), float(self.theta_e_arcsec.max())
        return low / BEYOND <= theta_e_arcsec <= high * BEYOND

    def near(self, k: int, theta_e_arcsec: float) -> Tensor:
        """Draws ``(draw, place)`` of class ``k`` around lenses of about an Einstein radius."""
        radii = self.theta_e_arcsec[k]
        n = max(1, round(NEAR * len(radii)))
        middle = int(torch.searchsorted(radii, theta_e_arcsec))
        first = min(max(middle - n // 2, 0), len(radii) - n)
        return self.squares[k, first : first + n]


def log_odds(fit: SersicFit, stamps: Tensor, sigma: Tensor, values: Tensor, signals: Signals) -> Tensor:
    """
    Logarithms of how much more probable each stamp is with substructure of each class than with none.

    The likelihood of a draw that changes the stamp by ``s``, in noise of unit covariance once the fit is marginalised
    (`lenspipe.nn.response.Response`), is ``exp(d s - s^2 / 2)`` of that of no substructure, ``d`` what the fit leaves;
    the evidence of a class is the mean over its draws. To first order in mass, and with as many draws as there are: a
    signal that no draw is like is too improbable.

    Parameters
    ----------
    fit : SersicFit
        That the values are of.
    stamps, sigma : Tensor (n, y, x)
        As of the fit.
    values : Tensor (n, parameter)
        What it found.
    signals : Signals

    Returns
    -------
    Tensor (n, class)
        NaN for a stamp whose parameters are not finite, or whose Einstein radius lies beyond those that were drawn.
    """
    found = stamps.new_full((len(stamps), len(signals.labels)), torch.nan)
    for own, some, response in responses(fit, stamps, sigma, values):
        for j, row in enumerate(own.tolist()):
            if torch.isfinite(response.left[j]).all() and signals.reach(float(some[j, 0])):
                along, left = in_few_axes(response, j, some[j], signals)
                near = (signals.near(k, float(some[j, 0])) for k in range(len(signals.labels)))
                found[row] = torch.cat([log_evidence(left[None], one @ along) for one in near])
    return found


def in_few_axes(response: Response, j: int, values: Tensor, signals: Signals) -> tuple[Tensor, Tensor]:
    """
    Unit masses at each place ``(place, axis)`` around stamp ``j`` of a response, and what its fit leaves ``(axis,)``.

    In noise of unit covariance; the axes are the directions of the pixels in which the signals are strongest.
    """
    theta, (x, y) = float(values[0]), values[CENTRE].tolist()
    axis = torch.linspace(-REACH, REACH, N_SIDE) * theta
    images = _images(response, j, axis + x, axis + y)
    near = [signals.near(k, theta) for k in range(len(signals.labels))]
    strong = torch.stack([one.square().mean(0) for one in near]).mean(0).sqrt()
    # the directions of a random projection (Halko, Martinsson & Tropp 2011, SIAM Review 53, 217), once more by power
    weighed = images * strong[:, None]
    weighed = weighed / weighed.abs().max().clamp(min=TINY)  # all 0 where no mass shows: then odds are even
    across = weighed.T @ (weighed @ _random(images.shape[1], min(N_AXIS, len(images))))
    axes = torch.linalg.qr(weighed.T @ (weighed @ (across / across.norm().clamp(min=TINY))))[0]
    return images @ axes, axes.T @ response.left[j]


def log_evidence(data: Tensor, drawn: Tensor) -> Tensor:
    """Logarithm ``(n,)`` of the mean likelihood of data ``(n, axis)`` over draws ``(draw, axis)``, to that of none."""
    gain = data @ drawn.T - 0.5 * drawn.square().sum(1)
    return (torch.logsumexp(gain.double(), 1) - math.log(len(drawn))).float()


def _images(response: Response, j: int, at_x: Tensor, at_y: Tensor) -> Tensor:
    """Images ``(place, pixel)`` of unit masses on a grid of places, y first, whitened."""
    points = response.points
    x, step = points.x[0] - at_x[:, None], points.pixel_scale_arcsec / points.finer
    rows = [response.seen(j, bending(x[:, None, :], one[:, None], step)) for one in (points.y[:, 0] - y for y in at_y)]
    return response.whitened(j, torch.cat(rows))


@cache
def _random(n_px: int, n_axis: int) -> Tensor:
    return torch.randn(n_px, n_axis, generator=torch.Generator().manual_seed(0))


def _lay(table: pa.Table, out: Tensor) -> None:
    """Squares at places ``(draw, place)``; each mass is shared by the four places around it."""
    column = {name: table[name].combine_chunks() for name in ("x", "y", "square_arcsec2")}
    ends = np.asarray(column["x"].offsets)
    x, y, square = (np.asarray(column[name].values, np.float64) for name in column)
    for first in range(0, len(table), DRAWS):
        last = min(first + DRAWS, len(table))
        some = slice(ends[first], ends[last])
        owner = np.repeat(np.arange(last - first), np.diff(ends[first : last + 1]))
        at_x, at_y = ((one[some] + REACH) * (N_SIDE - 1) / (2 * REACH) for one in (x, y))
        left, low = np.floor(at_x).astype(int), np.floor(at_y).astype(int)
        laid = np.zeros((last - first) * N_SIDE**2)
        for i, in_x in ((left, left + 1 - at_x), (left + 1, at_x - left)):
            for j, in_y in ((low, low + 1 - at_y), (low + 1, at_y - low)):
                inside = (i >= 0) & (i < N_SIDE) & (j >= 0) & (j < N_SIDE)
                place = (owner * N_SIDE + j) * N_SIDE + i
                laid += np.bincount(place[inside], (square[some] * in_x * in_y)[inside], len(laid))
        out[first:last] = torch.from_numpy(laid.reshape(-1, N_SIDE**2))
