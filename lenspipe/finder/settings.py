"""Settings of a finder that a survey teaches, typed; read from TOML by the commands."""

from __future__ import annotations

from pydantic import Field

from lenspipe.simulate.population import Range
from lenspipe.toml import Table


class HostSettings(Table):
    """Which of a run's sources carry arcs, and which stand for everything else."""

    mag: tuple[float | None, float | None] = (None, None)
    """AB magnitudes of hosts in the band of the run's magnitude limits. Null: from 15.5 on, down to three magnitudes
    above the survey's own depth (5 sigma in 2 arcsec)."""
    colour_min: float | None = None
    """Bluest colour of a host, in `colour_bands`; measured from the run's own red sequence where null."""
    colour_bands: tuple[str, str] | None = None
    """Bands of that colour, blue first; g and i where there are, else the widest of the optical bands."""
    radius_arcsec: tuple[float | None, float] = (None, 4.0)
    """Half-light radii of hosts; the least is what the survey's own stars leave resolved where null."""
    axis_ratio_min: float = Field(default=0.4, ge=0, le=1)
    """Flatter ones are discs seen from the side."""
    asymmetry_max: float = Field(default=0.35, gt=0)
    """Hosts whose light within 3 arcsec changes by more than this part when turned by 180 degrees are blends."""
    flat_top_px: int = Field(default=7, ge=2)
    """So many pixels within 3 % of the peak are a saturated core."""
    max_hosts: int = Field(default=4000, ge=1)
    """Hosts that are cut out; a random part where there are more."""
    max_negatives: int = Field(default=6000, ge=1)
    """Other sources that are cut out: brighter ones first in each of stars and galaxies, the rest at random."""
    max_sky: int = Field(default=300, ge=1)
    """Empty places that are cut out, for what is drawn to stand alone."""
    known_radius_arcsec: float = Field(default=5.0, gt=0)
    """Sources within this of a known lens or contaminant serve neither as hosts nor as negatives."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Parts of the hosts, by cells of the sky, to train, validate and test."""


class StampSettings(Table):
    """The stamps that are painted."""

    size_px: int = Field(default=65, ge=17)
    """Side of a stamp in the survey's pixels, odd."""
    count: int = Field(default=16_000, ge=50)
    """Stamps."""
    shrink: Range = (0.8, 1.0)
    """A host's pixels are taken as this much smaller on the sky, uniform; alike in every class."""
    dimming_mag: Range = (0.0, 1.0)
    """A host is taken as this much fainter, noise and all, uniform; alike in every class."""
