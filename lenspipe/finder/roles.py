"""What each source of a run is good for: to carry arcs, to stand for itself, or nothing; and why."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.finder.loci import StarLocus, star_locus
from lenspipe.finder.settings import HostSettings
from lenspipe.image.sources import FLAG_EDGE
from lenspipe.scan.hosts import HostCuts, RedSequence, colour_bands_of, is_host, red_sequence
from lenspipe.sky.sphere import nearest

BELOW_DEPTH_MAG = 3.0
"""Hosts are so many magnitudes brighter than the depth."""
HOST, STAR, GALAXY, ARTEFACT = "early", "star", "source", "artefact"
"""Roles; ``early`` carries arcs. `lenspipe.simulate.paint.host` names the same."""
NONE = "none"
"""Role of a source that serves nothing: near a known lens or contaminant, or without a magnitude."""
MASKED_MAX = 0.02
"""Largest masked part of a host's Kron ellipse."""
UNLIKE_STARS = 0.93
"""A host's concentration is below this part of the stars'."""


@dataclass(frozen=True)
class Roles:
    """Roles of sources ``(n,)``, and what they were told apart by."""

    role: NDArray[np.object_]
    """One of `HOST`, `STAR`, `GALAXY`, `ARTEFACT`, `NONE`."""
    refused: NDArray[np.object_]
    """Of red sources as bright as hosts: why they are none; empty elsewhere."""
    stars: StarLocus | None
    red: RedSequence | None
    """None for a survey of one band: there concentration alone tells."""
    mag: tuple[float, float]
    """Magnitudes of hosts."""

    def counts(self) -> dict[str, int]:
        """Sources by role, and hosts refused by reason."""
        told = collections.Counter(map(str, self.role))
        why = collections.Counter(f"refused: {text}" for text in map(str, self.refused) if text)
        return dict(sorted(told.items())) | dict(sorted(why.items()))


def assign_roles(
    table: pa.Table,
    bands: Sequence[str],
    settings: HostSettings,
    *,
    depth_mag: float,
    psf_fwhm_arcsec: float | None,
    avoid: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Roles:
    """
    Roles of the sources of a run, by colour, size, concentration and measured shape.

    Parameters
    ----------
    table : pa.Table
        With `lenspipe.finder.sources.source_schema`.
    bands : sequence of str
        The run's.
    settings : HostSettings
    depth_mag : float
        Depth of the survey, 5 sigma in 2 arcsec, in the band of the magnitude limits.
    psf_fwhm_arcsec : float or None
        What the layout states, for a survey that shows no stars.
    avoid : (ra_deg, dec_deg), optional
        Known lenses and contaminants.

    Raises
    ------
    DataError
        There are too few sources to measure a red sequence on, and none is given.
    """
    get = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    mag, radius, shape = (get[name].astype(float) for name in ("mag", "half_light_radius_arcsec", "concentration"))
    limits = settings.mag_min, depth_mag - BELOW_DEPTH_MAG if settings.mag_max is None else settings.mag_max
    stars = star_locus(mag, radius, shape, psf_fwhm_arcsec=psf_fwhm_arcsec)
    least = settings.radius_min_arcsec
    if least is None:
        least = stars.resolved_arcsec if stars else 0.0
    resolved = radius >= least
    if stars and np.isfinite(stars.concentration):
        resolved &= shape < UNLIKE_STARS * stars.concentration
    right_mag = (mag >= limits[0]) & (mag <= limits[1])
    pair = colour_bands_of(bands, settings.colour_bands)
    colour = get[f"mag_{pair[0]}"] - get[f"mag_{pair[1]}"] if pair else None
    red = (
        None
        if pair is None or colour is None
        else red_sequence(pair, colour[resolved & right_mag], colour_min=settings.colour_min)
    )
    if colour is None or red is None:
        looks_early = (
            shape >= np.nanquantile(shape[resolved & right_mag], 0.5)
            if (resolved & right_mag).any()
            else np.zeros(len(mag), bool)
        )
    else:
        looks_early = colour >= red.threshold_mag
    cuts = HostCuts(
        mag=limits,
        half_light_radius_arcsec=(least, settings.radius_max_arcsec),
        axis_ratio_min=settings.axis_ratio_min,
        mask_fraction_max=MASKED_MAX,
        colour_min=red.threshold_mag if red else -np.inf,
    )
    saturated = get["flat_top_px"] >= settings.flat_top_px
    masked = (get["mask_fraction"] > MASKED_MAX) | ((get["flags"] & FLAG_EDGE) != 0)
    within = is_host(mag, colour, radius, get["axis_ratio"], get["flags"], get["mask_fraction"], cuts)
    hosts = within & looks_early & resolved & ~saturated
    reasons = {
        "a star, by size and concentration": ~resolved,
        "saturated": saturated,
        "masked or at the edge": masked,
        "too large": radius > settings.radius_max_arcsec,
        "flat, a disc from the side": get["axis_ratio"] < settings.axis_ratio_min,
    }
    refused = np.full(len(mag), "", object)
    for text, holds in reasons.items():
        refused[right_mag & looks_early & ~hosts & holds & (refused == "")] = text
    role = np.full(len(mag), GALAXY, object)
    role[~resolved] = STAR
    role[masked | saturated & ~resolved] = ARTEFACT
    role[hosts] = HOST
    role[~np.isfinite(mag)] = NONE
    if avoid is not None and len(avoid[0]):
        near = nearest(get["ra"], get["dec"], *avoid, radius_arcsec=settings.known_radius_arcsec)[0] >= 0
        refused[near & (role == HOST)] = "near a known lens or contaminant"
        role[near] = NONE
    return Roles(role, refused, stars, red, limits)
