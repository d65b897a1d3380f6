"""A little sky to test on: round galaxies of known flux on noise, written as tiles of any layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

SCALE_ARCSEC = 0.2
NOISE_NJY = 5.0
FWHM_PX = 4.0


def tan_wcs(shape: tuple[int, int], ra_deg: float = 30.0, dec_deg: float = -5.0) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = ra_deg, dec_deg
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    wcs.wcs.cdelt = -SCALE_ARCSEC / 3600, SCALE_ARCSEC / 3600
    return wcs


def gaussian_sources(
    shape: tuple[int, int],
    x_px: np.ndarray,
    y_px: np.ndarray,
    flux_njy: np.ndarray,
    fwhm_px: float | np.ndarray = FWHM_PX,
) -> np.ndarray:
    """Noise-free image of round Gaussians of known total flux."""
    sigmas = np.broadcast_to(np.asarray(fwhm_px) / 2.3548, np.shape(x_px))
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for x, y, flux, sigma in zip(x_px, y_px, flux_njy, sigmas, strict=True):
        r = int(6 * sigma) + 1
        box = np.s_[max(0, int(y) - r) : int(y) + r + 1, max(0, int(x) - r) : int(x) + r + 1]
        shape_of = np.exp(-((columns[box] - x) ** 2 + (rows[box] - y) ** 2) / (2 * sigma**2))
        image[box] += flux * shape_of / (2 * np.pi * sigma**2)
    return image


def write_tile(
    folder: Path,
    name: str,
    *,
    bands: str = "gri",
    shape: tuple[int, int] = (200, 240),
    n_source: int = 12,
    seed: int = 0,
    suffix: str = ".fits",
    compress: bool = False,
    **header: object,
) -> dict[str, np.ndarray]:
    """
    Write ``NAME_BAND.fits`` in nJy for each band; returns positions and fluxes.

    The sources differ in size: many of one size are stars, and cut.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    x_px = rng.uniform(15, shape[1] - 15, n_source)
    y_px = rng.uniform(15, shape[0] - 15, n_source)
    flux_njy = rng.uniform(2000, 20000, n_source)
    fwhm_px = FWHM_PX * np.random.default_rng([seed, 1]).permutation(np.geomspace(0.9, 1.8, n_source))
    clean = gaussian_sources(shape, x_px, y_px, flux_njy, fwhm_px)
    for b, band in enumerate(bands):
        image = (clean * (0.6 + 0.4 * b) + rng.normal(0, NOISE_NJY, shape)).astype(np.float32)
        head = tan_wcs(shape, dec_deg=-5.0 + 0.1 * seed).to_header()
        head["BUNIT"] = "nJy"
        for key, value in header.items():
            head[key] = value
        hdu = fits.CompImageHDU(image, head) if compress else fits.PrimaryHDU(image, head)
        hdus = fits.HDUList([fits.PrimaryHDU(), hdu]) if compress else fits.HDUList([hdu])
        hdus.writeto(folder / f"{name}_{band}{suffix}", overwrite=True)
    return {"x_px": x_px, "y_px": y_px, "flux_njy": flux_njy}
