"""Lines of even mass: as a recipe draws them, and drawn again around those that are most like the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lenspipe.nn.draws import Draws, Gains, drawn_amounts, laid, masses_of, radii_of

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
        return cls(radii_of(table), squares, drawn_amounts(table), *own)

    def strong(self, near: slice) -> Tensor:  # noqa: D102
        return (self.squares[near] * self.square[near, None]).square().mean(0)

    def gains(self, theta_e_arcsec: float, along: Tensor, data: Tensor) -> Gains:  # noqa: D102
        near = self.near(theta_e_arcsec)
        turned = self.squares[near].view(-1, self.side, self.side)
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
