"""Where a survey's own stars and red galaxies lie: the stellar radius, and the colour that parts red from blue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenspipe.bands import by_wavelength
from lenspipe.robust import robust_sigma

LEAST = 12
"""Sources that a locus needs."""
N_BRIGHT = 300
"""Brightest sources that the stellar locus is looked for among."""
LEAST_SEPARATION = 2.0
"""Ashman's D (Ashman et al. 1994, AJ 108, 2348) below which two modes of colour are not told apart."""
REDDEST = 0.4
"""Part of the galaxies, reddest first, that counts as red where there is one mode."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class StarLocus:
    """Half-light radius of stars, and how much it scatters."""

    radius_arcsec: float
    scatter_arcsec: float
    concentration: float
    """Concentration of stars; NaN where the locus is not measured."""
    n: int
    """Stars on the locus; 0 where it is the layout's PSF."""

    @property
    def resolved_arcsec(self) -> float:
        """Half-light radius from which a source is resolved: a fifth above the stars', or three of their scatters."""
        return max(1.2 * self.radius_arcsec, self.radius_arcsec + 3 * self.scatter_arcsec)


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


def half_sample_mode(values: Numbers) -> float:
    """
    Mode of a sample by halving: the densest half, of that the densest half, and so on (Robertson & Cryer 1974).

    Examples
    --------
    >>> half_sample_mode(np.array([0.0, 1.0, 1.1, 1.12, 1.3, 5.0]))
    1.11
    """
    kept = np.sort(np.asarray(values, float))
    while len(kept) > 3:
        half = (len(kept) + 1) // 2
        width = kept[half - 1 :] - kept[: len(kept) - half + 1]
        start = int(width.argmin())
        kept = kept[start : start + half]
    if len(kept) == 3:
        kept = kept[:2] if kept[1] - kept[0] < kept[2] - kept[1] else kept[1:]
    return float(kept.mean())


def star_locus(
    mag: Numbers, radius_arcsec: Numbers, concentration: Numbers, *, psf_fwhm_arcsec: float | None
) -> StarLocus | None:
    """
    Half-light radius of a survey's stars, from its brightest sources.

    The mode of the radii of the more compact half of the 300 brightest; taken only where it lies at the compact end
    (within 1.25 times the 5th percentile), as a field of galaxies alone has a mode too.

    Parameters
    ----------
    mag, radius_arcsec, concentration : arrays (n,)
        Of all sources; NaN where unknown.
    psf_fwhm_arcsec : float or None
        What the layout states: half of it is the radius where no locus is seen.

    Returns
    -------
    StarLocus or None
        None where neither is known.
    """
    known = np.flatnonzero(np.isfinite(mag) & np.isfinite(radius_arcsec) & (radius_arcsec > 0))
    bright = known[np.argsort(mag[known])[:N_BRIGHT]]
    if len(bright) >= 2 * LEAST:
        radius = radius_arcsec[bright]
        compact = radius[radius <= np.median(radius)]
        mode = half_sample_mode(np.log(compact))
        on = bright[np.abs(np.log(radius) - mode) < 0.1]
        if len(on) >= LEAST and np.exp(mode) < 1.25 * np.percentile(compact, 5):
            scatter = float(robust_sigma(radius_arcsec[on], around=np.exp(mode)))
            return StarLocus(float(np.exp(mode)), scatter, float(np.nanmedian(concentration[on])), len(on))
    if psf_fwhm_arcsec is not None:
        return StarLocus(psf_fwhm_arcsec / 2, 0.0, float("nan"), 0)
    return None


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
