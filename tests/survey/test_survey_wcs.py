# Where pixels lie on the sky: as astropy reads the image's own header, or refused with the card's name.

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from made_files import SCALE_ARCSEC, agrees, field, read, wcs_cards, with_cards, write, write_hdus

from lenspipe.errors import TileError

TRUTH = field()
CD = wcs_cards(BUNIT="nJy")
CDELT = with_cards(
    CD,
    {"CD1_1": None, "CD1_2": None, "CD2_1": None, "CD2_2": None}
    | {"CDELT1": -SCALE_ARCSEC / 3600, "CDELT2": SCALE_ARCSEC / 3600},
)


@pytest.mark.parametrize(
    ("primary", "extension"),
    [
        ({"CD1_1": -1e-3, "CD1_2": 5e-4, "CD2_1": 5e-4, "CD2_2": 1e-3}, CDELT),
        ({"CROTA2": 45.0}, CDELT),
        ({"PC1_1": 0.0, "PC1_2": 1.0, "PC2_1": -1.0, "PC2_2": 0.0}, CDELT),
        ({"LONPOLE": 90.0}, CD),
        ({"LATPOLE": 10.0, "LONPOLE": 12.0}, CD),
        ({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-3, "B_0_2": 1e-3}, CD),
        ({"PV1_1": 1.1, "PV2_1": 0.9, "PV1_0": 0.2}, CD),
        ({"CUNIT1": "arcsec", "CUNIT2": "arcsec"}, CD),
        ({"EQUINOX": 1950.0, "RADESYS": "FK4"}, CD),
        ({"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR", "CRVAL1": 10.0, "CRVAL2": 0.0}, CD),
    ],
)
def test_the_wcs_is_that_of_the_images_own_header(tmp_path, primary, extension):
    path = write_hdus(tmp_path / "t_i.fits", ("SCI", TRUTH.image, extension), primary=primary)
    agrees(read(path, TRUTH), TRUTH, band="i", wcs=WCS(fits.getheader(path, 1)))


def test_a_plane_without_any_wcs_takes_all_of_it_from_the_primary(tmp_path):
    primary = {key: CD[key] for key in CD if key != "BUNIT"}
    path = write_hdus(tmp_path / "t_i.fits", ("SCI", TRUTH.image, fits.Header({"BUNIT": "nJy"})), primary=primary)
    agrees(read(path, TRUTH), TRUTH, band="i", wcs=WCS(CD))


def test_other_keywords_of_the_primary_still_count(tmp_path):
    path = write_hdus(tmp_path / "t_i.fits", ("SCI", TRUTH.image, wcs_cards()), primary={"MAGZERO": 31.4})
    measured = read(path, TRUTH)
    agrees(measured, TRUTH, band="i", wcs=WCS(CD))
    assert measured.facts.flux["i"].source == "keyword MAGZERO"


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"CRVAL1": "150.1"}, "CRVAL1 = '150.1' is text"),
        ({"CRVAL1": "10:00:24", "CRVAL2": "+02:12:00"}, "CRVAL1 = '10:00:24' is text"),
        ({"CD1_1": "-5.5E-5"}, "CD1_1 = '-5.5E-5' is text"),
        ({"CRPIX2": "45.5"}, "CRPIX2 = '45.5' is text"),
        ({"EQUINOX": "B1950"}, "EQUINOX = 'B1950' is text"),
        ({"CDELT1": 1.0, "CDELT2": 1.0, "PC1_1": 1.0, "PC2_2": 1.0}, "both CD and PC"),
        ({"CDELT1": -5e-5, "CDELT2": 5e-5, "PC1_1": 1.0, "PC2_2": 1.0}, "both CD and PC"),
        ({"CD1_1": 0.0, "CD2_2": 0.0}, "CD1_1, CD1_2, CD2_1 and CD2_2 are all zero"),
        ({"CD1_1": -1.0, "CD2_2": 1.0}, r"pixel scale is not one that a survey has.*correct CD1_1.*got_arcsec=3600"),
        ({"CD1_1": -1e-7, "CD2_2": 1e-7}, r"pixel scale is not one.*correct CD1_1.*got_arcsec=0.00036"),
        ({"CD1_1": -5.5e-4}, "pixels are not square; correct CD1_1"),
        ({"CRVAL2": 99.0}, "CRVAL2 = 99 is not a position"),
        ({"CRVAL1": -999.0}, "CRVAL1 = -999 is not a position"),
        ({"CTYPE1": "RA---TNX", "CTYPE2": "DEC--TNX"}, "the projection TNX .*is not read; convert"),
        ({"CTYPE1": "RA---ZPX", "CTYPE2": "DEC--ZPX"}, "the projection ZPX .*is not read; convert"),
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, "projection that nobody knows, XYZ"),
    ],
)
def test_cards_that_cannot_be_meant_are_refused_by_name(tmp_path, cards, message):
    path = write(tmp_path / "t_i.fits", TRUTH.image, with_cards(CD, cards))
    with pytest.raises(TileError, match=message) as caught:
        read(path, TRUTH)
    assert caught.value.facts["file"] == str(path)


@pytest.mark.parametrize(
    "cards",
    [
        {"CDELT1": 1.0, "CDELT2": 1.0},  # beside a CD it counts for nothing
        {"CDELT1": -SCALE_ARCSEC / 3600, "CDELT2": SCALE_ARCSEC / 3600, "PC1_1": 1.0, "PC2_2": 1.0},
        {"EQUINOX": "2000.0"},
        {"CROTA2": 0.0},
    ],
)
def test_cards_that_say_the_same_twice_are_read(tmp_path, cards):
    path = write(tmp_path / "t_i.fits", TRUTH.image, with_cards(CD, cards))
    agrees(read(path, TRUTH), TRUTH, band="i", wcs=WCS(CD))


def test_a_distortion_in_lookup_tables_is_read_from_the_file(tmp_path):
    table = np.zeros((5, 5), "f4")
    table[2:] = 3.0
    head, tables = CD.copy(), []
    for axis in (1, 2):
        head[f"CPDIS{axis}"], head[f"CPERR{axis}"] = "Lookup", 3.0
        for record in (f"EXTVER: {axis}", "NAXES: 2", "AXIS.1: 1", "AXIS.2: 2"):
            head.append((f"DP{axis}", record))
        lookup = fits.ImageHDU(table, name="WCSDVARR", ver=axis)
        for i in (1, 2):
            lookup.header[f"CRPIX{i}"], lookup.header[f"CRVAL{i}"], lookup.header[f"CDELT{i}"] = 1.0, 1.0, 25.0
        tables.append(lookup)
    path = tmp_path / "t_i.fits"
    image = fits.ImageHDU(TRUTH.image.astype("f4"), head, name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image, *tables]).writeto(path)
    with fits.open(path) as hdus:
        want = WCS(hdus[1].header, hdus)
        assert np.abs(np.subtract(want.all_pix2world(60, 70, 0), WCS(CD).all_pix2world(60, 70, 0))).max() > 1e-5
    agrees(read(path, TRUTH), TRUTH, band="i", wcs=want)


def spoil(path, card, by):
    data = path.read_bytes()
    assert data.count(card) == 1
    path.write_bytes(data.replace(card, by, 1))


@pytest.mark.parametrize("by", [b"nan\t    ' ", b"\x80\x81\x82     ' ", b"1.2.3.4     "])
def test_one_bad_card_that_nothing_needs_does_not_cost_the_tile(tmp_path, by):
    path = write(tmp_path / "t_i.fits", TRUTH.image, with_cards(CD, {"OBSERVER": "Xxxxxxx"}))
    spoil(path, b"'Xxxxxxx '".ljust(len(by)), by)
    agrees(read(path, TRUTH), TRUTH, band="i", wcs=WCS(CD))


@pytest.mark.parametrize(("key", "value"), [("CRVAL1", "Xxxxxxx"), ("BUNIT", "Xxxxxxx")])
def test_a_bad_card_that_is_needed_is_named(tmp_path, key, value):
    path = write(tmp_path / "t_i.fits", TRUTH.image, with_cards(CD, {key: value, "MAGZERO": 31.4}))
    spoil(path, b"'Xxxxxxx '", b"nan\t    ' ")
    with pytest.raises(TileError, match=f"cannot be read.*{key}"):
        read(path, TRUTH)


def test_cards_keep_all_their_digits(tmp_path):
    path = write(tmp_path / "t_i.fits", TRUTH.image, CD)
    spoil(path, b"CD1_1   = -5.5555555555555E-05   ", b"CD1_1   = -5.5555555555555123E-05")
    assert read(path, TRUTH).facts.wcs.wcs.cd[0, 0] == -5.5555555555555123e-05
