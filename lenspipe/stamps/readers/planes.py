"""Two-dimensional images out of FITS files: native float32 in nJy, central crops, positions."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.sky.wcs import celestial_wcs, pixel_scale_arcsec, sky_position
from lenspipe.survey.layout import ZeroPoint, zero_point_ab
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

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


def njy_per_count(header: fits.Header, rule: ZeroPoint, *, file: str) -> float:
    """
    Flux of one count in nJy.

    10^(0.4 (31.4 - ZP)), ZP the AB zero-point by ``rule``.

    Raises
    ------
    DataError
        The rule gives no zero-point for this header.
    """
    zero_point = zero_point_ab(header, rule)
    if zero_point is None:
        raise DataError("no AB zero-point in the header: state one for the whole data set (zero_point_ab)", file=file)
    return float(10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - zero_point)))


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
