"""How a band of stamps was made by fitting smooth lenses: what data sets and cards say of it. Without torch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from lenspipe.toml import Table

LEFT = "left"
"""What the name of the band of residuals ends in."""
SAME_SCALE = 1e-3
"""Relative: pixel scales that count as one."""
MASSES = ("point_mass", "small_mass", "large_mass")
"""What the names of the bands of point masses end in: significance, logarithms of odds (`lenspipe.nn.point_mass`)."""
OF_FIT = "fitted_"
"""What the names of columns of a fit begin with."""
CHI2 = f"{OF_FIT}chi2"
"""Column of the mean square that a fit leaves."""
OF_MASSES = ("label", "line", "theta_e_arcsec", "x", "y", "square_arcsec2")
"""Columns of drawn substructure; the others are amounts."""
ODDS_WAY = 2
"""In which odds are made."""
KEY = b"fit"
"""Key of that column's metadata under which a data set keeps its `SmoothFit`."""


def amounts_of(draws: pa.Table) -> tuple[str, ...]:
    """What was drawn of the draws of one class before its masses were: columns that are not `OF_MASSES`, nor null."""
    return tuple(name for name in draws.column_names if name not in OF_MASSES and not draws[name].null_count)


class DrawnSignals(Table):
    """Substructure that fitted stamps were compared with (`lenspipe.nn.signals`)."""

    recipe: str
    """Recipe that drew it."""
    labels: tuple[str, ...]
    """Its classes."""
    amounts: tuple[str, ...] = ()
    """What is drawn of them, and was estimated."""
    draws: int = Field(ge=1)
    """Draws per class."""
    seed: int
    """Of the draws."""
    table: str
    """Digest of the recipe's substructure."""
    digest: str
    """Of what was drawn."""
    way: int = 1
    """In which odds were made: those of another are other numbers."""


class SmoothFit(Table):
    """The fit that made a band ``BAND_left`` (`lenspipe.nn.sersic_lens`), so that it can be made again elsewhere."""

    band: str
    """Band that was fitted."""
    size_px: int = Field(ge=1)
    """Side of the stamps that were fitted."""
    pixel_scale_arcsec: float = Field(gt=0)
    """Their pixel scale."""
    priors: dict[str, tuple[float, float]]
    """Mean and width of each parameter (`lenspipe.nn.sersic_lens.NAMES`); a width of 0 fixes."""
    light: bool
    """Whether the lens galaxy shines."""
    finer: int = Field(ge=1)
    """Points per pixel and axis of the model."""
    clumps: int = Field(default=0, ge=0)
    """Clumps that a source may have."""
    rounds: int = Field(default=0, ge=0, le=4)
    """Times that lenses with clumps were sought again."""
    point_masses: bool = False
    """Whether the bands of point masses were made, too."""
    signals: DrawnSignals | None = None
    """Substructure whose odds were made, too."""
    lit_beyond: bool = False
    """Whether the PSF brought light from beyond the stamps' edges, and pixels of exactly 0 were no data."""
    fwhm_arcsec: float | None = Field(default=None, gt=0)
    """FWHM of the PSF of all stamps; null: each had its own."""
    njy_per_electron: float | None = Field(default=0.0, ge=0)
    """Flux of an electron, for the noise of photons; 0: the sky's alone. Null: each stamp had its own."""
    chi2: dict[str, tuple[float, float, float]] = {}
    """Quantiles 0.01, 0.5 and 0.99 of the mean square left, by label of the training split."""

    @property
    def left(self) -> str:
        """Name of the band of what is left."""
        return f"{self.band}_{LEFT}"

    @property
    def made(self) -> tuple[str, ...]:
        """Names of the bands that it makes."""
        return (self.left, *(f"{self.band}_{name}" for name in MASSES if self.point_masses))

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the columns that comparing stamps with its drawn signals makes: odds, amounts and their errors."""
        if self.signals is None:
            return ()
        amounts = self.signals.amounts
        names = [f"{label}_log_odds" for label in self.signals.labels]
        return tuple(f"{OF_FIT}{name}" for name in (*names, *amounts, *(f"{one}_error" for one in amounts)))

    @property
    def how(self) -> str:
        """What two fits share that leave the same of a stamp: all but exposures, PSFs and what was left in training."""
        return self.model_dump_json(exclude={"fwhm_arcsec", "njy_per_electron", "chi2", "lit_beyond"})

    def unlike(self, other: SmoothFit) -> list[str]:
        """What differs of two fits that must agree for a network: `how` but for priors and the side of the stamps."""
        names = ("band", "light", "finer", "clumps", "rounds", "point_masses")
        found = [name for name in names if getattr(self, name) != getattr(other, name)]
        if self.signals is not None:  # of others it reads none
            drawn = [one.signals and one.signals.model_dump(exclude={"seed", "digest"}) for one in (self, other)]
            found += ["signals"] * (drawn[0] != drawn[1])
        return found + ["pixel_scale_arcsec"] * (not self.has_pixels_of(other.pixel_scale_arcsec))

    def has_pixels_of(self, pixel_scale_arcsec: float) -> bool:
        """Whether that is the scale of the stamps that were fitted: noise per pixel, its unit, is that of a scale."""
        return abs(pixel_scale_arcsec / self.pixel_scale_arcsec - 1) <= SAME_SCALE

    @property
    def most_chi2(self) -> float | None:
        """
        Mean square left above which a stamp is unlike those that a network learnt from; null where none is known.

        The 0.99 quantile of the class that has the largest.
        """
        return max((high for _, _, high in self.chi2.values()), default=None)

    @property
    def least_chi2(self) -> float | None:
        """Likewise below which it is: half the least 0.01 quantile, as of a noise that is 1.4 times too large."""
        return min((0.5 * low for low, _, _ in self.chi2.values()), default=None)

    def failed(self, chi2: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which mean squares ``(n,)`` say that no lens like those of the training was fitted; NaN does."""
        most, least = self.most_chi2, self.least_chi2
        return ~((chi2 <= (np.inf if most is None else most)) & (chi2 >= (0.0 if least is None else least)))
