"""Hosts from real pixels: sources of a tile, and folders of ready cutouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.image.background import estimate_background
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.image.detect import detect_sep, detection_sum
from lenspipe.image.photometry import ab_magnitude, kron_apertures, kron_fluxes
from lenspipe.learn.hosts import Host
from lenspipe.robust import robust_sigma

NJY_PER_MAGGY = 3631e9
NJY_AT_ZERO_POINT_30 = 10 ** (0.4 * (31.4 - 30.0))
EARLY_MAG_I, EARLY_G_I, EARLY_RADIUS_ARCSEC = (15.5, 20.8), (1.35, 3.3), 0.62
STAR_RADIUS_ARCSEC = 0.70


def tile_hosts(
    images_njy: NDArray[np.float32],
    *,
    name: str,
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: NDArray[np.float64],
    size_px: int,
) -> tuple[list[Host], NDArray[np.float64]]:
    """
    One host for every source of a tile, and positions ``(n, 2)`` as x, y in pixels.

    Sources are found on the weighted sum of the bands as a scan does. A host is ``early`` where it is resolved, red
    and bright enough to be a deflector; ``star`` where it is unresolved and brighter than i = 17.5; else ``source``.

    Parameters
    ----------
    images_njy : array (band, y, x)
        Bands in the order g, r, i. Not finite where there are no data.
    """
    masks = ~np.isfinite(images_njy)
    clean, noise, rms = np.empty_like(images_njy), [], []
    for k, (image, mask) in enumerate(zip(images_njy, masks, strict=True)):
        background = estimate_background(np.where(mask, 0, image), mask, mesh_px=128, filter_mesh=3)
        if background is None:
            raise DataError("a band of the tile holds no data", tile=name, band=k)
        clean[k] = np.where(mask, 0, image)
        background.subtract_from(clean[k])
        clean[k][mask] = 0
        noise.append(background.rms)
        rms.append(background.median_rms)
    detection, detection_rms, empty = detection_sum(clean, noise, masks)
    sources, segments = detect_sep(
        detection, detection_rms, empty, threshold_sigma=2.5, min_area_px=6, deblend_levels=32, deblend_contrast=0.005
    )
    apertures = kron_apertures(detection, empty, sources, segments)
    flux = [
        kron_fluxes(*plane, sources, segments, apertures)[0] for plane in zip(clean, noise, list(masks), strict=True)
    ]
    mag_i, g_i = ab_magnitude(flux[2]), ab_magnitude(flux[0]) - ab_magnitude(flux[2])
    radius = apertures.half_light_radius_px * pixel_scale_arcsec
    early = (mag_i > EARLY_MAG_I[0]) & (mag_i < EARLY_MAG_I[1]) & (g_i > EARLY_G_I[0]) & (g_i < EARLY_G_I[1])
    early &= (radius > EARLY_RADIUS_ARCSEC) & (radius < 3.0)
    star = (radius < STAR_RADIUS_ARCSEC) & (mag_i < 17.5)
    cutouts, covered = extract_cutouts(clean, masks, sources.x_px, sources.y_px, size_px=size_px)
    hosts = [
        Host(
            name=f"{name}-{sources.x_px[k]:.0f}-{sources.y_px[k]:.0f}",
            kind="early" if early[k] and covered[k] > 0.999 else "star" if star[k] else "source",
            pixels_njy=cutouts[k],
            pixel_scale_arcsec=pixel_scale_arcsec,
            psf_fwhm_arcsec=psf_fwhm_arcsec,
            sky_rms_njy=np.array(rms),
            mag_i=float(mag_i[k]),
            axis_ratio=float(sources.b_px[k] / sources.a_px[k]),
            angle_rad=float(sources.theta_rad[k]),
            radius_arcsec=float(radius[k]),
        )
        for k in range(len(sources))
    ]
    return hosts, np.stack([sources.x_px, sources.y_px], axis=1)


def kids_tile(real: Path) -> NDArray[np.float32]:
    """The KiDS g r i tile, ``(band, y, x)`` in nJy (its files are in maggies)."""
    planes = [fits.getdata(real / "tiles/kids_viking" / f"{band}.fits", 1) for band in "gri"]
    return (np.stack(planes).astype(np.float64) * NJY_PER_MAGGY).astype(np.float32)


def cfhtls_tile(real: Path) -> NDArray[np.float32]:
    """The CFHTLS g r i tile, ``(band, y, x)`` in nJy (AB zero-point 30)."""
    planes = [fits.getdata(real / "tiles/cfhtls" / f"CFHTLS-test_{band}.fits") for band in "gri"]
    return (np.stack(planes).astype(np.float64) * NJY_AT_ZERO_POINT_30).astype(np.float32)


def des_hosts(real: Path, size_px: int, rng: np.random.Generator) -> list[Host]:
    """
    DES early-type galaxies and luminous red galaxies (0.263", zero-point 30).

    Cutouts are smaller than ``size_px``: beyond their edge lies Gaussian noise of their own level, drawn from ``rng``.
    """
    folder = real / "stamps/des_early_types"
    early = np.stack([fits.getdata(folder / f"{band}.fits") for band in "gri"], axis=1)
    # the FILTER keyword of the LRG files says i in every HDU; their order is g, r, i
    lrg_files = sorted((real / "stamps/des_lrg/lens").glob("*.fits"))
    lrg = [np.stack([hdu.data for hdu in fits.open(path)]) for path in lrg_files]
    named = [(f"des-early-{k}", stamp) for k, stamp in enumerate(early)]
    named += [(f"des-lrg-{path.stem}", stamp) for path, stamp in zip(lrg_files, lrg, strict=True)]
    return [_des_host(name, stamp.astype(np.float32), size_px, rng) for name, stamp in named]


def _des_host(name: str, stamp: NDArray[np.float32], size_px: int, rng: np.random.Generator) -> Host:
    stamp = stamp[:, : stamp.shape[1] - (stamp.shape[1] + 1) % 2, : stamp.shape[2] - (stamp.shape[2] + 1) % 2]
    sky = np.median(stamp, axis=(1, 2), keepdims=True)
    rms = robust_sigma(stamp, (1, 2))
    side = stamp.shape[1]
    pixels = rng.normal(0, 1, (3, size_px, size_px)).astype(np.float32) * rms[:, None, None]
    inner, outer = max(0, (side - size_px) // 2), max(0, (size_px - side) // 2)
    taken = min(side, size_px)
    pixels[:, outer : outer + taken, outer : outer + taken] = (stamp - sky)[
        :, inner : inner + taken, inner : inner + taken
    ]
    centre = pixels[2, size_px // 2 - 8 : size_px // 2 + 9, size_px // 2 - 8 : size_px // 2 + 9]
    return Host(
        name=name,
        kind="early",
        pixels_njy=(pixels * NJY_AT_ZERO_POINT_30).astype(np.float32),
        pixel_scale_arcsec=0.263,
        psf_fwhm_arcsec=np.array([1.15, 1.0, 0.95]),
        sky_rms_njy=rms.astype(np.float64) * NJY_AT_ZERO_POINT_30,
        mag_i=float(30 - 2.5 * np.log10(centre.sum())),
        axis_ratio=0.8,
        angle_rad=0.0,
    )
