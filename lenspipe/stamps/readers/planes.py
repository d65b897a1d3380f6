"""Two-dimensional images out of FITS files: native float32 in nJy, central crops, positions."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.errors import DataError, TileError
from lenspipe.sky.wcs import celestial_wcs, pixel_scale_arcsec, sky_position
from lenspipe.survey.files import PlaneHeader
from lenspipe.survey.flux import check_scaling, flux_scale, linear
from lenspipe.survey.layout import ZeroPoint

MAGGIE_NJY = 3.631e12
"""One maggie, the flux of AB magnitude 0, in nJy."""


def native(data: NDArray[np.generic]) -> NDArray[np.float32]:
    """Pixels as float32 in the machine's byte order (FITS is big-endian)."""
    return np.asarray(data, dtype=np.float32)


def central_crop(plane: NDArray[np.float32], size_px: int, *, file: str) -> NDArray[np.float32]:
    """
    The middle ``size_px`` x ``size_px`` pixels of a plane ``(y, x)``.

    Where the parities of image and crop differ, the crop lies half a pixel towards the origin.

    Raises
    ------
    DataError
        The plane is smaller than the crop: stamps are never padded.
    """
    rows, columns = plane.shape
    if min(rows, columns) < size_px:
        raise DataError(
            "the image is smaller than the stamp that was asked for", file=file, got=str(plane.shape), size_px=size_px
        )
    y, x = (rows - size_px) // 2, (columns - size_px) // 2
    return plane[y : y + size_px, x : x + size_px]


def linear_njy(
    pixels: NDArray[np.float32],
    plane: PlaneHeader,
    rule: ZeroPoint,
    *,
    band: str,
    file: str,
    hdu: int | str,
    assumed_zero_point_ab: float | None,
) -> NDArray[np.float32]:
    """
    Pixels in nJy: counts times 10^(0.4 (31.4 - ZP)), ZP the AB zero-point of a count by ``rule``, else the assumed one.

    Raises
    ------
    DataError
        Nobody states a zero-point, or what is stated contradicts itself; file, HDU and keywords are named.
    """
    try:
        scale = flux_scale(
            plane.header,
            rule,
            band=band,
            assumed_zero_point_ab=assumed_zero_point_ab,
            unreadable=plane.unreadable,
            option="zero_point_ab",
        )
        scaling = check_scaling(plane.header)
    except TileError as error:
        raise DataError(error.message, file=file, hdu=hdu, band=band, **error.facts) from error
    if scaling is not None:
        pixels = linear(pixels, *scaling).astype(np.float32)
    return pixels * np.float32(scale.njy_per_unit)


def centre_and_scale(header: fits.Header, *, file: str) -> tuple[float, float, float]:
    """
    Right ascension and declination of the middle of an image [deg, ICRS] and its pixel scale [arcsec].

    Raises
    ------
    TileError
        The header has no celestial WCS.
    """
    wcs = celestial_wcs(header, file=file)
    shape = (int(header["NAXIS2"]), int(header["NAXIS1"]))
    ra_deg, dec_deg = sky_position(wcs, np.array([(shape[1] - 1) / 2]), np.array([(shape[0] - 1) / 2]))
    return float(ra_deg[0]), float(dec_deg[0]), pixel_scale_arcsec(wcs, shape)
