"""Substructure of a class as a recipe draws it, laid to places around any lens."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenspipe.nn.fitted import amounts_of

N_SIDE, REACH = 27, 1.6
"""Places a side to which masses are laid, and how far from the lens the last ones lie, in its Einstein radii."""
NEAR = 0.25
"""Part of the draws that a stamp is compared with: those of the lenses whose Einstein radii rank about its own."""
N_HEAVY, AS_DRAWN = 3, 0.25
"""Masses of a draw that are laid anew for each stamp, and part of them that lie as the recipe has them."""
DRAWS = 4096
"""Draws that are laid to places at once."""
TINY = 1e-30
Gains = list[tuple[Tensor, Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, eq=False)
class Draws(ABC):
    """Substructure of one class as a recipe draws it, on places around any lens."""

    theta_e_arcsec: Tensor
    """Of the lenses ``(draw,)``, rising."""
    squares: Tensor
    """Squares of Einstein radii at places ``(draw, place)``, arcsec^2: of a line, or of masses but the heavy ones."""
    amounts: dict[str, Tensor]
    """What was drawn ``(draw,)``, by name: of a line its square, then its length."""

    @property
    def side(self) -> int:
        """Places a side."""
        return math.isqrt(self.squares.shape[1])

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
    """
    Many masses, each at a place of its own: the heaviest of a draw may lie anywhere.

    One after the other they are laid where the data want them or where the recipe would have them (sequential
    importance sampling: Kong, Liu & Wong 1994, JASA 89, 278), and the last of them everywhere.
    """

    heavy: Tensor
    """Squares of the `N_HEAVY` heaviest ``(draw, heavy)``, falling; 0 where there are fewer."""
    log_part: Tensor
    """Logarithm of the part of all masses at each place ``(place,)``."""

    @classmethod
    def of(cls, table: pa.Table) -> Masses:
        """Of the rows of one class."""
        owner, x, y, square = masses_of(table)
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
        first = rank < N_HEAVY
        heavy = np.zeros((len(table), N_HEAVY), np.float32)
        heavy[owner[first], rank[first]] = square[first]
        part = laid(np.zeros(len(x), np.int64), x, y, np.ones(len(x)), 1)[0]
        rest = laid(owner[~first], x[~first], y[~first], square[~first], len(table))
        if not len(x):  # no draw has any
            part = torch.ones_like(part)
        log_part = (part / part.sum().clamp(min=TINY)).log()
        return cls(radii_of(table), rest, drawn_amounts(table), torch.from_numpy(heavy), log_part)

    def strong(self, near: slice) -> Tensor:  # noqa: D102
        heavy = self.heavy[near].square().sum(1).mean()
        return self.squares[near].square().mean(0) + heavy * self.log_part.exp()

    def gains(self, theta_e_arcsec: float, along: Tensor, data: Tensor) -> Gains:  # noqa: D102
        near = self.near(theta_e_arcsec)
        amounts = {name: values[near, None] for name, values in self.amounts.items()}
        rest, heavy = self.squares[near] @ along, self.heavy[near]
        places = torch.nonzero(torch.isfinite(self.log_part))[:, 0]
        ones, log_part = along[places], self.log_part[places]
        prior = log_part - torch.logsumexp(log_part, 0)
        square = ones.square().sum(1)
        chance, found = torch.Generator().manual_seed(0), Gains()
        for one in data:
            weight, so_far = torch.full((len(rest),), -math.log(len(rest)), dtype=torch.float64), rest
            for k, mass in enumerate(heavy.unbind(1)):
                gain = mass[:, None] * ((one - so_far) @ ones.T) - 0.5 * torch.outer(mass**2, square)
                if k == N_HEAVY - 1:
                    break
                wanted = torch.log_softmax(prior + gain, 1)
                log_drawn = torch.logaddexp(wanted + math.log(1 - AS_DRAWN), prior + math.log(AS_DRAWN))
                at = _chosen(log_drawn, chance)
                weight = weight + (prior[at] - log_drawn.gather(1, at))[:, 0].double()
                so_far = so_far + mass[:, None] * ones[at[:, 0]]
            like = so_far @ one - 0.5 * so_far.square().sum(1) + torch.logsumexp(prior + gain, 1)
            found.append((weight[:, None], like.double()[:, None], amounts))
        return found


def _chosen(log_weight: Tensor, chance: torch.Generator) -> Tensor:
    """A place of each row ``(row, 1)`` by its weights ``(row, place)``; `torch.multinomial` takes ten times as long."""
    up_to = log_weight.exp().cumsum(1)
    level = torch.rand(len(up_to), 1, generator=chance) * up_to[:, -1:]
    return torch.searchsorted(up_to, level).clamp(max=up_to.shape[1] - 1)


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


def radii_of(table: pa.Table) -> Tensor:
    """Einstein radii of the lenses of draws ``(draw,)``."""
    return torch.tensor(table["theta_e_arcsec"].to_pylist(), dtype=torch.float32)


def drawn_amounts(table: pa.Table) -> dict[str, Tensor]:
    """What was drawn of them ``(draw,)``, by name."""
    return {name: torch.tensor(table[name].to_pylist(), dtype=torch.float64) for name in amounts_of(table)}
