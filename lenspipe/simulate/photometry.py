"""Magnitudes, fluxes and colours: the bands of a source, and the colours of early-type galaxies by redshift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe import bands as known_bands
from lenspipe.errors import ConfigError
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

BANDS = ("u", "g", "r", "i", "z", "Y", "J", "H")
"""Bands of the spectra, blue to red; `lenspipe.bands` says which of them a survey's band is the mean of."""
COLOURS = ("u_g", "g_r", "r_i", "i_z", "z_Y", "Y_J", "J_H")
"""Colours between neighbours of `BANDS`, AB mag."""

_REDSHIFT = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
_EARLY_TYPE = {
    "u_g": (1.75, 1.85, 2.00, 1.95, 1.75, 1.55, 1.40, 1.30, 1.20, 1.10),
    "g_r": (0.75, 0.95, 1.20, 1.45, 1.65, 1.75, 1.75, 1.75, 1.70, 1.60),
    "r_i": (0.37, 0.42, 0.47, 0.53, 0.65, 0.85, 1.02, 1.15, 1.25, 1.30),
    "i_z": (0.25, 0.30, 0.33, 0.35, 0.37, 0.40, 0.45, 0.55, 0.70, 0.95),
    "z_Y": (0.20, 0.22, 0.24, 0.26, 0.27, 0.28, 0.30, 0.33, 0.38, 0.50),
    "Y_J": (0.15, 0.18, 0.20, 0.23, 0.25, 0.27, 0.29, 0.31, 0.34, 0.42),
    "J_H": (0.25, 0.27, 0.28, 0.29, 0.30, 0.31, 0.32, 0.33, 0.35, 0.40),
}


def njy_of_magnitude(mag: ArrayLike) -> NDArray[np.float64]:
    """
    Flux in nanojansky of an AB magnitude, ``m = 31.4 - 2.5 log10(f / nJy)`` (Oke & Gunn 1983).

    Examples
    --------
    >>> float(njy_of_magnitude(31.4))
    1.0
    """
    flux: NDArray[np.float64] = 10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - np.asarray(mag, float)))
    return flux


def magnitude_of_njy(flux_njy: ArrayLike) -> NDArray[np.float64]:
    """AB magnitude of a flux in nanojansky; NaN where the flux is zero or negative."""
    flux = np.asarray(flux_njy, float)
    mag: NDArray[np.float64] = NANOJANSKY_ZERO_POINT_AB - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))
    return mag


def early_type_colours(z: float) -> dict[str, float]:
    """
    Colours of a massive, passive galaxy at redshift ``z``, AB mag.

    Rounded by hand to the passively evolving track of luminous red galaxies of Eisenstein et al. 2001 (AJ 122, 2267,
    appendix B) in g r i, and extended with colours of old stellar populations; good to 0.1 mag in g r i, 0.2 elsewhere.
    """
    return {name: float(np.interp(z, _REDSHIFT, _EARLY_TYPE[name])) for name in COLOURS}


def band_fluxes_njy(mag_r: float, colours: Mapping[str, float], bands: Sequence[str]) -> NDArray[np.float64]:
    """
    Flux in every band ``(n_band,)``, nJy, of an object with r magnitude ``mag_r`` and the given `COLOURS`.

    Raises
    ------
    ConfigError
        A band has no known colour.
    """
    steps = np.array([colours[name] for name in COLOURS])
    mags = -np.concatenate([[0.0], np.cumsum(steps)])
    mags += mag_r - mags[BANDS.index("r")]
    flux = dict(zip(BANDS, njy_of_magnitude(mags), strict=True))
    known = {band.name: band.flux_of for band in known_bands.TABLE if band.flux_of}
    if unknown := [band for band in bands if band not in known]:
        raise ConfigError("no colour is known for these bands", bands=",".join(unknown), known=",".join(known))
    return np.array([sum(flux[b] for b in known[band]) / len(known[band]) for band in bands])


def red_sequence(flux_njy: ArrayLike, bands: Sequence[str]) -> tuple[float, float]:
    """
    Redshift and r magnitude of a massive, passive galaxy from its fluxes.

    The redshift between 0.05 and 0.9 at which `early_type_colours` fit best, all bands alike; with one band, which has
    no colour, 0.45.

    Parameters
    ----------
    flux_njy : array ``(n_band,)``
        Positive, nJy.
    bands : sequence of str

    Examples
    --------
    >>> flux = band_fluxes_njy(19.0, early_type_colours(0.35), ("g", "r", "i"))
    >>> [round(value, 2) for value in red_sequence(flux, ("g", "r", "i"))]
    [0.35, 19.0]
    """
    grid = np.linspace(0.05, 0.9, 86) if len(bands) > 1 else np.array([0.45])
    model = np.stack([band_fluxes_njy(0.0, early_type_colours(z), bands) for z in grid])
    offset = magnitude_of_njy(np.asarray(flux_njy, float)) - magnitude_of_njy(model)
    best = int(offset.var(axis=1).argmin())
    return float(grid[best]), float(offset[best].mean())
