"""What generators share: the sides of their maps, and how an opponent is told what was asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.network import GeneratorNetwork

SLOPE = 0.2
"""Of leaky ReLUs."""


class Generating(GeneratorNetwork):
    """A generator of stamps of one side; it says how many planes it gives."""

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, n_condition: int) -> None:
        super().__init__(n_channel)
        if n_out != n_channel:
            raise ModelError(
                "a generator gives as many planes as stamps have, for the task generate", n_out=n_out, want=n_channel
            )
        self.n_channel, self.stamp_px, self.n_condition = n_channel, stamp_px, n_condition


def unconditional(family: str, n_condition: int) -> None:
    """Raise `ModelError` where a family that takes no conditions is given some."""
    if n_condition:
        raise ModelError(
            "this family cannot be told a class or a number: train it on one label (labels.classes) and no targets, or "
            "choose conditional or diffusion",
            family=family,
            n_condition=n_condition,
        )


def sides_of(stamp_px: int) -> list[int]:
    """
    Sides of maps from the smallest, which is 4 to 7, each twice the one before; the last is cut to the stamp.

    Examples
    --------
    >>> sides_of(32), sides_of(9), sides_of(65)
    ([4, 8, 16, 32], [5, 10], [5, 10, 20, 40, 80])
    """
    n_up = max(0, (stamp_px // 4).bit_length() - 1)
    first = -(-stamp_px // 2**n_up)
    return [first * 2**level for level in range(n_up + 1)]


def middle(maps: Tensor, side: int) -> Tensor:
    """The middle of maps ``(n, map, y, x)``, of so many pixels a side."""
    edge = (maps.shape[-1] - side) // 2
    return maps[..., edge : edge + side, edge : edge + side]


class Judgement(nn.Module):
    """
    A number of what a critic saw: ``w . h``, and with a condition ``+ e(c) . h`` (Miyato & Koyama 2018, equation 3).

    For classes ``e`` is theirs, a vector of each; here it has a hidden layer, as conditions may be numbers.
    """

    def __init__(self, n_seen: int, n_condition: int) -> None:
        super().__init__()
        self.alone = nn.Linear(n_seen, 1)
        self.asked: nn.Module | None = None
        if n_condition:
            self.asked = nn.Sequential(nn.Linear(n_condition, 64), nn.LeakyReLU(SLOPE), nn.Linear(64, n_seen))

    def forward(self, seen: Tensor, condition: Tensor) -> Tensor:
        """``(n, n_seen)`` and ``(n, n_condition)`` to ``(n,)``."""
        said: Tensor = self.alone(seen)[:, 0]
        if self.asked is not None:
            said = said + (self.asked(condition) * seen).sum(1) / seen.shape[1] ** 0.5
        return said


class ConvolutionCritic(nn.Module):
    """
    Strided convolutions to a number: the discriminator of Radford et al. (2016).

    Parameters
    ----------
    norm : str
        ``batch`` as theirs; ``none`` where a penalty on slopes of single stamps must not see their neighbours.
    """

    def __init__(self, n_channel: int, stamp_px: int, width: int, n_condition: int, norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in, side = n_channel, stamp_px
        for level in range(max(1, len(sides_of(stamp_px)) - 1)):
            n_map = width * 2 ** min(level, 2)
            layers.append(nn.Conv2d(n_in, n_map, 4, stride=2, padding=1))
            if norm == "batch" and level:
                layers.append(nn.BatchNorm2d(n_map))
            layers.append(nn.LeakyReLU(SLOPE))
            n_in, side = n_map, side // 2
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.judgement = Judgement(n_in * side**2, n_condition)

    def forward(self, stamps: Tensor, condition: Tensor) -> Tensor:
        """Scaled stamps ``(n, channel, y, x)`` to ``(n,)``."""
        said: Tensor = self.judgement(self.layers(stamps), condition)
        return said


def parts_of(noise: Tensor, sizes: list[tuple[int, ...]]) -> list[Tensor]:
    """Noise ``(n, all)`` cut into arrays ``(n, *size)``, one after another."""
    lengths = [int(torch.Size(size).numel()) for size in sizes]
    return [part.reshape(-1, *size) for part, size in zip(torch.split(noise, lengths, dim=1), sizes, strict=True)]
