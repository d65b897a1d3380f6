"""Which pixels of a plane are data: weights, zeros, saturation, flags, and numbers in place of none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import TileError
from lenspipe.robust import robust_sigma
from lenspipe.survey.files import read_header
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.tile import BandFiles, Plane

NO_DATA_RMS = 1e15
"""An RMS above this is a survey's way to say that there are no data (Euclid writes 1e16)."""
ONE_PIXEL_MAX_NJY = 3.631e12
"""No pixel is as bright as magnitude 0."""
NO_DATA_VALUES = (-99.0, -999.0, -9999.0, -99999.0, -32767.0, -32768.0, -2147483648.0)
SATURATED_MAX = 0.5
PHOTON_PATCHES_MIN, PHOTON_MEDIAN_MAX, PHOTON_LONELY_MIN = 0.005, 10, 0.3


def inverse_variance(
    weight: NDArray[Any], kind: str | None, njy_per_count: float
) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    """Inverse variance [1/nJy^2] of a weight plane, None of a relative one; and the pixels without data."""
    values = weight.astype(np.float64)  # variances of maggies, 1e-24, underflow in float32
    good = np.isfinite(values) & (values > 0)
    if kind == "rms":
        good &= values < NO_DATA_RMS
    if kind is None or kind == "relative":
        return None, ~good
    power = {"invvar": 1, "variance": -1, "rms": -2}[kind]
    invvar = np.where(good, np.where(good, values, 1.0) ** power, 0.0) / njy_per_count**2
    return invvar.astype(np.float32), ~good


def zero_patches(counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Patches of exact zeros, 3 x 3 and larger; single zeros come out of quantised compression."""
    zero = counts == 0
    if not zero.any():
        return zero
    from scipy import ndimage  # half a second, for images with zeros only

    patches: NDArray[np.bool_] = ndimage.binary_opening(zero, np.ones((3, 3), bool))
    return patches


def demand_meaning_of_zeros(
    counts: NDArray[Any], empty: NDArray[np.bool_], files: BandFiles, layout: SurveyLayout
) -> None:
    """Refuse photon counts, whose zeros are data, until the layout says what zeros are."""
    if layout.zeros_are_no_data is not None or empty.mean() < PHOTON_PATCHES_MIN:
        return
    seen = counts[counts != 0]
    seen = seen[np.isfinite(seen)]
    if not seen.size or np.median(seen) > PHOTON_MEDIAN_MAX or (seen != np.round(seen)).any() or seen.min() < 0:
        return
    from scipy import ndimage

    beside = ndimage.binary_dilation(counts == 0)
    if beside[counts != 0].mean() < PHOTON_LONELY_MIN:  # an empty border touches few pixels, photons are alone
        return
    raise TileError(
        f"{(counts == 0).mean():.0%} of the pixels are exact zeros among small whole numbers, as in an image of photon "
        "counts; say in the survey's layout whether they are data (zeros_are_no_data = false) or not (true)",
        file=files.image.file,
        band=files.band,
    )


def saturated(
    counts: NDArray[Any], masked: NDArray[np.bool_], level: float, files: BandFiles, layout: SurveyLayout
) -> NDArray[np.bool_]:
    """Pixels above the saturation level; raises `TileError` where that is most of them."""
    above: NDArray[np.bool_] = counts >= level
    n_good = int((~masked).sum())
    if n_good and (above & ~masked).sum() > SATURATED_MAX * n_good:
        raise TileError(
            f"more than {SATURATED_MAX:.0%} of the pixels are above the saturation level; correct "
            f"{layout.saturation_keyword or 'saturation in the survey layout'}",
            file=files.image.file,
            band=files.band,
            level=level,
        )
    return above


def sentinels(counts: NDArray[Any], masked: NDArray[np.bool_], njy_per_unit: float) -> NDArray[np.bool_]:
    """
    Pixels that hold a number in place of "no data": 1e30, -999, -32768.

    Those are pixels brighter than magnitude 0, or as far below it; the customary negative numbers where three pixels or
    more have one and it lies 10 sigma below the sky; and the lowest value, where nine pixels or more have exactly this
    one and it lies 50 sigma below.

    Parameters
    ----------
    counts : array (y, x)
    masked : array (y, x), bool
        Pixels that are bad already; they do not count.
    njy_per_unit : float

    Returns
    -------
    bool array (y, x)
    """
    odd: NDArray[np.bool_] = np.zeros(counts.shape, bool)
    if masked.all():
        return odd
    values = np.where(masked, counts.dtype.type(0), counts)
    brightest_njy = ONE_PIXEL_MAX_NJY / njy_per_unit
    if max(-float(values.min()), float(values.max())) > brightest_njy:
        odd |= np.abs(values.astype(np.float64)) > brightest_njy
        values[odd] = 0
    lowest = float(values.min())
    if lowest >= 0:
        return odd
    usual = [(value, 3, 10.0) for value in NO_DATA_VALUES if value >= lowest]
    for value, n_min, n_sigma in (*usual, (lowest, 9, 50.0)):
        hit = values == value
        if np.count_nonzero(hit) >= n_min:  # most images have none: what costs time comes after this
            good = ~(masked | odd)
            rest = values[good & ~hit].astype(np.float64)
            if not rest.size:
                continue
            middle = float(np.median(rest))
            sigma = float(robust_sigma(rest, around=middle))
            if sigma > 0 and value < middle - n_sigma * sigma:
                odd |= hit
                values[hit] = 0
    return odd


def flagged_pixels(mask: NDArray[Any], bits: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels of a mask plane with one of the bits, or any where none is named."""
    nothing: NDArray[np.bool_] = ~np.isfinite(mask) if mask.dtype.kind == "f" else np.zeros(mask.shape, bool)
    if not bits:
        flagged: NDArray[np.bool_] = (mask != 0) | nothing
        return flagged
    values = np.where(nothing, 0, mask).astype(np.int64)
    bad = sum(1 << bit for bit in bits)
    flagged = ((values & bad) != 0) | nothing
    return flagged


def bad_bits(plane: Plane | None, layout: SurveyLayout) -> tuple[int, ...]:
    """Bits of a mask plane that the layout names, by number or by the planes of its header."""
    if plane is None or not layout.mask_planes:
        return layout.mask_bits
    header = read_header(plane.file, plane.hdu, role="mask", unpacked_gb_max=layout.unpacked_gb_max)
    named = [header.get(f"MP_{name}") for name in layout.mask_planes]
    known = [int(bit) for bit in named if isinstance(bit, int)]
    if not known:
        raise TileError(
            "the mask's header names none of the survey's bad planes (MP_...)",
            file=plane.file,
            wanted=" ".join(layout.mask_planes),
        )
    return (*layout.mask_bits, *known)
