"""How much more probable a fitted stamp is with the substructure of a class than with none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lenspipe.nn.damped import n_clump_of
from lenspipe.nn.draws import REACH, TINY, Draws, Masses
from lenspipe.nn.lines import Lines
from lenspipe.nn.response import Response, bending, responses
from lenspipe.nn.sersic_image import CENTRE
from lenspipe.nn.sersic_lens import Others, SersicFit

N_AXIS = 128
"""Directions of the pixels in which signals are compared, those in which they are strongest."""
BEYOND = 1.1
"""An Einstein radius that is so many times the largest that was drawn, or that part of the least, has no odds."""
FAR = 500.0
"""A minimum whose evidence is less by that much, in the logarithm, than that of the best is not counted."""
LEAST_DRAWS = 30.0
"""Draws, in effect, that an amount is a mean of at least: of too few likelihoods, their logarithms count for less."""


@dataclass(frozen=True, eq=False)
class Signals:
    """Draws by class."""

    of_class: dict[str, Draws]

    @classmethod
    def of(cls, table: pa.Table) -> Signals:
        """Of a table as `lenspipe.simulate.signals.draw_signals` makes."""
        label = np.array(table["label"].to_pylist())
        labels = dict.fromkeys(label.tolist())
        own = {one: table.filter(pa.array(label == one)).combine_chunks() for one in labels}
        return cls({one: (Lines if rows["line"][0].as_py() else Masses).of(rows) for one, rows in own.items()})

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes."""
        return tuple(self.of_class)

    @property
    def amounts(self) -> tuple[str, ...]:
        """Names of the amounts of all classes."""
        return tuple(name for draws in self.of_class.values() for name in draws.amounts)

    @property
    def side(self) -> int:
        """Places a side to which they are laid."""
        return next(iter(self.of_class.values())).side

    def reach(self, theta_e_arcsec: float) -> bool:
        """Whether there are draws around lenses of about an Einstein radius."""
        ends = [(float(one.theta_e_arcsec[0]), float(one.theta_e_arcsec[-1])) for one in self.of_class.values()]
        low, high = min(one for one, _ in ends), max(one for _, one in ends)
        return low / BEYOND <= theta_e_arcsec <= high * BEYOND


def compared(
    fit: SersicFit, stamps: Tensor, sigma: Tensor, values: Tensor, signals: Signals, others: Others | None = None
) -> Tensor:
    """
    How much more probable each stamp is with substructure of each class than with none, and how much of it there is.

    The likelihood of a draw that changes the stamp by ``s``, in noise of unit covariance once the fit is marginalised
    (`lenspipe.nn.response.Response`), is ``exp(d s - s^2 / 2)`` of that of no substructure, ``d`` what the fit leaves;
    the evidence of a class is the mean over its draws, and amounts are means in which each draw counts by its
    likelihood, or by a power of it where that would be a mean of less than `LEAST_DRAWS`. To first order in mass, and
    with as many draws as there are: a signal that no draw is like is too improbable. Of a stamp with more minima than
    one, of which one may be the best without substructure and another beside it, evidence is their sum.

    Parameters
    ----------
    fit : SersicFit
        That the values are of.
    stamps, sigma : Tensor (n, y, x)
        As of the fit.
    values : Tensor (n, parameter)
        What it found.
    signals : Signals
    others : Others, optional
        Other minima: the best with each number of clumps is counted.

    Returns
    -------
    Tensor (n, column)
        Logarithms of the odds of each class, means of each amount given that its class is there, and their errors. NaN
        for a stamp whose parameters are not finite, or whose most probable Einstein radius lies beyond those that were
        drawn.
    """
    row, every = torch.arange(len(stamps)), values
    if others is not None:
        row, every = torch.cat([row, others.row]), torch.cat([every, others.values])
        row, every = _probable(fit, stamps, sigma, row, every)
    n_column = len(signals.labels) + 2 * len(signals.amounts)
    evidence = stamps.new_full((len(row),), torch.nan, dtype=torch.float64)
    each = stamps.new_full((len(row), n_column), torch.nan, dtype=torch.float64)
    for own, some, response in responses(fit, stamps, sigma, every, row):
        evidence[own] = response.log_evidence
        for j, k in enumerate(own.tolist()):
            if torch.isfinite(response.left[j]).all() and signals.reach(float(some[j, 0])):
                along, left = in_few_axes(response, j, some[j], signals)
                each[k] = torch.cat(told(signals, float(some[j, 0]), along, left[None]), 1)[0]
    found = stamps.new_full((len(stamps), n_column), torch.nan)
    for k in range(len(stamps)):
        found[k] = _over_minima(evidence[row == k], each[row == k], signals)
    return found


def _probable(fit: SersicFit, stamps: Tensor, sigma: Tensor, row: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Of the minima of each stamp the best with each number of clumps, unless its evidence is next to nothing."""
    evidence, cost = (torch.full((len(row),), size, dtype=torch.float64) for size in (-torch.inf, torch.inf))
    for own, _, response in responses(fit, stamps, sigma, values, row):
        evidence[own] = response.log_evidence.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        cost[own] = response.cost.nan_to_num(torch.inf, torch.inf, torch.inf)
    n_clump, chosen = n_clump_of(values), list[int]()
    for k in range(len(stamps)):
        own = torch.nonzero(row == k)[:, 0]
        of_number = (own[n_clump[own] == n] for n in sorted(set(n_clump[own].tolist())))
        best = [some[cost[some].argmin()] for some in of_number]
        far = max(float(evidence[one]) for one in best) - FAR
        chosen += [int(one) for one in best if float(evidence[one]) > far]
    kept = torch.tensor(chosen, dtype=torch.long)
    return row[kept], values[kept]


def _over_minima(evidence: Tensor, each: Tensor, signals: Signals) -> Tensor:
    """What is told of a stamp ``(column,)`` by its minima: their evidence ``(minimum,)``, and what each tells."""
    known = torch.isfinite(evidence) & torch.isfinite(each).all(1)
    if not known.any() or not known[evidence.nan_to_num(-torch.inf).argmax()]:
        return each.new_full(each.shape[1:], torch.nan)
    n_class, n_amount = len(signals.labels), len(signals.amounts)
    odds, mean, error = torch.tensor_split(each[known], [n_class, n_class + n_amount], 1)
    beside = evidence[known, None] + odds
    of_class = [k for k, draws in enumerate(signals.of_class.values()) for _ in draws.amounts]
    weight = torch.softmax(beside, 0)[:, of_class]
    middle = (weight * mean).sum(0)
    spread = (weight * (error.square() + (mean - middle).square())).sum(0).sqrt()
    return torch.cat([torch.logsumexp(beside, 0) - torch.logsumexp(evidence[known], 0), middle, spread])


def told(signals: Signals, theta_e_arcsec: float, along: Tensor, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log odds ``(n, class)``, means and errors of amounts ``(n, amount)`` of data ``(n, axis)`` around one lens."""
    odds, means, errors = list[Tensor](), list[Tensor](), list[Tensor]()
    for draws in signals.of_class.values():
        every = draws.gains(theta_e_arcsec, along, data)
        odds.append(torch.stack([torch.logsumexp((weight + gain).flatten(), 0) for weight, gain, _ in every]))
        weights = [_spread(weight, gain) for weight, gain, _ in every]
        for name in draws.amounts:
            own = [amounts[name] for _, _, amounts in every]
            middle = [(weight * values).sum() for weight, values in zip(weights, own, strict=True)]
            means.append(torch.stack(middle))
            square = (
                (w * (values - mean).square()).sum() for w, values, mean in zip(weights, own, middle, strict=True)
            )
            errors.append(torch.stack(list(square)).sqrt())
    mean, error = (torch.stack(one, 1) if one else odds[0].new_zeros(len(data), 0) for one in (means, errors))
    return torch.stack(odds, 1), mean, error


def in_few_axes(response: Response, j: int, values: Tensor, signals: Signals) -> tuple[Tensor, Tensor]:
    """
    Unit masses at each place ``(place, axis)`` around stamp ``j`` of a response, and what its fit leaves ``(axis,)``.

    In noise of unit covariance; the axes are the directions of the pixels in which the signals are strongest.
    """
    theta, (x, y) = float(values[0]), values[CENTRE].tolist()
    axis = torch.linspace(-REACH, REACH, signals.side) * theta
    images = _images(response, j, axis + x, axis + y)
    strong = torch.stack([one.strong(one.near(theta)) for one in signals.of_class.values()]).mean(0).sqrt()
    # the directions of a random projection (Halko, Martinsson & Tropp 2011, SIAM Review 53, 217), once more by power
    weighed = images * strong[:, None]
    weighed = weighed / weighed.abs().max().clamp(min=TINY)  # all 0 where no mass shows: then odds are even
    across = weighed.T @ (weighed @ _random(images.shape[1], min(N_AXIS, len(images))))
    axes = torch.linalg.qr(weighed.T @ (weighed @ (across / across.norm().clamp(min=TINY))))[0]
    return images @ axes, axes.T @ response.left[j]


def _images(response: Response, j: int, at_x: Tensor, at_y: Tensor) -> Tensor:
    """Images ``(place, pixel)`` of unit masses on a grid of places, y first, whitened."""
    points = response.points
    x, step = points.x[0] - at_x[:, None], points.pixel_scale_arcsec / points.finer
    rows = [response.seen(j, bending(x[:, None, :], one[:, None], step)) for one in (points.y[:, 0] - y for y in at_y)]
    return response.whitened(j, torch.cat(rows))


@cache
def _random(n_px: int, n_axis: int) -> Tensor:
    return torch.randn(n_px, n_axis, generator=torch.Generator().manual_seed(0))


def _spread(weight: Tensor, gain: Tensor) -> Tensor:
    """Weights ``(draw, strength)``, likelihoods to the power, 1 or less, of which enough draws count."""
    low, high = 0.0, 1.0
    found = _raised(weight, gain, 1.0)
    if _in_effect(found) >= LEAST_DRAWS:
        return found
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _in_effect(_raised(weight, gain, middle)) >= LEAST_DRAWS else (low, middle)
    return _raised(weight, gain, low)


def _raised(weight: Tensor, gain: Tensor, power: float) -> Tensor:
    return torch.softmax((weight + power * gain).flatten(), 0).view(gain.shape)


def _in_effect(weight: Tensor) -> float:
    """Kish 1965: that many draws of equal weight have the same sum of squares, whatever their strengths."""
    return float(1 / weight.sum(1).square().sum())
