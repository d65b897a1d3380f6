"""Stamps made by a generator, one by one of their own seeds: in nJy, with what was asked of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, ModelError
from lenspipe.infer.loaded import LoadedNetwork
from lenspipe.nn.network import GeneratorNetwork
from lenspipe.nn.outputs import Generate
from lenspipe.nn.preprocess import stretch_inverse

STREAM = 97
BEYOND = 0.05
"""How far a range may go beyond the numbers that the card keeps of the training, in units of their own range."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """What is asked of stamps."""

    label: str | None = None
    """Their class; drawn as often as in training where None."""
    ranges: Mapping[str, tuple[float, float]] | None = None
    """Ranges of numbers, uniform, for classes that have them; those of a training stamp of the same class where a
    number is not named."""


@dataclass(frozen=True)
class Made:
    """
    Stamps that were made.

    Attributes
    ----------
    image_njy : array (n, band, y, x)
        Flux per pixel in the card's bands.
    label : array (n,) of int
        Place of the class in the card.
    values : array (n, target)
        Numbers that were asked for, in their own units; NaN where a stamp of its class has none.
    """

    image_njy: NDArray[np.float32]
    label: NDArray[np.int64]
    values: Array


class Generator(LoadedNetwork):
    """
    A checkpoint of a generator, ready to make stamps.

    Stamp ``item`` of a seed is the same on one machine whatever others are made with it, in whatever batches: its
    noise has a seed of its own, and batches are as in `lenspipe.infer.loaded.LoadedNetwork`.

    Raises
    ------
    ModelError
        The checkpoint is not a generator.
    """

    def __init__(
        self, folder: str | Path, device: str = "auto", batch_size: int | None = None, threads: int = 1
    ) -> None:
        super().__init__(folder, device, batch_size, threads)
        if not isinstance(self._module, GeneratorNetwork) or not isinstance(self.card.outputs, Generate):
            raise ModelError("this model makes no stamps: give one of the task generate", model=self.card.name)
        self.outputs = self.card.outputs
        self._known = {name: self._known_of(1 + k) for k, name in enumerate(self.outputs.targets)}

    def check(self, asked: Asked) -> None:
        """Raise `ConfigError` where something is asked that the generator was not taught."""
        outputs = self.outputs
        if asked.label is not None and asked.label not in outputs.classes:
            raise ConfigError(
                "the generator was not taught this label", got=asked.label, known=",".join(outputs.classes)
            )
        for name, (low, high) in (asked.ranges or {}).items():
            if name not in outputs.targets:
                raise ConfigError(
                    "the generator was not taught this number; a training names them with --targets",
                    got=name,
                    known=",".join(outputs.targets) or "none",
                )
            if not -np.inf < low <= high < np.inf:
                raise ConfigError("a range is its least number, then its largest", number=name, got=f"{low}:{high}")
            self._demand_taught(name, low, high, asked.label)

    def _demand_taught(self, name: str, low: float, high: float, label: str | None) -> None:
        """Raise `ConfigError` where no training stamp had such numbers: what is made of them means nothing."""
        outputs = self.outputs
        if not outputs.drawn:  # nothing is known of them
            return
        known = [v for k, known in enumerate(self._known[name]) if label in (None, outputs.classes[k]) for v in known]
        if not known:
            raise ConfigError("no training stamp of this label has the number", number=name, label=label)
        beyond = BEYOND * (max(known) - min(known))
        if low < min(known) - beyond or high > max(known) + beyond:
            raise ConfigError(
                "the range goes beyond what the generator was taught",
                number=name,
                got=f"{low:g}:{high:g}",
                taught=f"{min(known):.4g}:{max(known):.4g}",
            )

    def _known_of(self, place: int) -> list[list[float]]:
        """By class: what some training stamps have of a number."""
        return [
            [value for row in self.outputs.drawn if int(row[0] or 0) == k and (value := row[place]) is not None]
            for k in range(len(self.outputs.classes))
        ]

    def make(self, items: Sequence[int], *, seed: int, asked: Asked | None = None) -> Made:
        """
        Make stamps by their numbers.

        Parameters
        ----------
        items : sequence of int
            Numbers of the stamps, from 0.
        seed : int
        asked : Asked, optional
            Of all of them.

        Raises
        ------
        ModelError
            A stamp is not finite.
        """
        wanted = asked or Asked()
        self.check(wanted)
        label = np.empty(len(items), np.int64)
        values = np.full((len(items), len(self.outputs.targets)), np.nan)
        noise = np.empty((len(items), self._network.n_noise), np.float32)
        for k, item in enumerate(items):
            rng = np.random.default_rng([seed, STREAM, int(item)])
            label[k] = self._label(wanted, rng)
            values[k] = self._values(int(label[k]), wanted, rng)
            noise[k] = rng.standard_normal(self._network.n_noise, np.float32)
        return Made(self._images(noise, label, values), label, values)

    def make_as(self, label: NDArray[np.integer], values: Array, *, seed: int) -> NDArray[np.float32]:
        """Stamps ``(n, band, y, x)``, nJy, of classes ``(n,)`` and numbers ``(n, target)`` that are given for each."""
        noise = [
            np.random.default_rng([seed, STREAM, k]).standard_normal(self._network.n_noise, np.float32)
            for k in range(len(label))
        ]
        return self._images(np.stack(noise), np.asarray(label), values)

    @property
    def _network(self) -> GeneratorNetwork:
        assert isinstance(self._module, GeneratorNetwork)
        return self._module

    def _label(self, asked: Asked, rng: np.random.Generator) -> int:
        shares = np.array(self.outputs.shares)
        drawn = int(np.searchsorted(np.cumsum(shares / shares.sum()), rng.random(), side="right"))
        if asked.label is not None:
            return self.outputs.classes.index(asked.label)
        return min(drawn, len(shares) - 1)

    def _values(self, label: int, asked: Asked, rng: np.random.Generator) -> list[float]:
        place = rng.random()
        if not self.outputs.targets:
            return []
        rows = [row for row in self.outputs.drawn if int(row[0] or 0) == label]
        of_row = rows[int(place * len(rows))][1:] if rows else [None] * len(self.outputs.targets)
        values = [np.nan if value is None else value for value in of_row]
        for name, (low, high) in (asked.ranges or {}).items():
            drawn = rng.uniform(low, high)
            if not rows or self._known[name][label]:  # not an Einstein radius of what is no lens
                values[self.outputs.targets.index(name)] = drawn
        return values

    def _images(self, noise: NDArray[np.float32], label: NDArray[np.integer], values: Array) -> NDArray[np.float32]:
        outputs, card = self.outputs, self.card
        scaled = (values - np.array(outputs.target_means)) / np.array(outputs.target_spreads)
        condition = outputs.condition(label, scaled)
        out = np.empty((len(noise), len(card.bands), card.stamp_px, card.stamp_px), np.float32)
        with torch.inference_mode():
            for rows in self.batches(len(noise)):
                inputs = [self._on_device(x[rows], self.batch_size) for x in (noise, condition)]
                stretched = self._network.generate(*inputs).cpu().numpy()[: rows.stop - rows.start]
                out[rows] = stretch_inverse(stretched, card.stretch) * card.pixel_scale_arcsec**2
        broken = np.flatnonzero(~np.isfinite(out).all(axis=(1, 2, 3)))
        if len(broken):
            raise ModelError("the generator made stamps that are not finite", model=card.name, n=len(broken))
        return out
