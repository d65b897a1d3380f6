"""Hosts from a survey's own tile: its sources, found as the caller says, each with the pixels around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.image.detect import detect_sep, detection_sum
from lenspipe.image.photometry import Apertures, ab_magnitude, kron_apertures, kron_fluxes
from lenspipe.image.sky import subtract_sky
from lenspipe.image.sources import Sources
from lenspipe.simulate.paint.host import Host

Range = tuple[float, float]
WHOLE = 0.999
"""Part of the cutout of an early type that must hold data."""


@dataclass(frozen=True, eq=False)
class TileSources:
    """The sources of a tile, and the pixels that they were measured on; a scan's own measurement fits in as well."""

    images_njy: NDArray[np.float32]
    """``(band, y, x)``, sky subtracted, zero where there are no data."""
    masks: NDArray[np.bool_]
    """``(band, y, x)``, True where there are no data."""
    sky_rms_njy: NDArray[np.float64]
    """Noise of a pixel ``(band,)``."""
    sources: Sources
    """Positions and shapes."""
    apertures: Apertures
    """Kron apertures."""
    flux_njy: NDArray[np.float64]
    """Flux in them ``(band, n)``."""


@dataclass(frozen=True, kw_only=True)
class HostCuts:
    """Which sources are early types that may carry arcs, and which are stars; all as seen, in this survey's seeing."""

    early_mag: Range
    """AB magnitude in the last band between these."""
    early_colour: Range
    """First less last band, mag, between these."""
    early_radius_arcsec: Range
    """Half-light radius between these."""
    star_mag_max: float
    """A star is brighter than this in the last band."""
    star_radius_max_arcsec: float
    """A star has a smaller half-light radius."""


def search_tile(
    images_njy: NDArray[np.float32],
    *,
    mesh_px: int,
    filter_mesh: int,
    threshold_sigma: float,
    min_area_px: int,
    deblend_levels: int,
    deblend_contrast: float,
) -> TileSources:
    """
    Sources of a tile as a scan finds them: sky, SEP on the weighted sum of the bands, Kron fluxes.

    The settings are those of ``[background]`` and ``[detect]`` of a scan (`lenspipe.scan.config`) and have no defaults
    here: hosts that are to stand for a scan's candidates must be found with the scan's values.

    Parameters
    ----------
    images_njy : array (band, y, x)
        Not finite where there are no data.
    mesh_px, filter_mesh : int
        Background mesh, pixels, and its median filter, meshes.
    threshold_sigma : float
        Detection threshold in units of the noise.
    min_area_px : int
        Smallest number of connected pixels.
    deblend_levels, deblend_contrast
        As in SExtractor.

    Raises
    ------
    DataError
        A band holds no data.
    TileError
        A band is constant.
    """
    masks = ~np.isfinite(images_njy)
    names = [str(k) for k in range(len(images_njy))]
    clean = np.where(masks, np.float32(0), images_njy)
    flat = subtract_sky(clean, masks, bands=names, mesh_px=mesh_px, filter_mesh=filter_mesh)
    rms = [value for value in flat.median_rms if value is not None]
    if len(rms) < len(names):
        raise DataError("a band of the tile holds no data", band=flat.median_rms.index(None))
    detection, detection_rms, empty = detection_sum(flat.image, flat.rms, masks)
    sources, segments = detect_sep(
        detection,
        detection_rms,
        empty,
        threshold_sigma=threshold_sigma,
        min_area_px=min_area_px,
        deblend_levels=deblend_levels,
        deblend_contrast=deblend_contrast,
    )
    apertures = kron_apertures(detection, empty, sources, segments)
    planes = zip(flat.image, flat.rms, list(masks), strict=True)
    flux = np.stack([kron_fluxes(*plane, sources, segments, apertures)[0] for plane in planes])
    return TileSources(flat.image, masks, np.array(rms), sources, apertures, flux)


def tile_hosts(
    found: TileSources,
    *,
    name: str,
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: NDArray[np.float64],
    size_px: int,
    cuts: HostCuts,
) -> tuple[list[Host], NDArray[np.float64]]:
    """
    One host for every source of a tile, and positions ``(n, 2)`` as x, y in pixels.

    A host is ``early`` where it is within the cuts and its cutout holds data throughout, ``star`` where it is bright
    and unresolved, else ``source``.

    Parameters
    ----------
    found : TileSources
        From `search_tile`, or a scan's own measurement.
    name : str
        Hosts are called ``NAME-X-Y`` by their pixels.
    pixel_scale_arcsec : float
    psf_fwhm_arcsec : array (band,)
    size_px : int
        Side of the cutouts, odd.
    cuts : HostCuts
    """
    sources = found.sources
    mag, colour = ab_magnitude(found.flux_njy[-1]), ab_magnitude(found.flux_njy[0]) - ab_magnitude(found.flux_njy[-1])
    radius = found.apertures.half_light_radius_px * pixel_scale_arcsec
    early = _between(mag, cuts.early_mag) & _between(colour, cuts.early_colour)
    early &= _between(radius, cuts.early_radius_arcsec)
    star = (radius < cuts.star_radius_max_arcsec) & (mag < cuts.star_mag_max)
    cutouts, covered = extract_cutouts(found.images_njy, found.masks, sources.x_px, sources.y_px, size_px=size_px)
    hosts = [
        Host(
            name=f"{name}-{sources.x_px[k]:.0f}-{sources.y_px[k]:.0f}",
            kind="early" if early[k] and covered[k] > WHOLE else "star" if star[k] else "source",
            pixels_njy=cutouts[k],
            pixel_scale_arcsec=pixel_scale_arcsec,
            psf_fwhm_arcsec=psf_fwhm_arcsec,
            sky_rms_njy=found.sky_rms_njy,
            mag=float(mag[k]),
            axis_ratio=float(sources.b_px[k] / sources.a_px[k]),
            angle_rad=float(sources.theta_rad[k]),
            radius_arcsec=float(radius[k]),
        )
        for k in range(len(sources))
    ]
    return hosts, np.stack([sources.x_px, sources.y_px], axis=1)


def sky_hosts(
    found: TileSources,
    n: int,
    rng: np.random.Generator,
    *,
    name: str,
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: NDArray[np.float64],
    size_px: int,
    clear_arcsec: float,
) -> list[Host]:
    """
    Hosts of kind ``sky``: places of a tile without a source within ``clear_arcsec``, for non-lenses that stand alone.

    Raises
    ------
    DataError
        The tile has hardly any such place.
    """
    n_y, n_x = found.images_njy.shape[1:]
    half = size_px // 2
    if min(n_x, n_y) <= size_px:
        raise DataError("the tile is smaller than a host", tile=name, shape=f"{n_y} x {n_x}", size_px=size_px)
    hosts: list[Host] = []
    for _ in range(100 * n + 100):
        if len(hosts) == n:
            return hosts
        x, y = int(rng.integers(half, n_x - half)), int(rng.integers(half, n_y - half))
        apart = np.hypot(found.sources.x_px - x, found.sources.y_px - y) * pixel_scale_arcsec
        box = np.s_[:, y - half : y + half + 1, x - half : x + half + 1]
        if (apart.size and apart.min() < clear_arcsec) or found.masks[box].any():
            continue
        hosts.append(
            Host(
                name=f"{name}-{x}-{y}",
                kind="sky",
                pixels_njy=found.images_njy[box].copy(),
                pixel_scale_arcsec=pixel_scale_arcsec,
                psf_fwhm_arcsec=psf_fwhm_arcsec,
                sky_rms_njy=found.sky_rms_njy,
                mag=float("nan"),
                axis_ratio=1.0,
                angle_rad=0.0,
            )
        )
    raise DataError("the tile has hardly any empty place; lower clear_arcsec", tile=name, found=len(hosts), wanted=n)


def _between(values: NDArray[np.float64], bounds: Range) -> NDArray[np.bool_]:
    return (values > bounds[0]) & (values < bounds[1])
