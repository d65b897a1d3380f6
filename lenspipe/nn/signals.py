"""How much more probable a fitted stamp is with the substructure of a class than with none."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenspipe.nn.fitted import amounts_of
from lenspipe.nn.response import Response, bending, responses
from lenspipe.nn.sersic_image import CENTRE
from lenspipe.nn.sersic_lens import SersicFit

N_SIDE, REACH = 27, 1.6
"""Places a side to which masses are laid, and how far from the lens the last ones lie, in its Einstein radii."""
N_AXIS = 128
"""Directions of the pixels in which signals are compared, those in which they are strongest."""
NEAR = 0.25
"""Part of the draws that a stamp is compared with: those of the lenses whose Einstein radii rank about its own."""
N_TURN = 4
"""Quarter turns of a line about the lens: no direction is preferred."""
N_STRENGTH = 32
"""Strengths of a line that are tried, at equal steps of their distribution."""
CLOSER, N_MORE, N_BEST = (1.0, 0.5), 2048, 32
"""More lines are drawn around the best so far, once and again closer: how many, and around how many."""
AROUND = (0.06, 0.06, 0.15, 0.2)
"""By how much: place in Einstein radii, angle, logarithm of the length."""
N_BIN, N_POINT, LEAST_RANGE = 24, 24, 1e-2
"""Bins of how draws lie and how long they are; points that stand for a line; what is fixed is known to no better."""
BEYOND = 1.1
"""An Einstein radius that is so many times the largest that was drawn, or that part of the least, has no odds."""
LEAST_DRAWS = 30.0
"""Draws, in effect, that an amount is a mean of at least: of too few likelihoods, their logarithms count for less."""
TINY = 1e-30
DRAWS = 4096
"""Draws that are laid to places at once."""


Gains = list[tuple[Tensor, Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, eq=False)
class Draws(ABC):
    """Substructure of one class as a recipe draws it, on places around any lens."""

    theta_e_arcsec: Tensor
    """Of the lenses ``(draw,)``, rising."""
    squares: Tensor
    """Squares of Einstein radii at places ``(draw, place)``, arcsec^2: of a line, or of masses but the heaviest."""
    amounts: dict[str, Tensor]
    """What was drawn ``(draw,)``, by name: of a line its square, then its length."""

    def near(self, theta_e_arcsec: float) -> slice:
        """Draws around lenses of about an Einstein radius."""
        n = max(1, round(NEAR * len(self.theta_e_arcsec)))
        middle = int(torch.searchsorted(self.theta_e_arcsec, theta_e_arcsec))
        first = min(max(middle - n // 2, 0), len(self.theta_e_arcsec) - n)
        return slice(first, first + n)

    @abstractmethod
    def strong(self, near: slice) -> Tensor:
        """Mean square of the squares at each place ``(place,)``."""

    @abstractmethod
    def gains(self, theta_e_arcsec: float, along: Tensor, data: Tensor) -> Gains:
        """
        For each of data ``(n, axis)`` around one lens, log weights, log likelihoods over that of none, and amounts.

        All ``(draw, strength)``; the weights are what a draw counts for before any data, and add up to about 1.
        """


@dataclass(frozen=True, eq=False)
class Masses(Draws):
    """Many masses, each at a place of its own: the heaviest of a draw may lie at any of them."""

    heaviest: Tensor
    """Its square ``(draw,)``."""
    log_part: Tensor
    """Logarithm of the part of all masses at each place ``(place,)``."""

    @classmethod
    def of(cls, table: pa.Table) -> Masses:
        """Of the rows of one class."""
        owner, x, y, square = masses_of(table)
        first = np.concatenate([[True], owner[1:] != owner[:-1]]) if len(owner) else np.zeros(0, bool)
        heaviest = np.zeros(len(table), np.float32)
        heaviest[owner[first]] = square[first]
        part = laid(np.zeros(len(x), np.int64), x, y, np.ones(len(x)), 1)[0]
        rest = laid(owner[~first], x[~first], y[~first], square[~first], len(table))
        if not len(x):  # no draw has any
            part = torch.ones_like(part)
        log_part = (part / part.sum().clamp(min=TINY)).log()
        return cls(_radii(table), rest, _amounts(table), torch.from_numpy(heaviest), log_part)

    def strong(self, near: slice) -> Tensor:  # noqa: D102
        return self.squares[near].square().mean(0) + self.heaviest[near].square().mean() * self.log_part.exp()

    def gains(self, theta_e_arcsec: float, along: Tensor, data: Tensor) -> Gains:  # noqa: D102
        near = self.near(theta_e_arcsec)
        amounts = {name: values[near, None] for name, values in self.amounts.items()}
        rest, heaviest = self.squares[near] @ along, self.heaviest[near]
        places = torch.nonzero(torch.isfinite(self.log_part))[:, 0]
        ones, log_part = along[places], self.log_part[places]
        alone = data @ rest.T - 0.5 * rest.square().sum(1)
        fixed = log_part - heaviest[:, None] * (rest @ ones.T) - 0.5 * torch.outer(heaviest**2, ones.square().sum(1))
        every = (torch.logsumexp(fixed + torch.outer(heaviest, ones @ one), 1) for one in data)
        weight = torch.full((len(rest), 1), -math.log(len(rest)), dtype=torch.float64)
        return [(weight, (one + best).double()[:, None], amounts) for one, best in zip(alone, every, strict=True)]


@dataclass(frozen=True, eq=False)
class Lines(Draws):
    """
    A line of even mass: draws, and then others around those that are most like the data.

    Evidence and amounts are sums over all of them, each over the density with which it was drawn by all stages (the
    balance heuristic: Veach & Guibas 1995, SIGGRAPH, 419).
    """

    lines: Tensor
    """x and y of the middle in Einstein radii of the lens, direction, logarithm of the length ``(draw, 4)``."""
    square: Tensor
    """Square of the Einstein radius of the whole ``(draw,)``; `squares` are those of a line of 1."""

    @classmethod
    def of(cls, table: pa.Table) -> Lines:
        """Of the rows of one class."""
        owner, x, y, square = masses_of(table)
        ends = np.searchsorted(owner, np.arange(len(table) + 1))
        first, last, n = ends[:-1], ends[1:] - 1, np.diff(ends)
        along = np.stack([x[last] - x[first], y[last] - y[first]]) * n / np.maximum(n - 1, 1)
        middle = np.stack([x[last] + x[first], y[last] + y[first]]) / 2
        lines = np.stack([*middle, np.arctan2(along[1], along[0]), np.log(np.hypot(*along).clip(1e-3))], 1)
        whole = np.add.reduceat(square, first)
        squares = laid(owner, x, y, square / whole[owner], len(table))
        own = (torch.from_numpy(one.astype(np.float32)) for one in (lines, whole))
        return cls(_radii(table), squares, _amounts(table), *own)

    def strong(self, near: slice) -> Tensor:  # noqa: D102
        return (self.squares[near] * self.square[near, None]).square().mean(0)

    def gains(self, theta_e_arcsec: float, along: Tensor, data: Tensor) -> Gains:  # noqa: D102
        near = self.near(theta_e_arcsec)
        turned = self.squares[near].view(-1, N_SIDE, N_SIDE)
        signals = torch.cat([torch.rot90(turned, k, (1, 2)).flatten(1) @ along for k in range(N_TURN)])
        lines = torch.cat([_turned(self.lines[near], k) for k in range(N_TURN)])
        steps = (torch.arange(N_STRENGTH) + 0.5) / N_STRENGTH
        strength, density = torch.quantile(self.square[near], steps), Density.of(self.lines[near])
        chance, found = torch.Generator().manual_seed(0), Gains()
        for one in data:
            drawn, gain = [lines], [_of_strengths(signals, one, strength)]
            around, n = list[tuple[Tensor, float]](), [len(lines)]
            for part in CLOSER:
                so_far = torch.cat(drawn)
                likely = torch.where(torch.isfinite(density(so_far)), torch.cat(gain).logsumexp(1), -torch.inf)
                around.append((so_far[likely.topk(min(N_BEST, sum(n))).indices], part))
                n.append(N_MORE)
                drawn.append(_around(*around[-1], n[-1], chance))
                gain.append(_of_strengths(_lines_laid(drawn[-1]) @ along, one, strength))
            every = torch.cat(drawn)
            log_prior = density(every)
            log_drawn = [math.log(n[0]) + log_prior]
            log_drawn += [math.log(m) + _log_around(every, *a) for m, a in zip(n[1:], around, strict=True)]
            weight = log_prior - torch.stack(log_drawn).logsumexp(0)
            weight = torch.where(torch.isfinite(log_prior), weight, -torch.inf)
            each = strength.expand(len(every), -1), (theta_e_arcsec * every[:, 3:].exp()).expand(-1, N_STRENGTH)
            amounts = {name: own.double() for name, own in zip(self.amounts, each, strict=True)}
            weights = (weight.double() - math.log(N_STRENGTH))[:, None].expand(-1, N_STRENGTH)
            found.append((weights, torch.cat(gain).double(), amounts))
        return found


@dataclass(frozen=True, eq=False)
class Density:
    """How dense lines lie before any data: even in angle about the lens, and in direction."""

    edges: tuple[Tensor, Tensor]
    """Of bins of the square of the distance from the lens and of the logarithm of the length."""
    log: tuple[Tensor, Tensor]
    """Logarithms of the densities in them."""

    @classmethod
    def of(cls, lines: Tensor) -> Density:
        """Of draws."""
        edges, log = list[Tensor](), list[Tensor]()
        for values in _placed(lines):
            low, high = values.min(), values.max()
            ends = torch.linspace(float(low), float(high + LEAST_RANGE), N_BIN + 1, dtype=torch.float64)
            inside = (torch.bucketize(values, ends) - 1).clamp(0, N_BIN - 1)
            count = torch.bincount(inside, minlength=N_BIN).double()
            edges.append(ends)
            log.append((count / count.sum() / (ends[1] - ends[0])).log())
        return cls((edges[0], edges[1]), (log[0], log[1]))

    def __call__(self, lines: Tensor) -> Tensor:
        """Logarithm of the density of lines ``(line,)``, up to a constant; -inf where no draw lies."""
        found = torch.zeros(len(lines), dtype=torch.float64)
        for values, edges, log in zip(_placed(lines), self.edges, self.log, strict=True):
            inside = torch.bucketize(values, edges) - 1
            ok = (values >= edges[0]) & (values <= edges[-1])
            found = found + torch.where(ok, log[inside.clamp(0, N_BIN - 1)], -torch.inf)
        return found - 2 * math.log(math.pi)


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

    def reach(self, theta_e_arcsec: float) -> bool:
        """Whether there are draws around lenses of about an Einstein radius."""
        ends = [(float(one.theta_e_arcsec[0]), float(one.theta_e_arcsec[-1])) for one in self.of_class.values()]
        low, high = min(one for one, _ in ends), max(one for _, one in ends)
        return low / BEYOND <= theta_e_arcsec <= high * BEYOND


def compared(fit: SersicFit, stamps: Tensor, sigma: Tensor, values: Tensor, signals: Signals) -> Tensor:
    """
    How much more probable each stamp is with substructure of each class than with none, and how much of it there is.

    The likelihood of a draw that changes the stamp by ``s``, in noise of unit covariance once the fit is marginalised
    (`lenspipe.nn.response.Response`), is ``exp(d s - s^2 / 2)`` of that of no substructure, ``d`` what the fit leaves;
    the evidence of a class is the mean over its draws, and amounts are means in which each draw counts by its
    likelihood, or by a power of it where that would be a mean of less than `LEAST_DRAWS`. To first order in mass, and
    with as many draws as there are: a signal that no draw is like is too improbable.

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
    Tensor (n, column)
        Logarithms of the odds of each class, means of each amount given that its class is there, and their errors. NaN
        for a stamp whose parameters are not finite, or whose Einstein radius lies beyond those that were drawn.
    """
    found = stamps.new_full((len(stamps), len(signals.labels) + 2 * len(signals.amounts)), torch.nan)
    for own, some, response in responses(fit, stamps, sigma, values):
        for j, row in enumerate(own.tolist()):
            if torch.isfinite(response.left[j]).all() and signals.reach(float(some[j, 0])):
                along, left = in_few_axes(response, j, some[j], signals)
                found[row] = torch.cat(told(signals, float(some[j, 0]), along, left[None]), 1)[0].float()
    return found


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
    axis = torch.linspace(-REACH, REACH, N_SIDE) * theta
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


def _placed(lines: Tensor) -> tuple[Tensor, Tensor]:
    return lines[:, :2].double().square().sum(1), lines[:, 3].double()


def _turned(lines: Tensor, quarters: int) -> Tensor:
    """Lines turned about the lens as `torch.rot90` turns images whose rows are y: from +y to +x."""
    for _ in range(quarters):
        lines = torch.stack([lines[:, 1], -lines[:, 0], lines[:, 2] - math.pi / 2, lines[:, 3]], 1)
    return lines


def _of_strengths(signals: Tensor, data: Tensor, strength: Tensor) -> Tensor:
    """Log likelihoods over that of none ``(line, strength)``, of lines of square 1 ``(line, axis)``."""
    return torch.outer(signals @ data, strength) - 0.5 * torch.outer(signals.square().sum(1), strength**2)


def _around(lines: Tensor, part: float, n: int, chance: torch.Generator) -> Tensor:
    """So many lines, each around one of those given."""
    steps = torch.randn(n, 4, generator=chance) * torch.tensor(AROUND) * part
    return lines[torch.arange(n) % len(lines)] + steps


def _log_around(lines: Tensor, centres: Tensor, part: float) -> Tensor:
    """Logarithm of the density with which `_around` draws lines ``(line,)``."""
    width = torch.tensor(AROUND) * part
    away = lines[:, None] - centres
    turn = torch.remainder(away[..., 2] + math.pi / 2, math.pi) - math.pi / 2  # a line has no head
    away = torch.stack([away[..., 0], away[..., 1], turn, away[..., 3]], -1) / width
    peak = (width * math.sqrt(2 * math.pi)).log().sum() + math.log(len(centres))
    return torch.logsumexp(-0.5 * away.square().sum(-1), 1) - peak


def _lines_laid(lines: Tensor) -> Tensor:
    """Squares of lines of 1 at places ``(line, place)``."""
    x, y, angle, log_length = lines.double().numpy().T
    step = ((np.arange(N_POINT) + 0.5) / N_POINT - 0.5)[:, None] * np.exp(log_length)
    owner = np.repeat(np.arange(len(lines)), N_POINT)
    at_x, at_y = ((one + step * turn(angle)).T.ravel() for one, turn in ((x, np.cos), (y, np.sin)))
    return laid(owner, at_x, at_y, np.full(len(owner), 1 / N_POINT), len(lines))


def _radii(table: pa.Table) -> Tensor:
    return torch.tensor(table["theta_e_arcsec"].to_pylist(), dtype=torch.float32)


def _amounts(table: pa.Table) -> dict[str, Tensor]:
    return {name: torch.tensor(table[name].to_pylist(), dtype=torch.float64) for name in amounts_of(table)}


def masses_of(table: pa.Table) -> list[NDArray[Any]]:
    """Draw, places and squares of all masses ``(mass,)``, those of a draw heaviest first."""
    lists = [table[name].combine_chunks() for name in ("x", "y", "square_arcsec2")]
    owner = np.repeat(np.arange(len(table)), np.diff(np.asarray(lists[0].offsets)))
    return [owner, *(np.asarray(one.values, np.float64) for one in lists)]


def laid(
    owner: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64], square: NDArray[np.float64], n: int
) -> Tensor:
    """Squares at places ``(draw, place)``; each mass is shared by the four places around it."""
    found = torch.empty(n, N_SIDE**2)
    ends = np.searchsorted(owner, np.arange(n + 1))
    for first in range(0, n, DRAWS):
        last = min(first + DRAWS, n)
        some = slice(ends[first], ends[last])
        at_x, at_y = ((one[some] + REACH) * (N_SIDE - 1) / (2 * REACH) for one in (x, y))
        left, low = np.floor(at_x).astype(int), np.floor(at_y).astype(int)
        at = np.zeros((last - first) * N_SIDE**2)
        for i, in_x in ((left, left + 1 - at_x), (left + 1, at_x - left)):
            for j, in_y in ((low, low + 1 - at_y), (low + 1, at_y - low)):
                inside = (i >= 0) & (i < N_SIDE) & (j >= 0) & (j < N_SIDE)
                place = ((owner[some] - first) * N_SIDE + j) * N_SIDE + i
                at += np.bincount(place[inside], (square[some] * in_x * in_y)[inside], len(at))
        found[first:last] = torch.from_numpy(at.reshape(-1, N_SIDE**2))
    return found
