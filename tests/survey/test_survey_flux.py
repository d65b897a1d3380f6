# What headers say of the flux of a pixel: read right, or refused with the value; never silently wrong.

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from made_files import SCALE_ARCSEC, agrees, field, read, wcs_cards, with_cards, write, write_hdus

from lenspipe.errors import TileError
from lenspipe.survey.bunit import parse_bunit
from lenspipe.survey.flux import ASINH_A, flux_scale
from lenspipe.survey.keywords import number
from lenspipe.survey.layout import FileRule, SurveyLayout, ZeroPoint, read_layout

GENERIC = read_layout("generic").zero_point
TRUTH = field()


def pixels_of(zero_point_ab):
    """The field in units whose AB zero-point this is."""
    return TRUTH.image * 10 ** (0.4 * (zero_point_ab - 31.4))


def scan(folder, cards, true_zero_point, **options):
    band, name = options.pop("band", "i"), options.pop("name", "t_i.fits")
    path = write(folder / name, pixels_of(true_zero_point), wcs_cards(**cards), dtype="f8")
    measured = read(path, TRUTH, **options)
    agrees(measured, TRUTH, band=band)
    return measured.facts.flux[band]


@pytest.mark.parametrize(
    ("cards", "zero_point", "source"),
    [
        ({"MAGZERO": 30.0}, 30.0, "keyword MAGZERO"),
        ({"MAGZERO": "30.0"}, 30.0, "keyword MAGZERO"),
        ({"MAGZERO": "3.0D1 mag"}, 30.0, "keyword MAGZERO"),
        ({"MAGZERO": 27.0, "BUNIT": "adu", "EXPTIME": 300.0}, 27.0, "keyword MAGZERO"),
        ({"MAGZERO": 26.0, "BUNIT": "electron/s", "EXPTIME": 1.0}, 26.0, "keyword MAGZERO"),
        ({"MAGZERO": 0.0, "BUNIT": "nJy"}, 31.4, "BUNIT nJy"),
        ({"MAGZPT": 24.0, "MAGZERO": 29.0, "EXPTIME": 100.0}, 29.0, "keyword MAGZERO"),
        ({"MAGZPT": (30.0, "AB zero-point")}, 30.0, "keyword MAGZPT"),
        ({"MAGZP": 26.3, "PHOTSYS": "AB", "EXPTIME": 1.0}, 26.3, "keyword MAGZP"),
        (
            {"MAGZPT": (24.8, "[mag] AB per sec"), "BUNIT": "ADU", "EXPTIME": 100.0},
            29.8,
            "keyword MAGZPT per second, EXPTIME 100 s",
        ),
        ({"BUNIT": "MJy"}, 8.9 - 15, "BUNIT MJy"),
        ({"BUNIT": "mJy"}, 16.4, "BUNIT mJy"),
        ({"BUNIT": "NJY"}, 31.4, "BUNIT NJY"),
        ({"BUNIT": "nJy/pixel"}, 31.4, "BUNIT nJy/pixel"),
        ({"BUNIT": "10**-6 Jy"}, 23.9, "BUNIT 10**-6 Jy"),
        ({"BUNIT": "erg/s/cm2/Hz"}, 8.9 - 2.5 * 23, "BUNIT erg/s/cm2/Hz"),
        ({"BUNIT": "nanomaggies"}, 22.5, "BUNIT nanomaggies"),
        ({"BUNIT": "MJy/sr"}, -6.1 - 2.5 * np.log10(SCALE_ARCSEC**2 / 206264.806**2), "BUNIT MJy/sr and the WCS"),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 2e-12}, -6.1 - 2.5 * np.log10(2e-12), "BUNIT MJy/sr and PIXAR_SR"),
        ({"BUNIT": "uJy/arcsec2"}, 23.9 - 2.5 * np.log10(SCALE_ARCSEC**2), "BUNIT uJy/arcsec2 and the WCS"),
    ],
)
def test_a_zero_point_that_the_header_proves_gives_true_magnitudes(tmp_path, cards, zero_point, source):
    scale = scan(tmp_path, cards, zero_point)
    assert scale.source == source
    assert scale.zero_point_ab == pytest.approx(zero_point, abs=2e-3)
    assert scale.bunit == cards.get("BUNIT", "")


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"MAGZERO": 0.0}, r"MAGZERO = 0 is not a zero-point that an image has.*--zero-point-ab"),
        ({"MAGZERO": -1.0}, "MAGZERO = -1 is not a zero-point"),
        ({"MAGZERO": 99.0}, "MAGZERO = 99 is not a zero-point"),
        ({"MAGZERO": 999.0}, "MAGZERO = 999 is not a zero-point"),
        ({"MAGZERO": "-99"}, "MAGZERO = -99 is not a zero-point"),
        ({"MAGZERO": "thirty"}, "MAGZERO = 'thirty' is text and not a number"),
        ({"MAGZERO": 30.0, "PHOTZP": 27.0}, "contradict each other: MAGZERO = 30, PHOTZP = 27"),
        ({"MAGZPT": 24.842, "EXPTIME": 107.0}, r"MAGZPT = 24.842 .*AB or Vega.*per second or of the exposure.*107"),
        ({"MAGZPT": (24.8, "AB"), "EXPTIME": 107.0}, r"MAGZPT = 24.8 .*per second or of the exposure"),
        ({"MAGZP": 20.8745, "FILTER": "j"}, "MAGZP = 20.8745 means different things.*AB or Vega"),
        ({"MAGZP": 20.5, "TELESCOP": "WISE"}, "MAGZP = 20.5 means different things"),
        ({"ZEROPT": 25.0}, "ZEROPT = 25 means different things"),
        ({"PHOTZP": 23.0, "PHOTSYS": "VEGA"}, "PHOTZP = 23 is a Vega magnitude"),
        ({"MAGZERO": (25.0, "Vega zero-point")}, "MAGZERO = 25 is a Vega magnitude"),
        ({"MAGZERO": 30.0, "BUNIT": "electron/s", "EXPTIME": 100.0}, "per second.*MAGZERO = 30 does not say"),
        ({"MAGZERO": 30.0, "BUNIT": "cps", "EXPTIME": "100."}, "pixels are per second"),
        ({"MAGZERO": 27.0, "BUNIT": "nJy"}, "'nJy' means a zero-point of 31.40, but keyword MAGZERO says 27.00"),
        ({"BUNIT": "mjy"}, "BUNIT = 'mjy' can be mJy or MJy"),
        ({"BUNIT": "MJY/pix"}, "can be mJy or MJy"),
        ({"BUNIT": "mag", "MAGZERO": 30.0}, "BUNIT = 'mag' is not a linear flux"),
        ({"BUNIT": "Jy/beam", "MAGZERO": 30.0}, "BUNIT = 'Jy/beam' is not a linear flux"),
        ({"BUNIT": "Vega nanomaggies"}, "is not a linear flux"),
        ({"BUNIT": "K", "MAGZERO": 30.0}, "BUNIT = 'K' is not a linear flux"),
        ({"MAGZERO": 30.0, "BSOFTEN": 0.0, "BOFFSET": 0.1}, "inverse hyperbolic sine.*does not say how"),
        ({"MAGZERO": 30.0, "BSOFTEN": 10.0}, "inverse hyperbolic sine.*does not say how"),
    ],
)
def test_a_zero_point_that_is_not_proved_is_refused_with_its_value(tmp_path, cards, message):
    with pytest.raises(TileError, match=message) as caught:
        scan(tmp_path, cards, 30.0)
    assert caught.value.facts["file"].endswith("t_i.fits")
    assert caught.value.facts["band"] == "i"


@pytest.mark.parametrize(
    "cards", [{"MAGZERO": 0.0}, {"MAGZPT": 24.8, "EXPTIME": 107.0}, {"PHOTZP": 23.0, "PHOTSYS": "Vega"}, {}]
)
def test_the_users_zero_point_stands_in_for_one_that_cannot_be_used_and_is_recorded(tmp_path, cards):
    scale = scan(tmp_path, cards, 29.0, zero_point_ab=29.0)
    assert scale.assumed
    assert scale.source == "option --zero-point-ab"


def hsc(folder, bunit, **cards):
    planes = {"BAD": 0, "SAT": 1, "CR": 3, "EDGE": 4, "NO_DATA": 8}
    head = wcs_cards(scale_arcsec=0.168, BUNIT=bunit, **cards)
    mask = with_cards(head, {f"MP_{name}": bit for name, bit in planes.items()} | {"BUNIT": None})
    ones = np.ones(TRUTH.image.shape)
    hdus = (("IMAGE", pixels_of(31.4 if bunit == "nJy" else 27.0), head), ("MASK", 0 * ones, mask), ("VAR", ones, head))
    return write_hdus(folder / "calexp-HSC-I-9813-4,5.fits", *hdus)


def test_a_calexp_in_nanojansky_is_read_by_its_unit_and_an_old_one_by_the_layout(tmp_path):
    for bunit, zero_point in (("nJy", 31.4), ("", 27.0)):
        measured = read(hsc(tmp_path / str(zero_point), bunit), TRUTH, survey="hsc")
        agrees(measured, TRUTH, band="i")
        assert measured.facts.zero_point_ab == {"i": zero_point}


@pytest.mark.parametrize(
    ("survey", "name", "scale_arcsec", "bunit", "message"),
    [
        ("legacysurvey", "legacysurvey-1126p222-image-r.fits", 0.262, "uJy", "BUNIT = 'uJy' means.*23.90, but layout"),
        ("legacysurvey", "legacysurvey-1126p222-image-r.fits", 0.262, "adu", "pixels are fluxes of zero-point 22.5"),
        ("cfhtls", "t_r.fits", 0.186, "nJy", "31.40, but layout says 30.00"),
        ("cfhtls", "t_r.fits", 0.186, "mag/arcsec2", "not a linear flux"),
    ],
)
def test_a_layouts_constant_that_bunit_contradicts_is_refused(tmp_path, survey, name, scale_arcsec, bunit, message):
    path = write(tmp_path / name, TRUTH.image, wcs_cards(scale_arcsec=scale_arcsec, BUNIT=bunit))
    with pytest.raises(TileError, match=message):
        read(path, TRUTH, survey=survey)


@pytest.mark.parametrize(
    ("bunit", "seconds", "missing"),
    [("ELECTRONS", 2000.0, False), ("ELECTRONS/S", 1.0, False), ("", 1.0, False), ("ELECTRONS", 2000.0, True)],
)
def test_photflam_is_of_a_count_per_second(tmp_path, bunit, seconds, missing):
    flam, plam = 7.03e-20, 8045.0
    zero_point = (1 * u.Unit(f"{flam} erg / (s cm2 AA)")).to(u.ABmag, u.spectral_density(plam * u.AA)).value
    head = wcs_cards(scale_arcsec=0.05, BUNIT=bunit, PHOTFLAM=flam, PHOTPLAM=plam)
    primary = {"FILTER1": "F814W"} | ({} if missing else {"EXPTIME": 2000.0})
    image = pixels_of(zero_point + 2.5 * np.log10(seconds))
    path = write_hdus(
        tmp_path / "e_drz.fits", ("SCI", image, head), ("WHT", np.ones(image.shape), head), primary=primary
    )
    if missing:
        with pytest.raises(TileError, match="PHOTFLAM is per second and needs the exposure time, but there is none"):
            read(path, TRUTH, survey="hst-acs")
    else:
        agrees(read(path, TRUTH, survey="hst-acs"), TRUTH, band="F814W")


def asinh(zero_point):
    return ASINH_A * np.arcsinh((pixels_of(zero_point) - 0.1) / 20.0)


def test_pixels_scaled_by_an_inverse_hyperbolic_sine_are_made_linear(tmp_path):
    head = wcs_cards(BOFFSET=0.1, BSOFTEN=10.0, EXPTIME=100.0)
    path = write(tmp_path / "ps_i.fits", asinh(30.0), head, dtype="f8")
    agrees(read(path, TRUTH, zero_point_ab=30.0), TRUTH, band="i")
    name = "rings.v3.skycell.1234.056.stk.r.unconv.fits"
    stack = write(tmp_path / name, asinh(30.0), with_cards(head, {"CD1_1": -0.25 / 3600, "CD2_2": 0.25 / 3600}))
    measured = read(stack, TRUTH, survey="ps1")
    agrees(measured, TRUTH, band="r")
    assert measured.facts.flux["r"].source == "layout per second, EXPTIME 100 s"


@pytest.mark.parametrize(
    ("survey", "name", "zero_point", "band", "offset"),
    [
        ("2mass", "aJ_asky_990502n0200221_j.fits", 20.8745, "J", 0.91),
        ("wise", "0000p000_ac51-w1-int-3.fits", 20.5, "W1", 2.699),
        ("wise", "unwise-0000p000-w2-img-m.fits", 22.5, "W2", 3.339),
    ],
)
def test_layouts_of_vega_surveys_give_ab_magnitudes(tmp_path, survey, name, zero_point, band, offset):
    scan(tmp_path, {"MAGZP": zero_point, "EXPTIME": 7.8}, zero_point + offset, survey=survey, name=name, band=band)


def own_layout(**rule):
    return SurveyLayout(
        name="mine",
        description="mine",
        files=(FileRule(pattern=r"(?P<tile>\w+)_(?P<band>[gi])\.fits"),),
        zero_point=ZeroPoint(**rule),
    )


@pytest.mark.parametrize(
    ("rule", "cards", "zero_point"),
    [
        (
            {"keywords": ("MAGZPT",), "per": "second", "pixels": "exposure"},
            {"MAGZPT": 24.842, "EXPTIME": 107.0},
            29.915,
        ),
        ({"keywords": ("MAGZPT",), "per": "second"}, {"MAGZPT": 24.8, "EXPTIME": 100.0, "BUNIT": "DN/s"}, 24.8),
        ({"keywords": ("MZ",), "per": "exposure"}, {"MZ": 30.0, "EXPTIME": 100.0, "BUNIT": "counts s-1"}, 25.0),
        ({"keywords": ("MZ",), "per": "pixel"}, {"MZ": 25.0, "EXPTIME": 100.0, "BUNIT": "e-/s"}, 25.0),
        ({"keywords": ("MZ",), "vega_to_ab": {"i": 0.37}}, {"MZ": 25.0}, 25.37),
        ({"keywords": ("MZ",), "plausible": (-5, 5)}, {"MZ": 0.0}, 0.0),
        ({"ab": 27.0, "ignore_bunit": True}, {"BUNIT": "nJy"}, 27.0),
        ({"units": {"Vega nanomaggies": 25.2}}, {"BUNIT": "Vega nanomaggies"}, 25.2),
        ({"units": {"counts": 27.0}}, {"BUNIT": "Counts"}, 27.0),
        ({"ab": 25.0, "per": "second", "pixels": "exposure", "exposure_keywords": ("TEXP",)}, {"TEXP": 1000.0}, 32.5),
    ],
)
def test_a_layout_says_what_a_header_leaves_open(tmp_path, rule, cards, zero_point):
    scan(tmp_path, cards, zero_point, survey=own_layout(**rule))


@pytest.mark.parametrize(
    ("rule", "cards", "message"),
    [
        ({"keywords": ("MZ",), "per": "second"}, {"MZ": 25.0, "EXPTIME": 100.0}, r"zero_point\.pixels"),
        ({"keywords": ("MZ",), "per": "second", "pixels": "exposure"}, {"MZ": 25.0}, "needs the exposure time"),
        (
            {"keywords": ("MZ",), "per": "second", "pixels": "exposure"},
            {"MZ": 25.0, "EXPTIME": 0.0},
            "needs the exposure time, but EXPTIME = 0",
        ),
        ({"keywords": ("MZ",), "vega_to_ab": {"g": 0.1}}, {"MZ": 25.0}, "no offset to AB for band 'i'"),
        ({"keywords": ("MZ",), "vega_to_ab": {"i": 0.1}}, {"MZ": 25.0, "PHOTSYS": "AB"}, "the header says AB"),
        ({"units": {"mJy": 16.4}, "ab": 16.4}, {"BUNIT": "MJy"}, "means a zero-point of -6.10, but layout says 16.40"),
        ({"ab": 27.0}, {"BUNIT": "adu/s", "EXPTIME": 30.0}, "pixels are per second"),
    ],
)
def test_a_layout_that_does_not_fit_the_header_is_refused(tmp_path, rule, cards, message):
    with pytest.raises(TileError, match=message):
        scan(tmp_path, cards, 25.0, survey=own_layout(**rule))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ADU", "counts"),
        ("DN", "counts"),
        ("electrons", "counts"),
        ("e-", "counts"),
        ("photons", "counts"),
        ("counts/sec", "rate"),
        ("ELECTRONS/S", "rate"),
        ("adu s-1", "rate"),
        ("DN per second", "rate"),
        ("e-/s", "rate"),
        ("cps", "rate"),
        ("electron s^-1", "rate"),
        ("Jy", "flux"),
        ("µJy", "flux"),
        ("1e-6 Jy", "flux"),
        ("Jansky", "flux"),
        ("Maggies", "flux"),
        ("W/m2/Hz", "flux"),
        ("nJy pix-1", "flux"),
        ("mJy/arcsec**2", "brightness"),
        ("Jy sr-1", "brightness"),
        ("asinh(Jy)", "other"),
        ("log10", "other"),
        ("mag/arcsec2", "other"),
        ("km/s", "other"),
        ("erg/s/cm2/A", "other"),
        ("", "none"),
        ("unknown", "none"),
        ("relative", "none"),
        ("gobbledygook", "none"),
    ],
)
def test_a_unit_is_of_its_kind(text, kind):
    assert parse_bunit(text).kind == kind


@pytest.mark.parametrize("text", ["Jy", "mJy", "uJy", "nJy", "MJy", "kJy", "GJy", "pJy"])
def test_the_zero_point_of_a_unit_is_that_of_the_ab_system(text):
    assert parse_bunit(text).zero_point_ab == pytest.approx((1 * u.Unit(text)).to(u.ABmag).value, abs=1e-3)


def test_an_unreadable_card_of_the_zero_point_is_named_and_not_passed_over():
    rule = ZeroPoint(keywords=("MAGZERO",), ab=30.0)
    with pytest.raises(TileError, match=r"cannot be read.*MAGZERO"):
        flux_scale({}, rule, band="g", unreadable=frozenset({"MAGZERO"}))


def test_numbers_of_cards_may_be_text():
    header = fits.Header({"A": "30.5", "B": "1D3", "C": " 2 ", "D": "none", "E": 4, "F": True, "G": "25 mag"})
    assert [number(header, key) for key in "ABCDEFGH"] == [30.5, 1000.0, 2.0, None, 4.0, None, 25.0, None]
