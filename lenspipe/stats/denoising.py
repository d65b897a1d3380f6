"""What a denoiser did to an image: detections, fluxes, noise, likeness, and what is left over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from lenspipe.robust import robust_sigma
from lenspipe.stats.intervals import median_interval

Array = NDArray[np.float64]
PSNR_RANGE_SIGMA = 100.0
"""Data range of PSNR and SSIM, in units of the short exposure's sky noise."""
Z95 = 1.959963984540054


@dataclass(frozen=True)
class PixelErrors:
    """
    Sums over pixels of errors in units of the noise; they add up over any split.

    Attributes
    ----------
    n : int
        Pixels.
    bias, absolute, huber, square : float
        Sums of e, |e|, Huber's function of e (half its square to 1, linear above) and e^2.
    """

    n: int = 0
    bias: float = 0.0
    absolute: float = 0.0
    huber: float = 0.0
    square: float = 0.0

    @classmethod
    def of(cls, errors: NDArray[np.floating]) -> PixelErrors:
        """Sum up errors, an array of any shape."""
        e = np.asarray(errors, np.float64)
        size = np.abs(e)
        huber = np.where(size <= 1, e**2 / 2, size - 0.5)
        return cls(e.size, float(e.sum()), float(size.sum()), float(huber.sum()), float((e**2).sum()))

    def __add__(self, other: PixelErrors) -> PixelErrors:
        return PixelErrors(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def metrics(self) -> dict[str, float | int | None]:
        """``n_pixel``; ``bias``, ``l1``, ``huber`` and ``rmse``, means per pixel, null where there is none."""
        if not self.n:
            return {"n_pixel": 0, **dict.fromkeys(("bias", "l1", "huber", "rmse"))}
        return {
            "n_pixel": self.n,
            "bias": self.bias / self.n,
            "l1": self.absolute / self.n,
            "huber": self.huber / self.n,
            "rmse": (self.square / self.n) ** 0.5,
        }


@dataclass(frozen=True)
class RatioSums:
    """
    Sums for the ratio of two means over the same items, with an interval; they add up.

    Attributes
    ----------
    n : int
        Items.
    a, b, aa, ab, bb : float
        Sums of both quantities, and of their products.
    """

    n: int = 0
    a: float = 0.0
    b: float = 0.0
    aa: float = 0.0
    ab: float = 0.0
    bb: float = 0.0

    @classmethod
    def of(cls, a: Array, b: Array) -> RatioSums:
        """Sum up two quantities ``(n,)``."""
        return cls(len(a), *(float(s) for s in (a.sum(), b.sum(), (a * a).sum(), (a * b).sum(), (b * b).sum())))

    def __add__(self, other: RatioSums) -> RatioSums:
        return RatioSums(*(x + y for x, y in zip(astuple(self), astuple(other), strict=True)))

    def metrics(self) -> dict[str, Any]:
        """
        ``value``, the mean of a over that of b, and ``interval95``, by the linearised variance of a ratio of means.

        Items count as independent; null where there are fewer than two, or b is nothing.
        """
        if self.n < 2 or self.b <= 0:
            return {"value": None, "interval95": None, "n": self.n}
        ratio = self.a / self.b
        residual = max(0.0, self.aa - 2 * ratio * self.ab + ratio**2 * self.bb)
        half = Z95 * (residual * self.n / (self.n - 1)) ** 0.5 / self.b
        return {"value": ratio, "interval95": [ratio - half, ratio + half], "n": self.n}


def match_nearest(
    x_px: Array, y_px: Array, other_x_px: Array, other_y_px: Array, *, radius_px: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """
    Pairs of points that are each other's nearest within a radius.

    Returns
    -------
    one, other : integer arrays (n,)
        Rows of the pairs; no row comes twice.
    """
    a, b = np.stack([x_px, y_px], axis=1), np.stack([other_x_px, other_y_px], axis=1)
    if not len(a) or not len(b):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    distance, to_b = cKDTree(b).query(a)
    _, to_a = cKDTree(a).query(b)
    rows = np.flatnonzero((distance <= radius_px) & (to_a[to_b] == np.arange(len(a))))
    return rows, to_b[rows]


def detection_rates(n_reference: int, n_found: int, n_matched: int) -> dict[str, float | int | None]:
    """
    Completeness (found of the reference), purity (of what is found, in the reference) and their harmonic mean F.

    None where there is nothing to take a part of.
    """
    completeness = n_matched / n_reference if n_reference else None
    purity = n_matched / n_found if n_found else None
    both = completeness and purity and 2 * completeness * purity / (completeness + purity)
    return {
        "n_reference": n_reference,
        "n_found": n_found,
        "n_matched": n_matched,
        "completeness": completeness,
        "purity": purity,
        "f": both,
    }


def flux_errors(flux: Array, reference: Array, magnitude: Array, *, edges: Sequence[float]) -> list[dict[str, Any]]:
    """
    Error and bias of fluxes by magnitude.

    Parameters
    ----------
    flux, reference : arrays (n,)
        Measured fluxes and what they should be, in one unit.
    magnitude : array (n,)
        Of the reference.
    edges : sequence of float
        Edges of the bins.

    Returns
    -------
    list of dict
        A bin each: ``n``, ``bias`` (median relative error) with its 95 % interval (None below six sources),
        ``error`` (mean absolute relative error, RFE of Vojtekova et al. 2021, as a fraction), ``scatter`` (1.48 times
        the median absolute deviation). None where a bin is empty.
    """
    rows: list[dict[str, Any]] = []
    for low, high in itertools.pairwise(edges):
        inside = (magnitude >= low) & (magnitude < high) & (reference > 0) & np.isfinite(flux)
        relative = flux[inside] / reference[inside] - 1
        row: dict[str, Any] = {"mag": [low, high], "n": len(relative)}
        if len(relative):
            bounds = median_interval(relative)
            middle = float(np.median(relative))
            row |= {
                "bias": middle,
                "bias_interval95": None if bounds is None else list(bounds),
                "error": float(np.abs(relative).mean()),
                "scatter": float(robust_sigma(relative)),
            }
        else:
            row |= dict.fromkeys(("bias", "bias_interval95", "error", "scatter"))
        rows.append(row)
    return rows


def aperture_fluxes(image: NDArray[np.float32], x_px: Array, y_px: Array, *, radius_px: float) -> Array:
    """Sums within circles, by SEP with 25 subpixels."""
    flux, _, _ = sep.sum_circle(np.ascontiguousarray(image), x_px, y_px, radius_px, subpix=5)
    return np.asarray(flux, np.float64)


def blank_positions(
    segments: NDArray[np.integer], *, radius_px: float, n: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Up to ``n`` random centres of circles that touch no source (segment above 0) and no edge."""
    reach = int(np.ceil(radius_px)) + 3
    taken = ndimage.binary_dilation(segments > 0, iterations=reach)
    taken[:reach], taken[-reach:], taken[:, :reach], taken[:, -reach:] = True, True, True, True
    y, x = np.nonzero(~taken)
    rows = rng.choice(len(y), min(n, len(y)), replace=False)
    return x[rows].astype(np.float64), y[rows].astype(np.float64)


def psnr(image: NDArray[np.floating], truth: NDArray[np.floating], *, data_range: float) -> float:
    """Peak signal-to-noise ratio, dB, ``20 log10(data_range) - 10 log10(mean square error)``; infinite where equal."""
    error = float(np.mean((np.asarray(image, np.float64) - truth) ** 2))
    return float("inf") if error == 0 else float(20 * np.log10(data_range) - 10 * np.log10(error))


def ssim(image: NDArray[np.floating], truth: NDArray[np.floating], *, data_range: float) -> float:
    """
    Mean structural similarity of two images ``(y, x)`` (Wang et al. 2004, IEEE TIP 13, 600).

    Gaussian window of 1.5 pixels cut at 5, K1 0.01, K2 0.03, biased moments; the border of 5 pixels is left out.
    """

    def mean(values: Array) -> Array:
        return np.asarray(ndimage.gaussian_filter(values, 1.5, radius=5, mode="constant"), np.float64)

    a, b = np.asarray(image, np.float64), np.asarray(truth, np.float64)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    likeness = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(likeness[5:-5, 5:-5].mean())


def residual_structure(residual: NDArray[np.floating], blank: NDArray[np.bool_]) -> dict[str, float]:
    """
    What is left of an image after the truth is taken off, over empty sky.

    Parameters
    ----------
    residual : array (y, x)
        Image less truth, in units of the input's noise.
    blank : array (y, x), bool
        Where there is no source.

    Returns
    -------
    dict
        ``mean`` and ``std``; ``correlation_1`` and ``correlation_4``, the correlation of pixels 1 and 4 apart (white
        noise has none: a smooth residual is structure that was not in the sky); ``kurtosis``, the excess.
    """
    values = np.asarray(residual, np.float64)
    inside = values[blank]
    centre, spread = float(inside.mean()), float(inside.std())
    out = {"mean": centre, "std": spread}
    for lag in (1, 4):
        both = blank[:, lag:] & blank[:, :-lag]
        product = (values[:, lag:][both] - centre) * (values[:, :-lag][both] - centre)
        out[f"correlation_{lag}"] = float(product.mean() / spread**2) if spread > 0 else 0.0
    fourth = float(np.mean((inside - centre) ** 4))
    out["kurtosis"] = fourth / spread**4 - 3 if spread > 0 else 0.0
    return out


def noise_of(images_njy: NDArray[np.float32]) -> NDArray[np.float64]:
    """
    Noise of the sky of each stamp and band, ``(n, band, 1, 1)``, from differences of pixels two apart.

    1.48 times their median absolute value over the square root of 2: the light of a galaxy is smooth beside its noise.
    """
    apart = images_njy[..., 2:] - images_njy[..., :-2]
    noise = robust_sigma(apart, (2, 3), around=0.0, keepdims=True) / np.sqrt(2)
    return np.asarray(np.maximum(noise, 1e-6 * np.abs(images_njy).max() + 1e-12), np.float64)
