"""World coordinates of a tile: only what is celestial, checked once, in ICRS degrees."""

from __future__ import annotations

import re
import warnings

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_skycoord, proj_plane_pixel_scales
from numpy.typing import NDArray

from lenspipe.errors import TileError

SCALE_MIN_ARCSEC, SCALE_MAX_ARCSEC = 0.005, 60.0
"""No survey's pixels are smaller or larger: radio arrays and all-sky cameras lie between."""
SCALE_RATIO_MAX = 2.0
PROJECTIONS = re.compile(
    "AZP|SZP|TAN|STG|SIN|ARC|ZPN|ZEA|AIR|CYP|CEA|CAR|MER|COP|COE|COD|COO|SFL|PAR|MOL|AIT|BON|PCO|TSC|CSC|QSC|HPX|XPH"
    "|TPV|TUV|TAB"
)
"""Projections of wcslib."""
_OF_IRAF = {
    "TNX": "polynomials in WAT cards that IRAF alone writes",
    "ZPX": "a ZPN with polynomials in WAT cards that IRAF alone writes",
}
_CARD = re.compile(
    r"(?:CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA)\d|(?:CD|PC|PV|PS)\d_\d+|(?:LONPOLE|LATPOLE|EQUINOX|RADESYS|RADECSYS|WCSAXES)"
    r"|(?:A|B|AP|BP)_(?:ORDER|\d_\d)|(?:CPDIS|CQDIS|CPERR|CQERR|DP|DQ|D2IMDIS|D2IMERR|DET2IM)\d?(?:\..*)?"
)
_J2000 = re.compile(r"J?2000(?:\.0*)?|")
_TEXT = re.compile(r"(?:CTYPE|CUNIT)\d|RADESYS|RADECSYS|PS\d_\d+|(?:CPDIS|CQDIS|D2IMDIS)\d|(?:DP|DQ)\d(?:\..*)?")


def is_wcs_card(keyword: str) -> bool:
    """Whether a keyword belongs to the primary celestial WCS."""
    return _CARD.fullmatch(keyword) is not None


def celestial_wcs(
    header: fits.Header, *, file: str, hdus: fits.HDUList | None = None, unreadable: frozenset[str] = frozenset()
) -> WCS:
    """
    The celestial WCS of an image header (TAN, ZPN, SIP, TPV ... whatever wcslib knows).

    Parameters
    ----------
    header : fits.Header
        Header of the image's own HDU: a WCS is never mixed from two.
    file : str
        For messages.
    hdus : fits.HDUList, optional
        The open file, for a WCS that has lookup tables.
    unreadable : frozenset of str
        Keywords of cards that are not FITS.

    Raises
    ------
    TileError
        The header has no celestial WCS, one that cannot be inverted, or cards that cannot be meant; they are named.
    """
    _check_cards(header, file, unreadable)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            whole = WCS(header, fobj=hdus)
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
    _check_scale(wcs, header, file)
    return wcs


def _check_cards(header: fits.Header, file: str, unreadable: frozenset[str]) -> None:
    if broken := sorted(filter(is_wcs_card, unreadable)):
        raise TileError("a card of the header's WCS cannot be read; mend it", file=file, keyword=", ".join(broken))
    for card in header.cards:
        key = card.keyword
        if not is_wcs_card(key) or _TEXT.fullmatch(key) or not isinstance(card.value, str):
            continue
        if not (key == "EQUINOX" and _J2000.fullmatch(card.value.strip())):
            raise TileError(
                f"{key} = {card.value!r} is text and not a number; correct the header", file=file, keyword=key
            )
    ctype = str(header.get("CTYPE1", ""))
    projection = ctype[-3:] if re.fullmatch(r"[A-Z]{2,4}-+[A-Z]{3}", ctype) else ""
    if projection in _OF_IRAF:
        raise TileError(
            f"the projection {projection} ({_OF_IRAF[projection]}) is not read; convert it to TPV or SIP, or fit the "
            "image's WCS again",
            file=file,
            ctype1=ctype,
        )
    if projection and not PROJECTIONS.fullmatch(projection):
        raise TileError(
            f"the WCS has a projection that nobody knows, {projection}; correct CTYPE1 and CTYPE2",
            file=file,
            ctype1=ctype,
        )
    _check_matrix(header, file)
    for key, limit in (("CRVAL1", 360.0), ("CRVAL2", 90.0)):
        value, unit = header.get(key), str(header.get(key.replace("CRVAL", "CUNIT"), "deg"))
        degrees = unit.strip().lower() in ("", "deg", "degree", "degrees")
        if isinstance(value, int | float) and degrees and projection and abs(value) > limit:
            raise TileError(
                f"{key} = {value:g} is not a position on the sky; correct the header", file=file, keyword=key
            )


def _check_matrix(header: fits.Header, file: str) -> None:
    """CD alone or PC with CDELT: where both are there, they must be the same."""
    cd, pc = ([header.get(f"{name}{i}_{j}") for i in (1, 2) for j in (1, 2)] for name in ("CD", "PC"))
    if any(v is not None for v in cd):
        matrix = np.array([v or 0.0 for v in cd], float).reshape(2, 2)
        if not matrix.any():
            raise TileError(
                "CD1_1, CD1_2, CD2_1 and CD2_2 are all zero; correct the header", file=file, keyword="CD1_1"
            )
        if any(v is not None for v in pc):
            unit = (1.0, 0.0, 0.0, 1.0)
            rotation = np.array([d if v is None else v for v, d in zip(pc, unit, strict=True)], float).reshape(2, 2)
            other = rotation * np.array([[header.get("CDELT1", 1.0)], [header.get("CDELT2", 1.0)]], float)
            if not np.allclose(other, matrix, rtol=1e-6, atol=1e-9 * np.abs(matrix).max()):
                raise TileError(
                    "the header has both CD and PC with CDELT, and they differ; remove the ones that do not hold",
                    file=file,
                    cd1_1=float(matrix[0, 0]),
                    cdelt1_times_pc1_1=float(other[0, 0]),
                )
    for key in ("CDELT1", "CDELT2"):
        if all(v is None for v in cd) and header.get(key) == 0:
            raise TileError(f"{key} is zero; correct the header", file=file, keyword=key)


def _check_scale(wcs: WCS, header: fits.Header, file: str) -> None:
    sides = np.asarray(proj_plane_pixel_scales(wcs), float) * 3600
    low, high = float(sides.min()), float(sides.max())
    card = next((key for key in ("CD1_1", "CDELT1") if key in header), "CDELT1")
    if not (low >= SCALE_MIN_ARCSEC and high <= SCALE_MAX_ARCSEC):
        raise TileError(
            f"the pixel scale is not one that a survey has ({SCALE_MIN_ARCSEC:g} to {SCALE_MAX_ARCSEC:g} arcsec); "
            f"correct {card}",
            file=file,
            keyword=card,
            got_arcsec=float(f"{high if high > SCALE_MAX_ARCSEC else low:.5g}"),
        )
    if high > SCALE_RATIO_MAX * low:
        raise TileError(
            f"pixels are not square; correct {card}", file=file, keyword=card, x_arcsec=sides[0], y_arcsec=sides[1]
        )


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


def compass(
    wcs: WCS, x_px: NDArray[np.floating], y_px: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Directions of north and east in the pixels at some positions.

    Parameters
    ----------
    wcs : WCS
    x_px, y_px : arrays (n,)
        Positions, 0-based.

    Returns
    -------
    north_deg, east_deg : arrays (n,)
        Angles from +x (columns) towards +y (rows), in [0, 360); 90 degrees apart where pixels are square.
    """
    x, y = np.asarray(x_px, float), np.asarray(y_px, float)
    ra, dec = sky_position(wcs, x, y)
    step = []
    for dx, dy in ((1.0, 0.0), (0.0, 1.0)):
        other_ra, other_dec = sky_position(wcs, x + dx, y + dy)
        east = ((other_ra - ra + 180) % 360 - 180) * np.cos(np.radians(dec))
        step.append((east, other_dec - dec))
    (east_x, north_x), (east_y, north_y) = step
    turn = np.sign(east_x * north_y - north_x * east_y)  # the inverse of the matrix, without its size
    north = np.degrees(np.arctan2(turn * east_x, -turn * east_y)) % 360
    east = np.degrees(np.arctan2(-turn * north_x, turn * north_y)) % 360
    return north, east
