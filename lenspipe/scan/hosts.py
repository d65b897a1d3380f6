"""Which galaxies of a run may carry arcs: one choice for `lenspipe finder` and `lenspipe completeness`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenspipe.bands import by_wavelength
from lenspipe.errors import ConfigError, DataError
from lenspipe.image.sources import FLAG_EDGE

LEAST = 12
"""Sources that a locus needs."""
LEAST_SEPARATION = 2.0
"""Ashman's D (Ashman et al. 1994, AJ 108, 2348) below which two modes of colour are not told apart."""
REDDEST = 0.4
"""Part of the galaxies, reddest first, that counts as red where there is one mode."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class HostCuts:
    """Which galaxies may be hosts, in numbers."""

    mag: tuple[float, float]
    """AB magnitude in the band of the run's selection between these."""
    half_light_radius_arcsec: tuple[float, float]
    """Half-light radius between these."""
    axis_ratio_min: float
    mask_fraction_max: float
    """Largest masked part of the Kron ellipse."""
    colour_min: float = -np.inf
    """Bluest colour."""


def is_host(
    mag: NDArray[np.floating],
    colour: NDArray[np.floating] | None,
    half_light_radius_arcsec: NDArray[np.floating],
    axis_ratio: NDArray[np.floating],
    flags: NDArray[np.integer],
    mask_fraction: NDArray[np.floating],
    cuts: HostCuts,
) -> NDArray[np.bool_]:
    """
    Which galaxies ``(n,)`` lie within the cuts and touch no edge; NaN does not, and no colour is asked for where None.

    Examples
    --------
    >>> shape = {"half_light_radius_arcsec": (0.6, 4), "axis_ratio_min": 0.5, "mask_fraction_max": 0}
    >>> cuts = HostCuts(mag=(16, 21), colour_min=1.5, **shape)
    >>> given = np.array([1.0, 1.0, 3.0]), np.array([0.8, 0.8, 0.8]), np.zeros(3, int), np.zeros(3)
    >>> is_host(np.array([18.0, np.nan, 20.0]), np.array([2.0, 2.0, 1.0]), *given, cuts)
    array([ True, False, False])
    """
    smallest, largest = cuts.half_light_radius_arcsec
    keep = (mag >= cuts.mag[0]) & (mag <= cuts.mag[1])
    keep &= (half_light_radius_arcsec >= smallest) & (half_light_radius_arcsec <= largest)
    keep &= (axis_ratio >= cuts.axis_ratio_min) & (flags & FLAG_EDGE == 0) & (mask_fraction <= cuts.mask_fraction_max)
    if colour is not None:
        keep &= colour >= cuts.colour_min
    return np.asarray(keep)


@dataclass(frozen=True)
class RedSequence:
    """The colour that parts red galaxies from blue ones."""

    blue: str
    red: str
    """Bands of the colour ``blue - red``."""
    threshold_mag: float
    """Redder than this is red."""
    separation: float
    """Distance of the two modes in units of their widths (Ashman's D); NaN where given or where there is one mode."""
    n: int
    """Galaxies that it was measured on; 0 where it is given."""

    def said(self) -> str:
        """In words."""
        how = (
            "given"
            if not self.n
            else f"two modes, {self.separation:.1f} widths apart, of {self.n} galaxies"
            if np.isfinite(self.separation)
            else f"one mode: the reddest {REDDEST:.0%} of {self.n} galaxies"
        )
        return f"{self.blue} - {self.red} > {self.threshold_mag:.2f} ({how})"


def colour_of(bands: Sequence[str]) -> tuple[str, str] | None:
    """
    Bands of the colour that tells early types best: g - i, else the widest colour among u to z; None with one band.

    Examples
    --------
    >>> colour_of("ugri"), colour_of("grz"), colour_of(("VIS",)), colour_of(("VIS", "Y", "J"))
    (('g', 'i'), ('g', 'z'), None, ('VIS', 'J'))
    """
    ordered = sorted(bands, key=by_wavelength)
    optical = [band for band in ordered if band in ("g", "r", "i", "z")]
    if "g" in optical and "i" in optical:
        return "g", "i"
    chosen = optical if len(optical) > 1 else ordered
    return (chosen[0], chosen[-1]) if len(chosen) > 1 else None


def red_threshold(colour: Numbers) -> tuple[float, float]:
    """
    The colour that parts two modes, and their separation (Ashman's D).

    A mixture of two normal distributions by expectation and maximisation; the threshold is where both are as likely.
    Where they are not apart, the reddest two fifths are beyond it and the separation is NaN.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> both = np.r_[rng.normal(0.8, 0.2, 300), rng.normal(2.0, 0.15, 200)]
    >>> threshold, separation = red_threshold(both)
    >>> bool(1.3 < threshold < 1.7), bool(separation > 5)
    (True, True)
    """
    known = np.asarray(colour, float)
    known = known[np.isfinite(known)]
    low, high = np.percentile(known, [2, 98])
    kept = known[(known >= low) & (known <= high)]
    mean, width = np.percentile(kept, [25, 75]), np.full(2, max(kept.std() / 2, 1e-3))
    share = np.array([0.5, 0.5])
    for _ in range(200):
        density = share * np.exp(-0.5 * ((kept[:, None] - mean) / width) ** 2) / width
        part = density / density.sum(axis=1, keepdims=True).clip(1e-300)
        total = part.sum(axis=0).clip(1e-9)
        mean = (part * kept[:, None]).sum(axis=0) / total
        width = np.sqrt((part * (kept[:, None] - mean) ** 2).sum(axis=0) / total).clip(0.03)
        share = total / len(kept)
    order = np.argsort(mean)
    mean, width, share = mean[order], width[order], share[order]
    separation = float(np.sqrt(2) * (mean[1] - mean[0]) / np.hypot(*width))
    if separation < LEAST_SEPARATION or share.min() < 0.1:
        return float(np.quantile(known, 1 - REDDEST)), float("nan")
    grid = np.linspace(mean[0], mean[1], 400)
    log_density = np.log(share / width) - 0.5 * ((grid[:, None] - mean) / width) ** 2
    return float(grid[np.abs(log_density[:, 0] - log_density[:, 1]).argmin()]), separation


def colour_bands_of(bands: Sequence[str], asked: Sequence[str] = ()) -> tuple[str, str] | None:
    """
    The two bands of the colour, blue first: those asked for, else `colour_of`.

    Raises
    ------
    ConfigError
        A band that is asked for is not there.
    """
    if not asked:
        return colour_of(bands)
    if len(asked) != 2:
        raise ConfigError("hosts.colour_bands are two bands, blue first, or none", got=" ".join(asked))
    if missing := [band for band in asked if band not in bands]:
        raise ConfigError("hosts.colour_bands names a band that the run lacks", missing=" ".join(missing))
    return asked[0], asked[1]


def red_sequence(pair: tuple[str, str], colour: Numbers, *, colour_min: float | None = None) -> RedSequence:
    """
    The colour from which galaxies are red, given or measured on galaxies within all other cuts.

    Parameters
    ----------
    pair : (str, str)
        Bands of the colour, blue first.
    colour : array (n,)
        Colours of the galaxies, mag; those that are not finite are left out.
    colour_min : float, optional
        The colour, where it is given.

    Raises
    ------
    DataError
        There are too few galaxies to measure it on, and none is given.
    """
    if colour_min is not None:
        return RedSequence(*pair, colour_min, float("nan"), 0)
    known = colour[np.isfinite(colour)]
    if len(known) < 2 * LEAST:
        raise DataError(
            "too few resolved galaxies to measure a red sequence on: scan more sky, or give hosts.colour_min",
            galaxies=len(known),
            needed=2 * LEAST,
        )
    return RedSequence(*pair, *red_threshold(known), len(known))
