"""When a classifier of substructure does not say what it sees: facts of a stamp's light, and the rule over them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lenspipe.nn.outputs import Abstention
from lenspipe.robust import robust_sigma

LEAST_COVERED = 0.9
"""Part of a stamp that must hold data, and be free of masks, for its class to be asked at all."""
REASONS = ("psf", "masked", "fit", "snr", "radius", "confidence")
"""Why a classifier abstains; the first that holds is given."""


def light_facts(
    stamps_njy: NDArray[np.floating], *, field_px: int, pixel_scale_arcsec: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """
    Signal-to-noise and size of the light of stamps, as the stamps themselves show them.

    With the noise sigma of a band, from `robust_sigma` in the outer eighth of the field,
    S/N^2 = sum (f / sigma)^2 - 1 over bands and over the pixels of the circle inside the field, which for white noise
    is that of the light without noise on average. The radius is weighted by the same summand: of arcs without light of
    the lens it lies near the Einstein radius; a lens that is not subtracted, or a neighbour, counts as light.

    Parameters
    ----------
    stamps_njy : array (n, band, y, x)
        Background-subtracted flux a pixel, nJy; exactly 0 where there are no data.
    field_px : int
        Side of the square in the middle that counts.
    pixel_scale_arcsec : float

    Returns
    -------
    snr : array (n,)
        NaN where a band has no noise to measure.
    radius_arcsec : array (n,)
        NaN where there is no light above the noise.
    covered : array (n,)
        Part of the field's pixels that hold data.
    """
    side = stamps_njy.shape[-1]
    edge = max(0, (side - field_px) // 2)
    inner = slice(edge, side - edge)
    pixels = np.asarray(stamps_njy[..., inner, inner], np.float64)
    n, side = len(pixels), pixels.shape[-1]
    there = pixels != 0
    width = max(1, side // 8)
    frame = np.ones((side, side), bool)
    frame[width:-width, width:-width] = False
    outside = np.where(there, pixels, np.nan)[..., frame]
    axis = np.arange(side) - (side - 1) / 2
    radius = np.hypot(axis, axis[:, None])
    inside = radius <= side / 2
    snr, mean_radius = np.full(n, np.nan), np.full(n, np.nan)
    for k in range(n):
        sigma = _scatter(outside[k])
        if not (sigma > 0).all():
            continue
        counted = there[k] & inside
        excess = np.where(counted, (pixels[k] / sigma[:, None, None]) ** 2 - 1, 0.0)
        total = float(excess.sum())
        snr[k] = np.sqrt(max(total, 0.0))
        if total > 0:
            mean_radius[k] = max(0.0, float((excess * radius).sum()) / total) * pixel_scale_arcsec
    return snr, mean_radius, there.mean(axis=(1, 2, 3))


def _scatter(outside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise of each band from the pixels of its frame that hold data; 0 where there are none."""
    found = np.zeros(len(outside))
    for b, pixels in enumerate(outside):
        known = pixels[np.isfinite(pixels)]
        if len(known):
            found[b] = robust_sigma(known)
    return found


def reasons_to_abstain(
    rule: Abstention,
    *,
    snr: NDArray[np.float64],
    radius_arcsec: NDArray[np.float64],
    covered: NDArray[np.float64],
    confidence: NDArray[np.float64],
    psf_fwhm_arcsec: Mapping[str, float | NDArray[np.float64]],
    unfitted: NDArray[np.bool_] | None = None,
) -> NDArray[np.object_]:
    """
    Why each stamp ``(n,)`` is left without a class, one of `REASONS`; an empty word where it is not.

    Parameters
    ----------
    rule : Abstention
    snr, radius_arcsec, covered : arrays (n,)
        Of `light_facts`. A value that could not be measured counts as too small.
    confidence : array (n,)
        Highest class probability.
    psf_fwhm_arcsec : mapping
        FWHM of the PSF by band, one value or one a stamp; a band that is missing does not pass.
    unfitted : array (n,), optional
        Which stamps have no fit like those of the training (`lenspipe.nn.fitted.SmoothFit.failed`).
    """
    n = len(snr)
    holds = np.zeros((len(REASONS), n), bool)
    for band, widest in rule.widest_psf_arcsec.items():
        fwhm = np.broadcast_to(np.asarray(psf_fwhm_arcsec.get(band, np.nan), np.float64), n)
        holds[0] |= ~(fwhm <= widest)
    holds[1] = ~(covered >= LEAST_COVERED)
    holds[2] = False if unfitted is None else unfitted
    holds[3] = ~(snr >= rule.least_snr)
    holds[4] = ~(radius_arcsec >= rule.least_radius_arcsec)
    holds[5] = True if rule.least_confidence is None else ~(confidence >= rule.least_confidence)
    first = np.where(holds.any(axis=0), holds.argmax(axis=0), len(REASONS))
    return np.array([*REASONS, ""], object)[first]
