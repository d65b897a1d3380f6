"""The stars of a window by their size: where they lie in size and brightness, how wide that locus is, where it ends."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lenspipe.robust import robust_sigma

Array = NDArray[np.float64]

MIN_STARS = 12
"""Fewest stars, above what lies beside them, that make a locus."""
STRIP = 0.12
"""Width of the strip of ln(radius) that is searched for the most crowded place: 12 %."""
CONTRAST = 2.5
"""Least ratio of the sources in that strip to those in the strips beside it."""
BRIGHT_SNR = (400.0, 200.0, 100.0, 50.0)
"""Signal-to-noise from which sources are asked, the brightest first: there stars are many and galaxies few."""
LARGER, MIN_LARGER = 1.2, 5
"""So many sources, so many times larger than any star, show that a window has galaxies. Where nothing is larger than
the rest, one size says nothing: they may be stars, or galaxies that somebody drew."""
FAINT_SNR = 20.0
"""The locus is followed no further than this."""
SMALLEST_PX = 0.8
"""Half-light radius in pixels below which nothing has passed the telescope: cosmic rays, hot pixels."""
STEP = np.log(10 ** (0.4 * 0.5))
"""Step in ln(signal-to-noise) in which the locus is followed: half a magnitude."""
MIN_IN_STEP, MIN_BESIDE = 6, 3
MIN_FOR_PLANE = 40
NARROWEST, WIDEST = 0.015, 0.10
"""Limits of the locus' standard deviation in ln(radius)."""
FLAT_CORE = 0.9
"""Mean over largest pixel of the core, above which it is cut off flat."""
SATURATED_REACH = 2.0
"""Half-light radius of a saturated star, in units of the locus, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class StarLocus:
    """
    Where the stars of a window lie in half-light radius, by signal-to-noise and position.

    Attributes
    ----------
    ln_snr : float64 array (k,)
        Rising; the first is the faintest brightness at which stars are still told from galaxies.
    ln_radius, sigma : float64 arrays (k,)
        Middle [ln px] and standard deviation of the locus there.
    galaxy_fraction : float64 array (k,)
        Galaxies among the sources on the locus there, estimated from the sizes just above it.
    plane : (float, float, float)
        ln(radius) less the locus is ``plane[0] + plane[1] * x_px + plane[2] * y_px``: the change over the window.
    width_sigma : float
        A star lies at most so many standard deviations above the middle.
    n_star : int
        Stars on it: members, less the galaxies expected among them.
    members : bool array (n,)
        Which of the sources are clean and on the locus.
    """

    ln_snr: Array
    ln_radius: Array
    sigma: Array
    galaxy_fraction: Array
    plane: tuple[float, float, float]
    width_sigma: float
    n_star: int
    members: NDArray[np.bool_]

    @property
    def radius_px(self) -> float:
        """Half-light radius of a bright star in the middle of the locus."""
        return float(np.exp(self.ln_radius[-1]))

    @property
    def faintest_snr(self) -> float:
        """Signal-to-noise below which nothing is called a star."""
        return float(np.exp(self.ln_snr[0] - STEP / 2))

    def brightest_snr(self, snr: Array) -> float:
        """Signal-to-noise of the third brightest member: stars that are brighter may be saturated."""
        return float(np.sort(snr[self.members])[-3:].min())

    def limit_px(self, snr: Array, x_px: Array, y_px: Array) -> Array:
        """Largest half-light radius that is a star's, for sources of this signal-to-noise at these places."""
        ln = np.log(np.maximum(snr, 1e-9))
        above = np.interp(ln, self.ln_snr, self.ln_radius + self.width_sigma * self.sigma)
        return np.asarray(np.exp(above + self._off(x_px, y_px)))

    def are_stars(self, radius_px: Array, snr: Array, x_px: Array, y_px: Array) -> NDArray[np.bool_]:
        """Which sources are no larger than stars, as bright as stars can be told; NaN radii are not."""
        with np.errstate(invalid="ignore"):
            return (snr >= self.faintest_snr) & (radius_px <= self.limit_px(snr, x_px, y_px))

    def galaxies_among(self, snr: Array) -> Array:
        """Estimated fraction of galaxies among sources on the locus at this signal-to-noise."""
        return np.interp(np.log(np.maximum(snr, 1e-9)), self.ln_snr, self.galaxy_fraction)

    def _off(self, x_px: Array, y_px: Array) -> Array:
        return self.plane[0] + self.plane[1] * x_px + self.plane[2] * y_px


def find_locus(
    radius_px: Array,
    snr: Array,
    clean: NDArray[np.bool_],
    x_px: Array,
    y_px: Array,
    *,
    width_sigma: float,
    purity_min: float,
) -> StarLocus | None:
    """
    Find the stellar locus in size and brightness.

    Stars are the one kind of source of which many have the same size. Among the brightest sources the most crowded
    strip of ln(radius) is the locus if it holds `MIN_STARS` more than the strips above and below it, and `CONTRAST`
    times as many; else fainter ones are asked as well. From there the locus is followed towards the faint end in steps
    of half a magnitude, each with its own median and width, until the galaxies that lie just above it, continued into
    it at the same density, would be more than ``1 - purity_min`` of what it holds. That overstates them: fewer
    galaxies are as small as the PSF than a little larger.

    Parameters
    ----------
    radius_px : float64 array (n,)
        Half-light radius, all measured with one kind of aperture.
    snr : float64 array (n,)
        Signal-to-noise of the flux.
    clean : bool array (n,)
        Neither blended, nor at an edge, nor masked in part.
    x_px, y_px : float64 arrays (n,)
    width_sigma : float
        Half width of the locus in standard deviations.
    purity_min : float
        Smallest fraction of stars among the sources on the locus.

    Returns
    -------
    StarLocus or None
        None where too few stars are found, or nothing that is larger.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        usable = clean & (radius_px > SMALLEST_PX) & (snr > FAINT_SNR) & np.isfinite(snr)
        ln_r, ln_s = np.where(usable, np.log(radius_px), np.nan), np.where(usable, np.log(snr), np.nan)
    for least in BRIGHT_SNR:
        bright = usable & (snr >= least)
        if (middle := _most_crowded(np.sort(ln_r[bright]))) is not None:
            break
    else:
        return None
    middle, sigma, members = _settle(ln_r, bright, middle)
    plane = (0.0, 0.0, 0.0)
    if members.sum() >= MIN_FOR_PLANE:
        plane = _plane(ln_r[members] - middle, x_px[members], y_px[members])
        ln_r = ln_r - (plane[0] + plane[1] * x_px + plane[2] * y_px)
        middle, sigma, members = _settle(ln_r, bright, middle)
    steps = _follow(ln_r, ln_s, usable, middle, sigma, width_sigma=width_sigma, purity_min=purity_min)
    if not steps:
        return None
    ln_snr, ln_radius, widths, galaxies = np.array(steps[::-1]).T
    reach = width_sigma * np.interp(ln_s, ln_snr, widths)
    with np.errstate(invalid="ignore"):
        members = usable & (ln_s >= ln_snr[0] - STEP / 2) & (np.abs(ln_r - np.interp(ln_s, ln_snr, ln_radius)) <= reach)
    n_star = round(float(members.sum() - np.interp(ln_s[members], ln_snr, galaxies).sum()))
    if n_star < MIN_STARS:
        return None
    locus = StarLocus(ln_snr, ln_radius, widths, galaxies, plane, width_sigma, n_star, members)
    with np.errstate(invalid="ignore"):
        larger = (snr >= locus.faintest_snr) & (radius_px > LARGER * locus.limit_px(snr, x_px, y_px))
    return locus if larger.sum() >= MIN_LARGER else None


def saturated_stars(
    locus: StarLocus, radius_px: Array, snr: Array, x_px: Array, y_px: Array, flatness: Array
) -> NDArray[np.bool_]:
    """
    Stars above the locus because their cores are cut off.

    They are brighter than nearly all stars on it, up to twice as large, and flat in the middle.

    Parameters
    ----------
    flatness : float64 array (n,)
        Mean over largest pixel of the core, as wide as the PSF.
    """
    with np.errstate(invalid="ignore"):
        near = radius_px <= SATURATED_REACH * locus.limit_px(snr, x_px, y_px)
        return near & (snr > locus.brightest_snr(snr)) & (flatness > FLAT_CORE)


def _most_crowded(ln_r: Array) -> float | None:
    """Middle of the strip that stands out most from those above and below it, if it does so enough."""
    edges = ln_r[:, None] + STRIP * np.array([-1.5, -0.5, 0.0, 1.0, 1.5, 2.5])
    counted = np.searchsorted(ln_r, edges, "left")
    inside = np.searchsorted(ln_r, edges[:, 3], "right") - np.arange(len(ln_r))
    beside = np.maximum(counted[:, 1] - counted[:, 0], counted[:, 5] - counted[:, 4])
    stands_out = (inside - beside >= MIN_STARS) & (inside >= CONTRAST * beside)
    if not stands_out.any():
        return None
    best = int(np.argmax(np.where(stands_out, inside - beside, -1)))
    return float(np.median(ln_r[best : best + inside[best]]))


def _settle(ln_r: Array, among: NDArray[np.bool_], middle: float) -> tuple[float, float, NDArray[np.bool_]]:
    """Median and width of the sources around a place, clipped until they stay."""
    reach = STRIP
    sigma = NARROWEST
    with np.errstate(invalid="ignore"):
        for _ in range(8):
            members = among & (np.abs(ln_r - middle) < reach)
            if members.sum() < 3:
                break
            middle = float(np.median(ln_r[members]))
            sigma = float(np.clip(robust_sigma(ln_r[members]), NARROWEST, WIDEST))
            reach = min(3 * sigma, STRIP)
        return middle, sigma, among & (np.abs(ln_r - middle) < reach)


def _plane(off: Array, x_px: Array, y_px: Array) -> tuple[float, float, float]:
    """Least-squares plane, with those beyond three standard deviations left out."""
    design = np.column_stack([np.ones_like(x_px), x_px, y_px])
    kept = np.ones(len(off), bool)
    for _ in range(3):
        solution = np.linalg.lstsq(design[kept], off[kept], rcond=None)[0]
        left = off - design @ solution
        kept = np.abs(left) < 3 * max(float(robust_sigma(left)), NARROWEST)
    return float(solution[0]), float(solution[1]), float(solution[2])


def _follow(
    ln_r: Array,
    ln_s: Array,
    usable: NDArray[np.bool_],
    middle: float,
    sigma: float,
    *,
    width_sigma: float,
    purity_min: float,
) -> list[tuple[float, float, float, float]]:
    """Steps from bright to faint: ln(snr), ln(radius), sigma, fraction of galaxies."""
    steps: list[tuple[float, float, float, float]] = []
    top, least = float(np.nanmax(ln_s)), sigma  # noise widens the locus, and nothing makes it narrower
    n_in = n_beside = 0.0
    with np.errstate(invalid="ignore"):
        while top > np.log(FAINT_SNR):
            here = usable & (ln_s > top - STEP) & (ln_s <= top)
            near = here & (np.abs(ln_r - middle) < 3 * sigma)
            if near.sum() >= MIN_IN_STEP:
                middle = float(np.median(ln_r[near]))
                below = near & (ln_r <= middle)  # galaxies are above
                sigma = float(np.clip(robust_sigma(ln_r[below], around=middle), least, WIDEST))
            half = width_sigma * sigma
            # a step counts whole, the one before it by half, and so on: single steps hold few sources
            n_in = n_in / 2 + (here & (np.abs(ln_r - middle) <= half)).sum()
            n_beside = n_beside / 2 + (here & (ln_r > middle + half) & (ln_r <= middle + 2 * half)).sum()
            galaxies = min(2 * n_beside / n_in, 1.0) if n_in else 0.0
            if n_beside >= MIN_BESIDE and galaxies > 1 - purity_min:
                break
            steps.append((top - STEP / 2, middle, sigma, galaxies))
            top -= STEP
    return steps
