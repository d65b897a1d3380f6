"""Where a survey's own stars lie: their radius and their concentration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenspipe.robust import robust_sigma
from lenspipe.scan.hosts import LEAST

N_BRIGHT = 300
"""Brightest sources that the stellar locus is looked for among."""

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
