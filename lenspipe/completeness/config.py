"""Every knob of a measurement of completeness; defaults live here only."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from lenspipe.simulate.population import Range, SourcePopulation
from lenspipe.toml import Table


class HostConfig(Table):
    """Which rows of the run may carry arcs: clean, extended, red galaxies."""

    mag: Range = (16.0, 21.0)
    """AB magnitude in the band of the scan's selection between these."""
    colour_bands: tuple[str, ...] = Field(default=(), max_length=2)
    """Two bands, blue first, whose colour tells early types; where empty g and i, else the widest of the optical."""
    colour_min: float | None = None
    """Bluest colour of a host; where the two modes of the run's own galaxies part where null, as for a finder."""
    red_part: float | None = Field(default=None, gt=0, le=1)
    """The reddest part of the galaxies of these magnitudes and sizes, instead of a colour."""
    radius_min_psf: float = Field(default=1.4, ge=0)
    """Smallest half-light radius, in units of the PSF's (half its FWHM)."""
    axis_ratio_min: float = Field(default=0.5, ge=0, le=1)
    """Smallest axis ratio."""
    known_lenses: tuple[str, ...] = ("lenscat",)
    """Lists of lenses that no arcs are painted on."""

    @model_validator(mode="after")
    def _one_rule(self) -> HostConfig:
        if self.colour_min is not None and self.red_part is not None:
            raise ValueError("colour_min and red_part are two ways to say which hosts are red: give one")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON what came later is left out where it is not said, so that older requests stay the same."""
        whole: dict[str, Any] = handler(self)
        later = ("colour_bands", "colour_min")
        return {k: v for k, v in whole.items() if not (info.mode == "json" and k in later and v in ([], None))}


class CompletenessConfig(Table):
    """What is painted, how much of it, and how the result is fitted."""

    count: int = Field(default=1000, ge=10)
    """Lenses to paint, in all; fewer where the tiles have no room for them."""
    per_arcmin2: float = Field(default=0.6, gt=0, le=5)
    """Lenses painted into a tile at a time: few, so that it is as crowded as before."""
    on_sky: float = Field(default=0.5, ge=0, le=1)
    """Part of them that are whole lenses on empty sky, with the light of a host from elsewhere in the survey."""
    apart_arcsec: float = Field(default=25.0, gt=0)
    """Least distance of two lenses that are painted at a time."""
    clear_arcsec: float = Field(default=5.0, gt=0)
    """Sky is empty where no source lies within this."""
    match_arcsec: float = Field(default=1.0, gt=0)
    """A lens is recovered by any candidate within this of its centre."""
    theta_e_arcsec: Range = (0.5, 3.0)
    """Einstein radii, log-uniform between these."""
    arc_snr: Range = (5.0, 150.0)
    """Signal-to-noise of the arcs in the finder's bands, log-uniform between these: sqrt(sum((arc / sky rms)^2))."""
    shear_scatter: float = Field(default=0.05, ge=0)
    """Typical external shear."""
    sources: SourcePopulation = SourcePopulation(mag_r=(21.5, 26.5), mag_slope=0.25, radius_arcsec_at_24=0.28)
    """Shapes, colours and redshifts of what is lensed; its brightness follows from ``arc_snr``."""
    hosts: HostConfig = HostConfig()
    """Which galaxies lens."""
    psf_fwhm_arcsec: dict[str, float] = {}
    """FWHM of the PSF by band, put over what the run measured or the survey's layout states."""
    njy_per_electron: dict[str, float] = {}
    """Flux of one photo-electron by band, for the photon noise of the arcs; a band without one gets none."""
    rates: tuple[float, ...] = (0.01, 0.001)
    """Parts of the run's candidates that pass the thresholds at which completeness is given."""
    first: tuple[int, ...] = (100,)
    """Completeness is given for this many best candidates."""
    thresholds: tuple[float, ...] = ()
    """Scores at which completeness is given."""
    bootstraps: int = Field(default=100, ge=20)
    """Draws of the bootstrap of the smooth fit, by host."""
    gate_stamps: int = Field(default=400, ge=50)
    """Stamps of each kind that the realism gate compares, at most."""
    gate_auc: float = Field(default=0.65, gt=0.5, lt=1)
    """Area under the curve of the realism gate up to which painted lenses count as real ones."""
