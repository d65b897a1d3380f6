import astropy.units as u
import numpy as np
import pytest

from lenspipe.errors import ConfigError, TileError
from lenspipe.survey.flux import flux_scale
from lenspipe.survey.layout import ZeroPoint, layout_names, read_layout
from lenspipe.survey.tile import Tile, group_tiles

EXAMPLES = {
    "2mass": (["aJ_asky_990502n0200221_j.fits"], "aJ_asky_990502n0200221", "J"),
    "wise": (["0000p000_ac51-w1-int-3.fits", "0000p000_ac51-w2-int-3.fits.gz"], "0000p000_ac51", ["W1", "W2"]),
    "ps1": (["rings.v3.skycell.1234.056.stk.r.unconv.fits"], "skycell.1234.056", "r"),
    "kids": (["KiDS_DR4.0_180.0_-0.5_g_sci.fits", "KiDS_DR4.0_180.0_-0.5_r_sci.fits"], "KiDS_DR4.0_180.0_-0.5", "gr"),
    "des": (["DES0001-4914_r2590p01_g.fits.fz", "DES0001-4914_r2590p01_i.fits.fz"], "DES0001-4914", "gi"),
    "hsc": (["calexp-HSC-G-9813-4,4.fits", "calexp-HSC-I2-9813-4,4.fits"], "9813-4,4", "gi"),
    "legacysurvey": (
        ["legacysurvey-1126p222-image-r.fits.fz", "legacysurvey-1126p222-invvar-r.fits.fz"],
        "1126p222",
        "r",
    ),
    "cfhtls": (["CFHTLS_W_g_142354+523831_T0007_MEDIAN.fits"], "142354+523831", "g"),
    "lsst": (["deep_coadd_5063_14_g_v1.fits", "deep_coadd_5063_14_y_v1.fits"], "5063_14", "gy"),
    "euclid-vis": (["EUC_MER_BGSUB-MOSAIC-VIS_TILE102018211-ACBD03.fits"], "TILE102018211", ["VIS"]),
    "hst-acs": (["j8pu0y010_drz.fits"], "j8pu0y010", ["F814W"]),
    "generic": (["field.one_g.fits.gz", "field.one-r.fits"], "field.one", "gr"),
    "sample": (["sample-1_g.fits"], "sample-1", "g"),
}


@pytest.mark.parametrize("name", layout_names())
def test_each_layout_finds_the_tile_and_bands_of_its_survey(name, tmp_path):
    files, tile, bands = EXAMPLES[name]
    for file in files:
        (tmp_path / file).touch()
        if name == "hst-acs":
            from astropy.io import fits

            head = fits.Header({"FILTER1": "CLEAR1L", "FILTER2": "F814W"})
            image = fits.ImageHDU(np.zeros((3, 3), "f4"), name="SCI")
            fits.HDUList([fits.PrimaryHDU(header=head), image]).writeto(tmp_path / file, overwrite=True)
    found = group_tiles([str(tmp_path / f) for f in files], read_layout(name))
    assert [t.name for t in found] == [tile]
    assert [b.band for b in found[0].bands] == list(bands)


def test_weight_and_mask_siblings_are_found_and_are_no_tiles_of_their_own(tmp_path):
    files = [f"legacysurvey-1126p222-{what}.fits.fz" for what in ("image-r", "invvar-r", "maskbits")]
    for file in files:
        (tmp_path / file).touch()
    (tile,) = group_tiles([str(tmp_path / f) for f in files], read_layout("legacysurvey"))
    assert isinstance(tile, Tile)
    assert tile.bands[0].weight.file.endswith("invvar-r.fits.fz")
    assert tile.bands[0].mask.file.endswith("maskbits.fits.fz")


def test_an_unknown_survey_names_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean 'cfhtls'\?.*survey='cfhtl'"):
        read_layout("cfhtl")


def test_a_misspelt_key_in_a_layout_names_the_nearest(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("name='a'\ndescription='b'\n[zero_point]\nkeyword=['ZP']\n[[files]]\npattern='(?P<tile>.)'\n")
    with pytest.raises(ConfigError, match=r"mine.toml:zero_point: unknown key 'keyword'. Did you mean 'keywords'\?"):
        read_layout(file)


def test_a_pattern_without_a_tile_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("name='a'\ndescription='b'\n[zero_point]\n[[files]]\npattern='x'\n")
    with pytest.raises(ConfigError, match=r"needs a named group \(\?P<tile>"):
        read_layout(file)


def zero_point(header, rule, band="g"):
    return flux_scale(header, rule, band=band).zero_point_ab


def test_acs_zero_point_is_that_of_astropys_ab_units():
    header = {"PHOTFLAM": 7.07236e-20, "PHOTPLAM": 8045.0}
    f_lambda = header["PHOTFLAM"] * u.erg / u.s / u.cm**2 / u.AA
    expected = f_lambda.to(u.ABmag, u.spectral_density(header["PHOTPLAM"] * u.AA)).value
    assert zero_point(header, ZeroPoint(photflam=True)) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("unit", ["nJy", "uJy", "mJy", "Jy"])
def test_unit_zero_points_are_those_of_the_ab_system(unit):
    expected = (1 * u.Unit(unit)).to(u.ABmag).value
    assert zero_point({"BUNIT": unit}, read_layout("generic").zero_point) == pytest.approx(expected, abs=1e-2)


def test_a_header_keyword_comes_before_the_surveys_stated_value():
    rule = ZeroPoint(keywords=("MZ",), ab=30.0)
    assert zero_point({"MZ": 28}, rule) == 28
    assert zero_point({"MZ": "none"}, rule) == 30
    with pytest.raises(TileError, match="the header has no zero-point"):
        zero_point({}, ZeroPoint())


def test_fluxmag0_is_the_flux_of_magnitude_zero():
    assert zero_point({"FLUXMAG0": 63095734448.0194}, ZeroPoint(fluxmag0_keywords=("FLUXMAG0",))) == pytest.approx(27)


def test_a_layout_may_begin_with_a_byte_order_mark_and_must_be_utf8(tmp_path):
    text = "name='a'\ndescription='b'\n[zero_point]\n[[files]]\npattern='(?P<tile>.)' # été\n"
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_layout(tmp_path / "bom.toml").name == "a"
    (tmp_path / "old.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"not UTF-8 \(line 5, byte 0xe9\); save it as UTF-8"):
        read_layout(tmp_path / "old.toml")
