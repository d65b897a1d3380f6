"""World coordinates of a tile: only what is celestial, checked once, in ICRS degrees."""

from __future__ import annotations

import warnings

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import pixel_to_skycoord
from numpy.typing import NDArray

from lenspipe.errors import TileError


def celestial_wcs(header: fits.Header, *, file: str) -> WCS:
    """
    The celestial WCS of an image header (TAN, ZPN, SIP, TPV ... whatever wcslib knows).

    Raises
    ------
    TileError
        The header has no celestial WCS, or one that cannot be inverted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            whole = WCS(header)
            wcs = whole.celestial
        usable = whole.wcs.lng == 0 and wcs.has_celestial and np.linalg.det(wcs.pixel_scale_matrix) != 0
    except Exception as error:  # wcslib raises a dozen types, all of which say that this header is no WCS
        raise TileError(f"the header's WCS cannot be read: {error}", file=file) from error
    if not usable:
        raise TileError(
            "the header has no celestial WCS with the longitude on axis 1; add CTYPE, CRVAL, CRPIX and CD keywords, "
            "or leave the tile out",
            file=file,
            ctype1=str(header.get("CTYPE1")),
        )
    return wcs


def pixel_scale_arcsec(wcs: WCS, shape: tuple[int, int]) -> float:
    """
    Pixel scale at the middle of an image, from finite differences, so that distortion counts.

    Parameters
    ----------
    wcs : WCS
    shape : (int, int)
        Rows and columns of the image.

    Returns
    -------
    float
        Square root of the solid angle of the middle pixel, arcsec.
    """
    y, x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    ra_deg, dec_deg = sky_position(wcs, np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    d_ra = (ra_deg[1:] - ra_deg[0] + 180) % 360 - 180
    d_dec = dec_deg[1:] - dec_deg[0]
    area = abs(d_ra[0] * d_dec[1] - d_ra[1] * d_dec[0]) * np.cos(np.radians(dec_deg[0]))
    return float(np.sqrt(area) * 3600)


def sky_position(
    wcs: WCS, x_px: NDArray[np.floating], y_px: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    ICRS position of pixels (0-based, centre of the first pixel at 0, 0).

    Returns
    -------
    ra_deg, dec_deg : arrays
        Right ascension in [0, 360) and declination, degrees.
    """
    if len(x_px) == 0:
        return np.empty(0), np.empty(0)
    if wcs.wcs.radesys in ("", "ICRS") and wcs.wcs.lngtyp == "RA":
        ra_deg, dec_deg = wcs.all_pix2world(x_px, y_px, 0)
    else:
        sky: SkyCoord = pixel_to_skycoord(x_px, y_px, wcs, origin=0).icrs
        ra_deg, dec_deg = sky.ra.deg, sky.dec.deg
    return np.asarray(ra_deg, float) % 360.0, np.asarray(dec_deg, float)
