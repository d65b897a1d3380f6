# Twelve ways to state a flux scale, four to state a grid, three places of the image in the file: each is read with the
# true magnitudes and positions, or refused with the expected error; there is no third outcome.

import itertools

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from made_files import SCALE_ARCSEC, SHAPE, agrees, field, read, with_cards, write

from lenspipe.errors import TileError
from lenspipe.sky.wcs import sky_position

TRUTH = field()
D = SCALE_ARCSEC / 3600
COS, SIN = np.cos(np.radians(30)), np.sin(np.radians(30))

FLUX = {
    "MAGZERO": ({"MAGZERO": 27.0}, 27.0, None),
    "MAGZERO as text": ({"MAGZERO": "27.0"}, 27.0, None),
    "nJy": ({"BUNIT": "nJy"}, 31.4, None),
    "MJy": ({"BUNIT": "MJy"}, -6.1, None),
    "MJy/sr": ({"BUNIT": "MJy/sr"}, -6.1 - 2.5 * np.log10(np.radians(D) ** 2), None),
    "nanomaggy": ({"BUNIT": "nanomaggy", "MAGZERO": 22.5}, 22.5, None),
    "counts and AB per second": ({"MAGZPT": (24.5, "AB, per sec"), "EXPTIME": 100.0, "BUNIT": "adu"}, 29.5, None),
    "asinh": ({"MAGZERO": 27.0, "BOFFSET": 0.5, "BSOFTEN": 40.0}, 27.0, None),
    "placeholder": ({"MAGZERO": 0.0}, 27.0, "MAGZERO = 0 is not a zero-point"),
    "Vega": ({"PHOTZP": 23.0, "PHOTSYS": "VEGA"}, 23.9, "PHOTZP = 23 is a Vega magnitude"),
    "rate": ({"MAGZERO": 27.0, "BUNIT": "electron/s", "EXPTIME": 50.0}, 27.0, "MAGZERO = 27 does not say"),
    "contradiction": ({"MAGZERO": 27.0, "BUNIT": "uJy"}, 23.9, "BUNIT = 'uJy' means a zero-point of 23.90"),
}
TAN = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 359.9999, "CRVAL2": -31.0, "CRPIX1": 40.0, "CRPIX2": 61.0}
GRID = {
    "CD, turned": (TAN | {"CD1_1": -D * COS, "CD1_2": D * SIN, "CD2_1": D * SIN, "CD2_2": D * COS}, None),
    "CDELT and CROTA": (TAN | {"CDELT1": -D, "CDELT2": D, "CROTA2": 20.0}, None),
    "galactic, with SIP": (
        TAN
        | {"CTYPE1": "GLON-TAN-SIP", "CTYPE2": "GLAT-TAN-SIP", "CD1_1": -D, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": D}
        | {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 2e-5, "B_1_1": 1e-5},
        None,
    ),
    "CD and PC": (
        TAN | {"CD1_1": -D, "CD2_2": D, "PC1_1": 1.0, "PC2_2": 1.0, "CDELT1": -2 * D, "CDELT2": 2 * D},
        "both CD and PC",
    ),
}
PLACES = ("primary", "extension", "behind a weight, compressed")


def pixels_of(flux):
    cards, zero_point, _ = FLUX[flux]
    counts = TRUTH.image * 10 ** (0.4 * (zero_point - 31.4))
    if "BSOFTEN" in cards:
        return 2.5 * np.log10(np.e) * np.arcsinh((counts - cards["BOFFSET"]) / (2 * cards["BSOFTEN"]))
    return counts


def write_at(place, path, pixels, cards):
    head = with_cards(fits.Header(), cards)
    if place == "primary":
        return write(path, pixels, head, dtype="f8")
    # What is said of the whole file, or of another chip, is not the WCS of this image.
    primary = fits.PrimaryHDU(header=with_cards(fits.Header(), {"CRVAL1": 11.0, "CD1_2": 1e-3, "LONPOLE": 10.0}))
    image = fits.ImageHDU(pixels, head, name="SCI")
    others = []
    if place != "extension":
        image = fits.CompImageHDU(pixels, head, name="SCI", compression_type="GZIP_2", quantize_level=0)
        others = [fits.ImageHDU(np.full(SHAPE, 800.0), head, name="WHT")]
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([primary, *others, image]).writeto(path)
    return path


@pytest.mark.parametrize(("flux", "grid", "place"), list(itertools.product(FLUX, GRID, PLACES)))
def test_an_image_is_read_right_or_refused_by_name(tmp_path, flux, grid, place):
    cards, _, flux_error = FLUX[flux]
    wcs_of, grid_error = GRID[grid]
    path = write_at(place, tmp_path / "t_i.fits", pixels_of(flux), wcs_of | cards)
    if message := grid_error or flux_error:
        with pytest.raises(TileError, match=message):
            read(path, TRUTH)
        return
    measured = read(path, TRUTH)
    agrees(measured, TRUTH, band="i")
    want = WCS(with_cards(fits.Header(), wcs_of)).pixel_to_world(TRUTH.x_px, TRUTH.y_px).icrs
    ra_deg, dec_deg = sky_position(measured.facts.wcs, measured.x_px["i"], measured.y_px["i"])
    apart = np.hypot(((ra_deg - want.ra.deg + 180) % 360 - 180) * np.cos(want.dec.rad), dec_deg - want.dec.deg)
    assert apart.max() / D < 0.05
