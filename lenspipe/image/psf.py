"""The point spread function of a window and band, from its own stars: a Moffat function, and what it leaves over."""

from __future__ import annotations

import dataclasses

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.ndimage import shift
from scipy.optimize import least_squares

from lenspipe.robust import robust_sigma
from lenspipe.schema import PSF_SIDE_PX as SIDE_PX

Array = NDArray[np.float64]

MIN_STARS = 5
"""Fewest stars that a PSF is measured from."""
MIN_SNR = 20.0
"""Signal-to-noise in the band that a star needs."""
MOST_STARS, MOST_FITTED = 150, 30
"""Stars that are stacked, the brightest, and those of them, of all brightnesses, that the shape is fitted to."""
MIN_FOR_PLANE = 20
CORE_FWHM, WING_FWHM = 1.0, 2.0
"""Radii in FWHM: within the first a star is compared, within the second it is fitted."""
GAUSSIAN_FWHM = 2.3548
MODEL_ERROR = 0.005
"""Error of the model, as a fraction of its peak, that every pixel has beside its noise."""
OUTLIER = 4.0


@dataclasses.dataclass(frozen=True, eq=False)
class Psf:
    """
    The PSF of one band as the pixels show it: the pixel's own width is in it.

    Attributes
    ----------
    fwhm_px : float
        Full width at half maximum, geometric mean of the axes, of the fitted elliptical Moffat function.
    beta : float
        Exponent of the Moffat function.
    ellipticity : float
        1 - minor / major axis.
    angle_deg : float
        Major axis, from +x towards +y, in [-90, 90).
    variation : float
        Largest less smallest FWHM of a plane fitted over the window, as a fraction of the FWHM; NaN below
        `MIN_FOR_PLANE` stars.
    n_star : int
        Stars that were stacked.
    snr : float
        Signal-to-noise of the stack.
    scatter : float
        Standard deviation of the FWHM of single stars, as a fraction: how well one PSF stands for the window.
    stack : float32 array (SIDE_PX, SIDE_PX)
        The PSF centred on its middle pixel, its sum 1.
    """

    fwhm_px: float
    beta: float
    ellipticity: float
    angle_deg: float
    variation: float
    n_star: int
    snr: float
    scatter: float
    stack: NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class _Stars:
    """Boxes around stars: pixels over their flux, weights (0 where masked), offsets of the stars from the middle."""

    pixels: Array
    error: Array
    good: NDArray[np.bool_]
    dx: Array
    dy: Array
    snr: Array
    x_px: Array
    y_px: Array

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> _Stars:
        return _Stars(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


def measure_psf(
    image: NDArray[np.float32],
    rms: float,
    mask: NDArray[np.bool_],
    segments: NDArray[np.int32],
    label: NDArray[np.int32],
    x_px: Array,
    y_px: Array,
    *,
    half_light_radius_px: float,
) -> Psf | None:
    """
    Measure the PSF of one band from stars.

    An elliptical Moffat function (Moffat 1969, A&A 3, 455) is fitted to the pixels of the brightest stars at once,
    each shifted to its own centre and divided by its flux, so that no pixel is interpolated. What the stars have
    beyond it is interpolated to a common centre, averaged with outliers clipped, and added: the stack. Stars whose
    core does not fit, such as saturated or double ones, are left out. Pixels of other sources count as masked.

    Parameters
    ----------
    image : float32 array (y, x)
        Background-subtracted.
    rms : float
        Noise of a pixel, in the image's unit.
    mask : bool array (y, x)
        True where a pixel is bad.
    segments : int32 array (y, x)
        Label of the source that a pixel belongs to.
    label, x_px, y_px : arrays (n,)
        The stars: their label and position, good to a pixel.
    half_light_radius_px : float
        Of the stars, as a first guess.

    Returns
    -------
    Psf or None
        None where fewer than `MIN_STARS` are bright enough in this band, whole, and alike, or no fit is found.
    """
    guess = 1.8 * half_light_radius_px
    stars = _cut(image, rms, mask, segments, label, x_px, y_px, guess)
    shape = np.array([np.log(guess), np.log(2.0), 0.0, 0.0])
    for _ in range(3):
        if len(stars.dx) < MIN_STARS:
            return None
        fitted = _fit(stars.take(np.arange(0, len(stars.dx), -(-len(stars.dx) // MOST_FITTED))), shape)
        if fitted is None:
            return None
        scale, widths, alike = _compare(stars, fitted)
        shape = fitted + np.array([np.median(widths[alike]), 0, 0, 0])  # all stars, not those fitted alone
        if alike.all():
            break
        stars = stars.take(alike)
    if len(stars.dx) < MIN_STARS:
        return None
    return _psf(stars, shape, widths[alike], scale[alike], image.shape)


def moffat(x: Array, y: Array, shape: Array) -> Array:
    """
    Elliptical Moffat function, its integral 1.

    Parameters
    ----------
    x, y : float64 arrays
        Offsets from the centre, pixels.
    shape : float64 array (4,)
        ln FWHM, ln (beta - 1), and the components e1, e2 of the shear: axes stretched by ``exp(+-|e|)``, at half the
        angle of ``(e1, e2)``.
    """
    fwhm, beta = np.exp(shape[0]), 1 + np.exp(shape[1])
    size = np.hypot(shape[2], shape[3])
    turn = 0.5 * np.arctan2(shape[3], shape[2])
    along = (x * np.cos(turn) + y * np.sin(turn)) * np.exp(-size)
    across = (y * np.cos(turn) - x * np.sin(turn)) * np.exp(size)
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    return np.asarray((beta - 1) / (np.pi * alpha2) * (1 + (along**2 + across**2) / alpha2) ** -beta)


def _cut(
    image: NDArray[np.float32],
    rms: float,
    mask: NDArray[np.bool_],
    segments: NDArray[np.int32],
    label: NDArray[np.int32],
    x_px: Array,
    y_px: Array,
    fwhm_px: float,
) -> _Stars:
    half = SIDE_PX // 2
    n_y, n_x = image.shape
    x, y, flag = sep.winpos(image, x_px, y_px, fwhm_px / GAUSSIAN_FWHM, mask=mask if mask.any() else None)
    near = (flag == 0) & (np.hypot(x - x_px, y - y_px) < max(1.0, fwhm_px / 2))
    column, row = np.floor(x + 0.5).astype(int), np.floor(y + 0.5).astype(int)
    inside = near & (column >= half) & (row >= half) & (column < n_x - half) & (row < n_y - half)
    steps = np.arange(-half, half + 1)
    boxes: list[tuple[Array, NDArray[np.bool_], float, float, float]] = []
    kept = []
    for k in np.flatnonzero(inside):
        box = np.s_[row[k] - half : row[k] + half + 1, column[k] - half : column[k] + half + 1]
        dx, dy = x[k] - column[k], y[k] - row[k]
        r = np.hypot(steps[None] - dx, steps[:, None] - dy)
        owner = segments[box]
        good = ~mask[box] & ((owner == 0) | (owner == label[k]))
        core = r <= CORE_FWHM * fwhm_px
        if not good[core].all():
            continue
        pixels = image[box].astype(np.float64)
        rim = good & (r > max(3.5 * fwhm_px, 0.7 * half))
        if rim.sum() >= 50:
            pixels = pixels - np.median(pixels[rim])
        flux = pixels[core].sum()
        snr = flux / (rms * np.sqrt(core.sum()))
        if snr >= MIN_SNR:
            boxes.append((pixels / flux, good, dx, dy, snr))
            kept.append(k)
    order = np.argsort([-box[4] for box in boxes], kind="stable")[:MOST_STARS]
    boxes, kept = [boxes[k] for k in order], [kept[k] for k in order]
    pixels_, good_, dx_, dy_, snr_ = zip(*boxes, strict=True) if boxes else ((), (), (), (), ())
    square = (len(boxes), SIDE_PX, SIDE_PX)
    snr_all = np.array(snr_, float)
    n_core = np.pi * (CORE_FWHM * fwhm_px) ** 2
    return _Stars(
        np.array(pixels_, float).reshape(square),
        1 / (snr_all * np.sqrt(n_core)),
        np.array(good_, bool).reshape(square),
        np.array(dx_, float),
        np.array(dy_, float),
        snr_all,
        x_px[kept],
        y_px[kept],
    )


def _offsets(stars: _Stars) -> tuple[Array, Array]:
    side = stars.pixels.shape[-1]
    steps = np.arange(side) - side // 2
    x, y = np.broadcast_arrays(
        steps[None, None, :] - stars.dx[:, None, None], steps[None, :, None] - stars.dy[:, None, None]
    )
    return x, y


def _inner(stars: _Stars, reach_px: float) -> _Stars:
    """The middle of the boxes: what a core is compared by."""
    half = min(SIDE_PX // 2, int(np.ceil(reach_px)) + 1)
    middle = np.s_[:, SIDE_PX // 2 - half : SIDE_PX // 2 + half + 1, SIDE_PX // 2 - half : SIDE_PX // 2 + half + 1]
    return dataclasses.replace(stars, pixels=stars.pixels[middle], good=stars.good[middle])


def _fit(stars: _Stars, start: Array) -> Array | None:
    """Shape that fits the stars best; their amplitudes are solved for on the way."""
    fwhm = float(np.exp(start[0]))
    stars = _inner(stars, WING_FWHM * fwhm)
    x, y = _offsets(stars)
    used = stars.good & (np.hypot(x, y) <= WING_FWHM * fwhm)
    peak = 0.9 / fwhm**2
    error = np.sqrt(stars.error[:, None, None] ** 2 + (MODEL_ERROR * peak) ** 2)
    weight = np.where(used, 1 / error, 0.0)
    data = stars.pixels * weight
    star = np.broadcast_to(np.arange(len(stars.dx))[:, None, None], used.shape)[used]
    n = len(stars.dx)
    xs, ys, weights, values = x[used], y[used], weight[used], data[used]

    def left(shape: Array) -> Array:
        model = moffat(xs, ys, shape) * weights
        scale = np.bincount(star, model * values, n) / np.bincount(star, model * model, n)
        return np.asarray(values - scale[star] * model)

    bounds = ([start[0] - 1.0, np.log(0.3), -0.7, -0.7], [start[0] + 1.0, np.log(9.0), 0.7, 0.7])
    found = least_squares(
        left,
        start,
        bounds=bounds,
        loss="soft_l1",
        f_scale=3.0,
        x_scale=[0.1, 0.3, 0.05, 0.05],
        xtol=1e-4,
        ftol=1e-5,
        tr_solver="lsmr",
    )
    if not found.success or not np.isfinite(found.x).all() or abs(found.x[0] - start[0]) > 0.99:
        return None
    return np.asarray(found.x)


def _compare(stars: _Stars, shape: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """
    Each star beside the model: amplitude, ln(FWHM) less the model's, and whether it is like the others.

    Amplitude and width are those of a linear fit within the core.
    """
    stars = _inner(stars, CORE_FWHM * float(np.exp(shape[0])))
    x, y = _offsets(stars)
    core = stars.good & (np.hypot(x, y) <= CORE_FWHM * np.exp(shape[0]))
    model = moffat(x, y, shape)
    wider = shape + np.array([0.01, 0, 0, 0])
    slope = (moffat(x, y, wider) - model) / 0.01
    a, b, d = (np.where(core, v, 0.0).reshape(len(core), -1) for v in (model, slope, stars.pixels))
    aa, ab, bb, ad, bd = ((u * v).sum(axis=1) for u, v in ((a, a), (a, b), (b, b), (a, d), (b, d)))
    determinant = aa * bb - ab**2
    scale, slant = (ad * bb - bd * ab) / determinant, (bd * aa - ad * ab) / determinant
    width = slant / scale
    rest = d - scale[:, None] * a - slant[:, None] * b
    misfit = np.sqrt((rest**2).sum(axis=1)) / (scale * np.sqrt(aa))
    noise = stars.error * np.sqrt(core.sum(axis=(1, 2))) / (scale * np.sqrt(aa))
    misfit = np.sqrt(np.maximum(misfit**2 - noise**2, 0))
    alike = np.abs(width - np.median(width)) < OUTLIER * max(float(robust_sigma(width)), 0.02)
    alike &= misfit < np.median(misfit) + OUTLIER * max(float(robust_sigma(misfit)), 0.01)
    return scale, width, alike & (scale > 0)


def _psf(stars: _Stars, shape: Array, widths: Array, scale: Array, window: tuple[int, int]) -> Psf:
    x, y = _offsets(stars)
    rest = np.where(stars.good, stars.pixels / scale[:, None, None] - moffat(x, y, shape), 0.0)
    for k in range(len(rest)):
        rest[k] = shift(rest[k], (-stars.dy[k], -stars.dx[k]), order=1, mode="constant")
    error = stars.error / scale
    weight = np.where(stars.good, (1 / (error**2 + (MODEL_ERROR * 0.9 / np.exp(2 * shape[0])) ** 2))[:, None, None], 0)
    middle = np.median(rest, axis=0)
    spread = robust_sigma(rest, axis=0) + 1e-12
    weight = np.where(np.abs(rest - middle) <= OUTLIER * spread, weight, 0)
    steps = np.arange(SIDE_PX) - SIDE_PX // 2
    grid = np.meshgrid(steps.astype(float), steps.astype(float))
    total = weight.sum(axis=0)
    stack = moffat(grid[0], grid[1], shape) + np.where(total > 0, (weight * rest).sum(axis=0), 0) / np.where(
        total > 0, total, 1
    )
    stack /= stack.sum()
    size, turn = np.hypot(shape[2], shape[3]), 0.5 * np.arctan2(shape[3], shape[2])
    variation = _variation(widths, stars.x_px, stars.y_px, window) if len(widths) >= MIN_FOR_PLANE else np.nan
    return Psf(
        fwhm_px=float(np.exp(shape[0])),
        beta=float(1 + np.exp(shape[1])),
        ellipticity=float(1 - np.exp(-2 * size)),
        angle_deg=float((np.degrees(turn) + 90) % 180 - 90),
        variation=float(variation),
        n_star=len(stars.dx),
        snr=float(np.sqrt((stars.snr**2).sum())),
        scatter=float(robust_sigma(widths)),
        stack=stack.astype(np.float32),
    )


def _variation(widths: Array, x_px: Array, y_px: Array, window: tuple[int, int]) -> float:
    design = np.column_stack([np.ones_like(x_px), x_px, y_px])
    plane = np.linalg.lstsq(design, widths, rcond=None)[0]
    return float(abs(plane[1]) * window[1] + abs(plane[2]) * window[0])
