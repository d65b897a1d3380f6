"""The gate of a denoiser: what it does to sources and noise, and whether a finder finds more through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.image.background import estimate_background
from lenspipe.image.detect import detect_sep, detection_sum
from lenspipe.image.photometry import ab_magnitude, kron_apertures
from lenspipe.image.sources import Sources
from lenspipe.robust import robust_sigma
from lenspipe.stats.denoising import (
    PSNR_RANGE_SIGMA,
    Array,
    aperture_fluxes,
    blank_positions,
    detection_rates,
    flux_errors,
    match_nearest,
    psnr,
    residual_structure,
    ssim,
)

Image = NDArray[np.float32]
Denoise = Callable[[Image, NDArray[np.float64], float], Image]
"""Images (n, band, y, x) in nJy, noise of a sky pixel (band,), exposure ratio; denoised images."""

EDGES = (17.0, 19.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0)
RADIUS_PX, MATCH_PX = 4.0, 2.0
N_BLANK = 2000
N_THRESHOLD = 9
STAR_RADIUS_FACTOR = 1.15


@dataclass(frozen=True, eq=False)
class GateField:
    """
    A field as a short exposure and as a deeper one.

    Attributes
    ----------
    name : str
    short_njy, deep_njy : float32 arrays (band, y, x)
        Sky-subtracted; the deep image holds the short one.
    sky_rms_njy : float64 array (band,)
        Noise of a pixel of the short exposure.
    ratio : float
        Exposure time of the deep image over that of the short one.
    truth_njy : float32 array (band, y, x), optional
        The sky without noise, where it is known.
    """

    name: str
    short_njy: Image
    deep_njy: Image
    sky_rms_njy: NDArray[np.float64]
    ratio: float
    truth_njy: Image | None = None


@dataclass(frozen=True)
class GateLimits:
    """What a denoiser must keep to pass; see `judge`."""

    flux_bias: float = 0.01
    """Largest change of the median relative error of fluxes in any bin of magnitude whose sources have a signal to
    noise above 10; a bias counts where its interval does not hold 0."""
    purity_loss: float = 0.02
    """Largest loss of purity of detections against the short exposure."""
    psf_change: float = 0.03
    """Largest relative change of the half-light radius of stars."""
    blank_bias_sigma: float = 0.05
    """Largest mean of empty sky, in units of the pixel noise."""


@dataclass(eq=False)
class Detected:
    """Sources of an image and what is needed to measure them."""

    sources: Sources
    segments: NDArray[np.int32]
    rms: float
    half_light_radius_px: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


def detect(images_njy: Image, *, threshold_sigma: float = 1.5, min_area_px: int = 5) -> Detected:
    """
    Sources on the noise-weighted sum of the bands, thresholded at the image's own measured noise, by SEP.

    Raises
    ------
    DataError
        A band is constant.
    """
    clean, noise = np.array(images_njy, np.float32), []
    empty = np.zeros(clean.shape, bool)
    for band, image in enumerate(clean):
        background = estimate_background(image, empty[band], mesh_px=64, filter_mesh=3)
        if background is None:
            raise DataError("a band is constant: there is no noise to detect sources against", band=band)
        background.subtract_from(image)
        noise.append(background.rms)
    total, rms, mask = detection_sum(clean, noise, empty)
    sources, segments = detect_sep(
        total,
        rms,
        mask,
        threshold_sigma=threshold_sigma,
        min_area_px=min_area_px,
        deblend_levels=32,
        deblend_contrast=0.005,
    )
    radius = kron_apertures(total, mask, sources, segments).half_light_radius_px
    return Detected(sources, segments, float(np.median(rms)), radius)


def measure_field(denoise: Denoise, one: GateField) -> dict[str, Any]:
    """
    Every measurement of the gate on one field, for the short exposure (``before``) and the denoised one (``after``).

    A threshold in units of an image's own noise lies deeper in a denoised one: ``at_purity_before`` is its completeness
    at the threshold where it is as pure as the short exposure is at 1.5 sigma. Where the truth is known the deep
    exposure is measured too (``deep``): what the longer exposure gains by itself.

    Detections are matched within 2 pixels with those of the deep image. Fluxes are sums within circles of 4 pixels at
    the deep image's positions, compared with the truth where it is known, else with the deep image. The gain in
    signal to noise is given twice: ``sky`` by the scatter of circles on empty sky, as it is usually quoted, and
    ``flux`` by the error of the fluxes of faint sources against the reference, which a denoiser that only smooths the
    sky cannot improve.
    """
    after = denoise(one.short_njy[None], one.sky_rms_njy, one.ratio)[0]
    images = {"before": one.short_njy, "after": after}
    if one.truth_njy is not None:
        images["deep"] = one.deep_njy
    reference_image = one.deep_njy if one.truth_njy is None else one.truth_njy
    deep = detect(one.deep_njy)
    x, y = deep.sources.x_px, deep.sources.y_px
    n_y, n_x = one.short_njy.shape[-2:]
    inner = (x > 8) & (y > 8) & (x < n_x - 9) & (y < n_y - 9)
    band = len(one.sky_rms_njy) // 2
    reference = aperture_fluxes(reference_image[band], x, y, radius_px=RADIUS_PX)
    magnitude = ab_magnitude(reference)
    rng = np.random.default_rng(0)
    blank_x, blank_y = blank_positions(deep.segments, radius_px=RADIUS_PX, n=N_BLANK, rng=rng)
    rms = one.sky_rms_njy[band]
    star = _stars(deep, magnitude)
    quiet = deep.segments == 0
    out: dict[str, Any] = {"name": one.name, "ratio": one.ratio, "n_deep": int(inner.sum())}
    deep_radius = deep.half_light_radius_px
    spread: dict[str, tuple[float, float]] = {}
    for when, image in images.items():
        found = detect(image)
        rows, others = match_nearest(x, y, found.sources.x_px, found.sources.y_px, radius_px=MATCH_PX)
        flux = aperture_fluxes(image[band], x, y, radius_px=RADIUS_PX)
        blank = aperture_fluxes(image[band], blank_x, blank_y, radius_px=RADIUS_PX)
        aperture_noise = rms * np.sqrt(np.pi) * RADIUS_PX
        faint = inner & (reference > 2 * aperture_noise) & (reference < 20 * aperture_noise)
        error = flux[faint] - reference[faint]
        spread[when] = (_spread(blank), _spread(error))
        size = np.full(len(x), np.nan)
        size[rows] = found.half_light_radius_px[others]
        ratio = size[star] / deep_radius[star]
        ratio = ratio[np.isfinite(ratio)]
        residual = (image[band] - reference_image[band]) / rms
        clip = PSNR_RANGE_SIGMA * rms
        clipped, want = np.clip(image[band], -clip / 10, clip), np.clip(reference_image[band], -clip / 10, clip)
        out[when] = {
            "detections": detection_rates(len(x), len(found.sources), len(rows)),
            "fluxes": flux_errors(flux[inner], reference[inner], magnitude[inner], edges=EDGES),
            "relative_flux_error": float(
                np.mean(
                    np.abs(
                        flux[inner & (reference > 5 * aperture_noise)]
                        / reference[inner & (reference > 5 * aperture_noise)]
                        - 1
                    )
                )
            ),
            "faint_fluxes": {
                "n": int(faint.sum()),
                "bias_of_noise": float(np.median(error) / aperture_noise),
                "spread_of_noise": spread[when][1] / aperture_noise,
            },
            "star_radius": {"n": len(ratio), "over_deep": float(np.median(ratio)) if len(ratio) else None},
            "psnr_db": psnr(clipped, want, data_range=clip),
            "ssim": ssim(clipped, want, data_range=clip),
            "residual": residual_structure(residual, quiet),
        }
    for name, when in (("gain", "after"), ("gain_of_deep", "deep")):
        out[name] = {
            kind: spread["before"][k] / spread[when][k] if when in spread else None
            for k, kind in enumerate(("sky", "flux"))
        }
    out["at_purity_before"] = _at_purity(after, x, y, purity=out["before"]["detections"]["purity"])
    bright_mag = float(ab_magnitude(np.array([10 * rms * np.sqrt(np.pi) * RADIUS_PX]))[0])
    out["mag_of_snr_10"] = bright_mag
    return out


def run_gate(
    denoise: Denoise,
    fields: Sequence[GateField],
    *,
    finder: dict[str, Any] | None = None,
    limits: GateLimits | None = None,
) -> dict[str, Any]:
    """
    Measure a denoiser on fields, take the finder's comparison, and judge.

    Parameters
    ----------
    denoise : callable
        `lenspipe.infer.denoise.Denoiser.denoise` with its arguments in order, or any other: a control.
    fields : sequence of GateField
    finder : dict, optional
        What `lenspipe.evaluate.denoiser_finder.compare` found; without it no denoiser passes.
    limits : GateLimits, optional

    Returns
    -------
    dict
        ``fields``, ``finder``, ``passed``, and ``reasons``: why not.
    """
    measured = [measure_field(denoise, one) for one in fields]
    reasons = judge(measured, finder, limits or GateLimits())
    return {"passed": not reasons, "reasons": reasons, "finder": finder, "fields": measured}


def judge(measured: Sequence[dict[str, Any]], finder: dict[str, Any] | None, limits: GateLimits) -> list[str]:
    """
    Reasons why a denoiser is not to be used by default; empty where it passes.

    Fluxes must not be biased, detections must not be fewer or falser, stars must keep their width, empty sky its mean;
    and the finder must find more lenses at a false-positive rate of 1e-2 or 1e-3, by more than chance, without being
    worse at the other or inventing more arcs.
    """
    reasons = []
    for one in measured:
        name, before, after = one["name"], one["before"], one["after"]
        for row, was in zip(after["fluxes"], before["fluxes"], strict=True):
            if row["bias_interval95"] is None or row["mag"][1] > one["mag_of_snr_10"]:
                continue
            low, high = row["bias_interval95"]
            if abs(row["bias"] - was["bias"]) > limits.flux_bias and not low <= 0 <= high:
                reasons.append(
                    f"{name}: fluxes of magnitude {row['mag'][0]:g} to {row['mag'][1]:g} are off by {row['bias']:+.1%}"
                )
        got, had = after["detections"], before["detections"]
        if (got["completeness"] or 0) < (had["completeness"] or 0):
            reasons.append(f"{name}: completeness falls from {had['completeness']:.3f} to {got['completeness']:.3f}")
        if (got["purity"] or 0) < (had["purity"] or 0) - limits.purity_loss:
            reasons.append(f"{name}: purity falls from {had['purity']:.3f} to {got['purity']:.3f}")
        width = after["star_radius"]["over_deep"]
        if width is not None and abs(width / (before["star_radius"]["over_deep"] or 1) - 1) > limits.psf_change:
            reasons.append(f"{name}: the half-light radius of stars is {width:.3f} of the deep image's")
        if abs(after["residual"]["mean"]) > abs(before["residual"]["mean"]) + limits.blank_bias_sigma:
            reasons.append(f"{name}: empty sky has a mean of {after['residual']['mean']:+.3f} sigma")
    if finder is None:
        return [*reasons, "no finder was trained and run without and with it"]
    rates = finder["tpr_gain"]
    better = [rate for rate, gain in rates.items() if gain["interval95"][0] > 0]
    worse = [rate for rate, gain in rates.items() if gain["interval95"][1] < 0]
    if not better:
        reasons.append("the finder does not find more lenses through it at any of the rates, beyond chance")
    reasons += [f"the finder finds fewer lenses through it at a false-positive rate of {rate}" for rate in worse]
    if finder["invented"]["gain"]["interval95"][0] > 0:
        reasons.append("it makes more arcs on galaxies without any")
    return reasons


def _stars(deep: Detected, magnitude: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Sources as narrow as the narrowest well-measured ones."""
    radius = deep.half_light_radius_px
    good = np.isfinite(radius) & (magnitude > 17.5) & (magnitude < 22.0) & (deep.sources.flags == 0)
    if not good.any():
        return good
    return good & (radius < STAR_RADIUS_FACTOR * np.quantile(radius[good], 0.1))


def _at_purity(image: Image, x_px: Array, y_px: Array, *, purity: float | None) -> dict[str, float | None]:
    """The lowest threshold from 1.5 to 3.1 sigma, to 0.2, whose detections are as pure; None where none is."""
    for step in range(N_THRESHOLD):
        threshold = round(1.5 + 0.2 * step, 1)
        found = detect(image, threshold_sigma=threshold).sources
        rows, _ = match_nearest(x_px, y_px, found.x_px, found.y_px, radius_px=MATCH_PX)
        rates = detection_rates(len(x_px), len(found), len(rows))
        if (rates["purity"] or 0) >= (purity or 0):
            return {"threshold_sigma": threshold, "completeness": rates["completeness"], "purity": rates["purity"]}
    return {"threshold_sigma": None, "completeness": None, "purity": None}


def _spread(values: NDArray[np.float64]) -> float:
    """1.48 times the median absolute deviation."""
    return float(robust_sigma(values)) if len(values) else float("nan")
