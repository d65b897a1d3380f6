"""The recipe of a survey's own stamps: its bands, grid, PSF and depth, and the classes that it tells apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lenspipe.bands import by_wavelength, known_band
from lenspipe.errors import ConfigError
from lenspipe.simulate.population import SourcePopulation
from lenspipe.simulate.recipe import BandTable, HostTable, ImageTable, Recipe, SurveyTable

CLASSES = {
    "lens": 40.0,
    "real": 32.0,
    "companions": 10.0,
    "satellites": 2.0,
    "young_ring": 4.0,
    "spiral_disc": 6.0,
    "merger": 1.5,
    "group": 1.5,
    "spiral": 1.0,
}
"""Relative numbers, near those of the stamps that `ground-gri` learnt from."""
HOSTS = HostTable(
    shrink=(0.75, 1.0),
    native_fraction=0.4,
    dimming_mag=(0.0, 1.0),
    reddening=True,
    theta_e_arcsec=(0.9, 3.5),
    arc_snr_min=(25.0, 100.0),
    visible_arcsec2=1.5,
)
SOURCES = SourcePopulation(mag_r=(20.5, 26.5), mag_slope=0.25, radius_arcsec_at_24=0.28)
NO_GAIN = 1e-9
"""Flux of a photo-electron that a table of a band must state; arcs on real hosts get no photon noise."""


def finder_bands(bands: Sequence[str], asked: Sequence[str] = ()) -> tuple[str, ...]:
    """
    Bands of a survey's finder: those asked for, else the optical ones from g to z, else all whose colours are known.

    Raises
    ------
    ConfigError
        A band that is asked for is not there, or of none is it known how bright a source is in it.

    Examples
    --------
    >>> finder_bands("ugri"), finder_bands(("VIS", "Y", "J"))
    (('g', 'r', 'i'), ('VIS', 'Y', 'J'))
    """
    if missing := [band for band in asked if band not in bands]:
        raise ConfigError(
            "the survey lacks a band that the finder is to have", missing=" ".join(missing), has=" ".join(bands)
        )
    known = [band for band in bands if (line := known_band(band)) and line.flux_of]
    if unknown := [band for band in asked if band not in known]:
        raise ConfigError("no colour is known for these bands, so no arc can be painted", bands=" ".join(unknown))
    if asked:
        return tuple(asked)
    optical = [band for band in ("g", "r", "i", "z") if band in known]
    chosen = optical if len(optical) > 1 else sorted(known, key=by_wavelength)
    if not chosen:
        raise ConfigError(
            "of none of the survey's bands is a colour known, so no arc can be painted", has=" ".join(bands)
        )
    return tuple(chosen)


def survey_recipe(
    name: str,
    bands: Sequence[str],
    *,
    size_px: int,
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: Sequence[float],
    sky_rms_njy: Sequence[float],
    survey_scale_arcsec: float,
) -> Recipe:
    """
    Recipe of the stamps of one survey.

    Parameters
    ----------
    name : str
        Of the survey.
    bands : sequence of str
    size_px : int
    pixel_scale_arcsec : float
        Of the stamps: the survey's own, or of a network that learns on.
    psf_fwhm_arcsec, sky_rms_njy : sequences (band,)
    survey_scale_arcsec : float
        Pixel scale that the noise is of.
    """
    per_aperture = np.sqrt(np.pi) / survey_scale_arcsec
    depth = [float(31.4 - 2.5 * np.log10(5 * rms * per_aperture)) for rms in sky_rms_njy]
    table = SurveyTable(
        name=name,
        band={
            band: BandTable(seeing_fwhm_arcsec=(fwhm, 0.0), depth_mag=(m, 0.0), njy_per_electron=NO_GAIN)
            for band, fwhm, m in zip(bands, psf_fwhm_arcsec, depth, strict=True)
        },
    )
    return Recipe(
        name="survey-finder",
        description=f"Arcs and look-alikes painted on the galaxies and the sky of {name}",
        kind="finder",
        image=(ImageTable(bands=tuple(bands), size_px=size_px, pixel_scale_arcsec=pixel_scale_arcsec),),
        survey=(table,),
        classes=CLASSES,
        sources=SOURCES,
        artefact_fraction=0.06,
        hosts=HOSTS,
        part_rows=500,
    )
