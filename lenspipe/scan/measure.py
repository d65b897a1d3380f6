"""A window of calibrated pixels becomes measured, selected, cut-out sources. Arrays in, arrays out."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lenspipe.bands import selection_band
from lenspipe.errors import TileError
from lenspipe.image.detect import detection_sum, detector_of
from lenspipe.image.photometry import Apertures, ab_magnitude, kron_apertures, kron_fluxes, photometry_flags
from lenspipe.image.sky import Flat
from lenspipe.image.sources import Sources
from lenspipe.scan.config import DetectConfig, SelectConfig
from lenspipe.survey.read import Pixels
from lenspipe.survey.shards import Box

BRIGHT_SIGMA = 10.0
"""Central pixel, in units of the noise, from which a source beside the core is measured too: it may be a star."""
LAYOUT_CUT = 0.9
"""Half-light radius of a star, in units of half the FWHM that a layout states, where it is not measured: less than
stars have, since a Gaussian holds half of its light within that, real PSFs have wings, and some tiles are sharper."""


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Sources of a core, in pixels of the window, with fluxes (band, n) in nJy."""

    sources: Sources
    apertures: Apertures
    flux_njy: NDArray[np.float64]
    flux_err_njy: NDArray[np.float64]
    flags: NDArray[np.int32]
    index: NDArray[np.intp]
    """Number of each source in the core, before any selection."""

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Measured:
        """The sources at ``rows``."""
        apertures = Apertures(*(getattr(self.apertures, f.name)[rows] for f in dataclasses.fields(Apertures)))
        return Measured(
            self.sources.take(rows),
            apertures,
            self.flux_njy[:, rows],
            self.flux_err_njy[:, rows],
            self.flags[rows],
            self.index[rows],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """What was measured in a window: sources of the core, and bright ones beside it."""

    measured: Measured
    in_core: NDArray[np.bool_]
    image: NDArray[np.float32]
    """Detection image (y, x)."""
    segments: NDArray[np.int32]
    """Label of the source that a pixel belongs to (y, x)."""

    @property
    def core(self) -> Measured:
        """What belongs to the core."""
        return dataclasses.replace(self.measured.take(self.in_core), index=np.arange(int(self.in_core.sum())))

    @property
    def snr(self) -> NDArray[np.float64]:
        """Signal-to-noise of all bands' fluxes together, weighted as for detection; NaN where there is none."""
        flux, error = self.measured.flux_njy, self.measured.flux_err_njy
        known = np.isfinite(flux) & np.isfinite(error) & (error > 0)
        weight = np.where(known, 1 / np.where(known, error, 1) ** 2, 0)
        total = weight.sum(axis=0)
        return np.where(
            total > 0, (np.where(known, flux, 0) * weight).sum(axis=0) / np.sqrt(np.maximum(total, 1e-300)), np.nan
        )


def measure_window(flat: Flat, pixels: Pixels, config: DetectConfig, *, core: Box, window: Box) -> Window:
    """
    Detect on the window; measure all bands of what belongs to the core, and of what is bright beside it.

    Raises
    ------
    TileError
        ``detect.image`` names a band that the tile does not have.
    """
    if config.image == "sum":
        image, rms, mask = detection_sum(flat.image, flat.rms, flat.mask)
    elif config.image in pixels.bands:
        b = pixels.bands.index(config.image)
        image, rms, mask = flat.image[b], flat.rms[b], flat.mask[b]
    else:
        raise TileError(
            "the tile lacks the detection band; set detect.image to one of its bands, or to sum",
            detect_image=config.image,
            bands=" ".join(pixels.bands),
        )
    if mask.all():
        found, segments = _none(), np.zeros(mask.shape, np.int32)
    else:
        found, segments = detector_of(config.detector)(
            image,
            rms,
            mask,
            threshold_sigma=config.threshold_sigma,
            min_area_px=config.min_area_px,
            deblend_levels=config.deblend_levels,
            deblend_contrast=config.deblend_contrast,
        )
    inside = core.contains(found.x_px + window.x0, found.y_px + window.y0)
    taken = inside | ((found.flags == 0) & _bright(found, image, rms))
    sources = found.take(taken)
    apertures = kron_apertures(image, mask, sources, segments)
    flux = np.full((len(pixels.bands), len(sources)), np.nan)
    error = flux.copy()
    for b, invvar in enumerate(pixels.invvar):
        if flat.median_rms[b] is None:
            continue
        noise = flat.rms[b] if invvar is None else _noise(invvar, flat.rms[b])
        flux[b], error[b] = kron_fluxes(flat.image[b], noise, flat.mask[b], sources, segments, apertures)
    flags = sources.flags | apertures.flags | photometry_flags(flux)
    measured = Measured(sources, apertures, flux, error, flags, np.arange(len(sources)))
    return Window(measured, inside[taken], image, segments)


def select(
    measured: Measured, config: SelectConfig, *, bands: tuple[str, ...], pixel_scale_arcsec: float
) -> NDArray[np.bool_]:
    """
    Which sources become candidates, if they are not stars.

    A source without a flux in the band of a limit does not pass that limit.

    Raises
    ------
    TileError
        The selection names a band that the tile does not have.
    """
    keep = np.ones(len(measured.sources), bool)
    magnitude = {band: ab_magnitude(measured.flux_njy[b]) for b, band in enumerate(bands)}
    band = selection_band(bands) if config.band == "auto" else config.band
    wanted = {band, *(b for key in config.colour for b in key.split("-"))}
    missing = sorted(wanted - set(bands))
    if missing:
        raise TileError(
            "the selection needs a band that the tile does not have", needs=missing[0], bands=" ".join(bands)
        )
    if config.mag_max is not None:
        keep &= magnitude[band] <= config.mag_max
    if config.mag_min is not None:
        keep &= magnitude[band] >= config.mag_min
    for key, (low, high) in config.colour.items():
        blue, red = key.split("-")
        colour = magnitude[blue] - magnitude[red]
        keep &= (colour >= low) & (colour <= high)
    radius = measured.apertures.half_light_radius_px * pixel_scale_arcsec
    if config.half_light_radius_min_arcsec is not None:
        keep &= radius >= config.half_light_radius_min_arcsec
    if config.half_light_radius_max_arcsec is not None:
        keep &= radius <= config.half_light_radius_max_arcsec
    return keep & (measured.apertures.mask_fraction <= config.mask_fraction_max)


def smaller_than_stated(
    measured: Measured, *, bands: tuple[str, ...], pixel_scale_arcsec: float, psf_fwhm_arcsec: dict[str, float]
) -> NDArray[np.bool_]:
    """Sources smaller than the sharpest PSF that a layout states; none where it states none."""
    widths = [psf_fwhm_arcsec[b] for b in bands if b in psf_fwhm_arcsec]
    if not widths:
        return np.zeros(len(measured.sources), bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(measured.apertures.half_light_radius_px * pixel_scale_arcsec < LAYOUT_CUT * min(widths) / 2)


def _bright(found: Sources, image: NDArray[np.float32], rms: NDArray[np.float32]) -> NDArray[np.bool_]:
    row = np.clip(np.floor(found.y_px + 0.5).astype(np.intp), 0, image.shape[0] - 1)
    column = np.clip(np.floor(found.x_px + 0.5).astype(np.intp), 0, image.shape[1] - 1)
    return np.asarray(image[row, column] > BRIGHT_SIGMA * rms[row, column])


def _noise(invvar: NDArray[np.float32], rms: NDArray[np.float32]) -> NDArray[np.float32]:
    known = invvar > 0
    return np.where(known, np.where(known, invvar, 1) ** np.float32(-0.5), rms)


def _none() -> Sources:
    empty, none = np.empty(0), np.empty(0, np.int64)
    return Sources(empty, empty, empty, empty, empty, none, none.astype(np.int32), none.astype(np.int32))
