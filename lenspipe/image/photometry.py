"""Kron photometry on all bands through the apertures of the detection image, by SEP."""

from __future__ import annotations

import dataclasses

import numpy as np
import sep
from numpy.typing import NDArray

from lenspipe.image.sources import FLAG_MASKED, FLAG_PHOTOMETRY, Sources
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

KRON_FACTOR, MIN_RADIUS_PX = 2.5, 3.5
KRON_SEARCH = 6.0

POGSON = 2.5 / np.log(10)


@dataclasses.dataclass(frozen=True, eq=False)
class Apertures:
    """Kron ellipses: ``radius`` times (a, b) of the source; half-light radius in the detection image."""

    radius: NDArray[np.float64]
    a_px: NDArray[np.float64]
    b_px: NDArray[np.float64]
    half_light_radius_px: NDArray[np.float64]
    mask_fraction: NDArray[np.float64]
    flags: NDArray[np.int32]


def kron_apertures(
    image: NDArray[np.float32], mask: NDArray[np.bool_], sources: Sources, segments: NDArray[np.int32]
) -> Apertures:
    """
    Kron apertures (Kron 1980, ApJS 43, 305) with Source Extractor's factor 2.5 and smallest radius 3.5 px.

    Parameters
    ----------
    image : array (y, x), float32
        Background-subtracted detection image.
    mask : array (y, x), bool
    sources : Sources
    segments : array (y, x), int32
        Pixels of other sources are left out, and filled with the mean of the aperture.

    Returns
    -------
    Apertures
        Half-light radius [px] of the flux within the aperture, NaN where that flux is not positive;
        ``mask_fraction`` is the fraction of the Kron ellipse that is masked or beyond the image.
    """
    n = len(sources)
    if n == 0:
        empty = np.empty(0)
        return Apertures(empty, empty, empty, empty, empty, np.empty(0, np.int32))
    x, y, a, b, theta = sources.x_px, sources.y_px, sources.a_px, sources.b_px, sources.theta_rad
    neighbours = {"seg_id": sources.label, "segmap": segments}
    radius, _ = sep.kron_radius(image, x, y, a, b, theta, KRON_SEARCH, mask=mask, **neighbours)
    radius = KRON_FACTOR * np.where(np.isfinite(radius), radius, 0.0)
    # Where the Kron ellipse is smaller than the least radius, a circle of that radius takes its place.
    small = radius * np.sqrt(a * b) < MIN_RADIUS_PX
    a, b = np.where(small, 1.0, a), np.where(small, 1.0, b)
    radius = np.where(small, MIN_RADIUS_PX, radius)
    flux, _, _ = sep.sum_ellipse(image, x, y, a, b, theta, r=radius, mask=mask, subpix=1, **neighbours)
    half_light = _half_light_radius(image, mask, sources, flux, neighbours)
    mask_fraction = 1 - _inside_fraction(mask.shape, x, y, a, b, theta, radius)
    if mask.any():
        bad, _, _ = sep.sum_ellipse(mask.astype(np.float32), x, y, a, b, theta, r=radius, subpix=1)
        mask_fraction = np.clip(mask_fraction + bad / (np.pi * a * b * radius**2), 0, 1)
    flags = FLAG_MASKED * (mask_fraction > 0.02)
    return Apertures(radius, a, b, half_light, mask_fraction, flags.astype(np.int32))


def kron_fluxes(
    image: NDArray[np.float32],
    rms: NDArray[np.float32],
    mask: NDArray[np.bool_],
    sources: Sources,
    segments: NDArray[np.int32],
    apertures: Apertures,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Flux in the Kron ellipses of one band, and its error from the sky noise.

    Masked pixels, and those of other sources, are replaced by the mean of the unmasked ones of the ellipse (SEP's way).

    Parameters
    ----------
    image, rms : arrays (y, x), float32
        Background-subtracted image and noise per pixel, nJy.

    Returns
    -------
    flux_njy, flux_err_njy : float64 arrays (n,)
        NaN where the ellipse holds no unmasked pixel.
    """
    if len(sources) == 0:
        return np.empty(0), np.empty(0)
    flux, error, flag = sep.sum_ellipse(
        image,
        sources.x_px,
        sources.y_px,
        apertures.a_px,
        apertures.b_px,
        sources.theta_rad,
        r=apertures.radius,
        err=rms,
        mask=mask,
        subpix=1,
        seg_id=sources.label,
        segmap=segments,
    )
    lost = (flag & sep.APER_ALLMASKED) != 0
    return np.where(lost, np.nan, flux), np.where(lost, np.nan, error)


def ab_magnitude(flux_njy: NDArray[np.floating]) -> NDArray[np.float64]:
    """
    AB magnitude of a flux in nanojansky: m = 31.4 - 2.5 log10(f / nJy) (Oke & Gunn 1983, ApJ 266, 713).

    Returns
    -------
    array, same shape
        NaN where the flux is NaN, zero or negative.

    Examples
    --------
    >>> ab_magnitude(np.array([1.0, 1e4, -1.0]))
    array([31.4, 21.4,  nan])
    """
    flux = np.asarray(flux_njy, np.float64)
    return NANOJANSKY_ZERO_POINT_AB - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))


def ab_magnitude_error(flux_njy: NDArray[np.floating], flux_err_njy: NDArray[np.floating]) -> NDArray[np.float64]:
    """First-order magnitude error, 2.5 / ln 10 times the relative flux error; NaN where the flux is not positive."""
    flux = np.asarray(flux_njy, np.float64)
    return POGSON * np.asarray(flux_err_njy, np.float64) / np.where(flux > 0, flux, np.nan)


def photometry_flags(fluxes_njy: NDArray[np.floating]) -> NDArray[np.int32]:
    """`FLAG_PHOTOMETRY` where any band of (band, n) fluxes is NaN."""
    return (FLAG_PHOTOMETRY * np.isnan(fluxes_njy).any(axis=0)).astype(np.int32)


def _half_light_radius(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    sources: Sources,
    flux: NDArray[np.float64],
    neighbours: dict[str, NDArray[np.int32]],
) -> NDArray[np.float64]:
    """
    Radius that holds half of ``flux``, NaN where that is not positive; good to 1 % (three subpixels a side).

    The cost grows with the square of the radius searched: most are found within three semi-axes, a third of the
    cost of six, and only the rest are searched further.
    """
    half_light = np.full(len(sources), np.nan)
    rows = np.flatnonzero(flux > 0)
    bad = mask if mask.any() else None
    for reach in (KRON_SEARCH / 2, KRON_SEARCH):
        limit = reach * sources.a_px[rows]
        half_light[rows], _ = sep.flux_radius(
            image,
            sources.x_px[rows],
            sources.y_px[rows],
            limit,
            0.5,
            normflux=flux[rows],
            subpix=3,
            mask=bad,
            seg_id=neighbours["seg_id"][rows],
            segmap=neighbours["segmap"],
        )
        rows = rows[half_light[rows] > 0.8 * limit]
        if not len(rows):
            break
    return half_light


def _inside_fraction(
    shape: tuple[int, ...],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    theta: NDArray[np.float64],
    radius: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Fraction of each ellipse inside the image, from 1024 points of each of the few that cross the border."""
    half_x = radius * np.hypot(a * np.cos(theta), b * np.sin(theta))
    half_y = radius * np.hypot(a * np.sin(theta), b * np.cos(theta))
    crossing = (x - half_x < -0.5) | (y - half_y < -0.5)
    crossing |= (x + half_x > shape[1] - 0.5) | (y + half_y > shape[0] - 0.5)
    fraction = np.ones(len(x))
    turns = np.pi * (1 + 5**0.5) * np.arange(1024)  # a sunflower covers the unit disc evenly (Vogel 1979)
    disc = np.sqrt((np.arange(1024) + 0.5) / 1024)
    u, v = disc * np.cos(turns), disc * np.sin(turns)
    for i in np.flatnonzero(crossing):
        along, across = radius[i] * a[i] * u, radius[i] * b[i] * v
        column = x[i] + along * np.cos(theta[i]) - across * np.sin(theta[i])
        row = y[i] + along * np.sin(theta[i]) + across * np.cos(theta[i])
        inside = (column >= -0.5) & (column < shape[1] - 0.5) & (row >= -0.5) & (row < shape[0] - 0.5)
        fraction[i] = inside.mean()
    return fraction
