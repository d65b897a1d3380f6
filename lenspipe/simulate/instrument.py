"""What the telescope does: point-spread functions and noise, and the noise level that a depth stands for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import ConfigError
from lenspipe.simulate.photometry import njy_of_magnitude

FWHM_PER_SIGMA = 2.3548200450309493


def gaussian_kernel(fwhm_arcsec: float, pixel_scale_arcsec: float) -> NDArray[np.float64]:
    """Gaussian PSF ``(y, x)`` of unit sum, odd side, sampled at pixel centres out to 4.5 sigma."""
    sigma_px = fwhm_arcsec / FWHM_PER_SIGMA / pixel_scale_arcsec
    radius = _radius_px(4.5 * sigma_px, fwhm_arcsec)
    axis = np.arange(-radius, radius + 1)
    line = np.exp(-0.5 * (axis / sigma_px) ** 2)
    kernel: NDArray[np.float64] = np.outer(line, line) / line.sum() ** 2
    return kernel


def moffat_kernel(fwhm_arcsec: float, pixel_scale_arcsec: float, *, beta: float = 3.0) -> NDArray[np.float64]:
    """
    Moffat (1969) PSF ``(y, x)`` of unit sum, odd side, sampled at pixel centres out to 4 FWHM.

    ``I ~ (1 + (r / a)^2)^-beta`` with ``FWHM = 2 a sqrt(2^(1/beta) - 1)``; beta 2.5-4 in ground-based seeing.
    """
    a = fwhm_arcsec / (2 * np.sqrt(2 ** (1 / beta) - 1)) / pixel_scale_arcsec
    radius = _radius_px(4 * fwhm_arcsec / pixel_scale_arcsec, fwhm_arcsec)
    x, y = np.meshgrid(np.arange(-radius, radius + 1), np.arange(-radius, radius + 1))
    kernel: NDArray[np.float64] = (1 + (x * x + y * y) / a**2) ** -beta
    kernel /= kernel.sum()
    return kernel


def moffat_star(
    fwhm_arcsec: float, scale: float, x_px: float, y_px: float, *, beta: float = 3.0
) -> NDArray[np.float64]:
    """
    A star of unit flux at a sub-pixel position, on an odd square centred on its nearest pixel, out to 12 FWHM.

    Sampled at pixel centres and normalised analytically, so the flux beyond the square is not piled up inside.
    """
    reach = int(np.ceil(12 * fwhm_arcsec / scale))
    a = fwhm_arcsec / (2 * np.sqrt(2 ** (1 / beta) - 1)) / scale
    axis = np.arange(-reach, reach + 1)
    r2 = (axis[None, :] - (x_px - round(x_px))) ** 2 + (axis[:, None] - (y_px - round(y_px))) ** 2
    profile: NDArray[np.float64] = (beta - 1) / (np.pi * a * a) * (1 + r2 / a**2) ** -beta
    return profile


def image_kernel(psf: ArrayLike) -> NDArray[np.float64]:
    """
    PSF image ``(y, x)`` as a kernel: negative noise cut, unit sum.

    Raises
    ------
    ConfigError
        The image is not two-dimensional with odd sides, not finite, or has no flux.
    """
    kernel = np.array(psf, np.float64)
    if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise ConfigError("a PSF image must be two-dimensional with odd sides", shape=str(kernel.shape))
    if not np.isfinite(kernel).all() or not kernel.clip(0).sum() > 0:
        raise ConfigError("a PSF image must be finite and hold flux", shape=str(kernel.shape))
    positive: NDArray[np.float64] = kernel.clip(0)
    positive /= positive.sum()
    return positive


def kernels_of(psf: Sequence[float | NDArray[np.floating]], pixel_scale_arcsec: float) -> list[NDArray[np.float64]]:
    """One kernel per band: a number is the FWHM (arcsec) of a Moffat profile with beta 3, an array is a PSF image."""
    return [
        image_kernel(one) if isinstance(one, np.ndarray) and one.ndim else moffat_kernel(float(one), pixel_scale_arcsec)
        for one in psf
    ]


def _radius_px(reach_px: float, fwhm_arcsec: float) -> int:
    if not (fwhm_arcsec > 0 and np.isfinite(reach_px)):
        raise ConfigError("a PSF needs a positive FWHM and pixel scale", fwhm_arcsec=fwhm_arcsec)
    return max(1, int(np.ceil(reach_px)))


def sky_rms_of_depth_njy(
    depth_mag: ArrayLike, pixel_scale_arcsec: float, *, n_sigma: float = 5.0, aperture_arcsec: float = 2.0
) -> NDArray[np.float64]:
    """
    Sky noise of one pixel (nJy) from a point-source depth.

    The depth is the AB magnitude whose flux is ``n_sigma`` times the sky noise summed over a circular aperture of
    diameter ``aperture_arcsec``, as surveys quote it; uncorrelated pixels, no aperture correction.
    """
    n_pixel = np.pi * (aperture_arcsec / 2) ** 2 / pixel_scale_arcsec**2
    rms: NDArray[np.float64] = njy_of_magnitude(depth_mag) / n_sigma / np.sqrt(n_pixel)
    return rms


def add_noise(
    image_njy: NDArray[np.floating],
    *,
    sky_rms_njy: ArrayLike,
    njy_per_electron: ArrayLike | None,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """
    The observed image: photons of the sources counted once, sky and read noise added once.

    Parameters
    ----------
    image_njy : array ``(band, y, x)``
        Noise-free, sky-subtracted image, nJy. Negative pixels get no photon noise.
    sky_rms_njy : float per band
        Gaussian noise of a pixel from sky and read-out together, nJy.
    njy_per_electron : float per band, or None
        Flux of one photo-electron, nJy; None leaves the photon noise of the sources out.
    rng : numpy Generator

    Returns
    -------
    float32 array ``(band, y, x)``, nJy
    """
    image = np.asarray(image_njy, np.float64)
    noise = rng.normal(size=image.shape) * np.asarray(sky_rms_njy, float).reshape(-1, 1, 1)
    if njy_per_electron is not None:
        gain = np.asarray(njy_per_electron, float).reshape(-1, 1, 1)
        photons = rng.poisson(image.clip(0) / gain)
        noise += photons * gain - image.clip(0)
    observed: NDArray[np.float32] = (image + noise).astype(np.float32)
    return observed


def photon_noise(
    flux_njy: NDArray[np.floating], njy_per_electron: ArrayLike | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Model flux ``(band, y, x)`` with its photon noise, or as it is where no gain is given."""
    flux = np.asarray(flux_njy, np.float64)
    if njy_per_electron is None:
        return flux
    gain = np.asarray(njy_per_electron, float).reshape(-1, 1, 1)
    counted: NDArray[np.float64] = rng.poisson(flux.clip(0) / gain) * gain
    return counted
