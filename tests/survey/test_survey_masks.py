# What is no data is masked and counted, and nothing else is.

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from made_files import agrees, field, read, wcs_cards, write, write_hdus

from lenspipe.cli.scan import command
from lenspipe.errors import TileError
from lenspipe.robust import robust_sigma
from lenspipe.survey.layout import FileRule, SurveyLayout, ZeroPoint
from lenspipe.survey.masks import NO_DATA_VALUES, ONE_PIXEL_MAX_NJY, sentinels

TRUTH = field()
INSIDE = np.s_[:6, :]


def layout(**settings):
    rule = FileRule(pattern=r"(?P<tile>\w+)_(?P<band>i)\.fits", image_hdu=settings.pop("image_hdu", None))
    rule = rule.model_copy(update={key: settings.pop(key) for key in ("mask_hdu", "weight_hdu") if key in settings})
    zero_point = ZeroPoint(units={"nJy": 31.4}, keywords=("MAGZERO",))
    return SurveyLayout(name="t", description="t", files=(rule,), zero_point=zero_point, **settings)


@pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "u1", "i8"])
def test_patches_of_zeros_are_masked_in_images_of_all_types(tmp_path, dtype):
    scale = 0.05 if dtype in ("i2",) else 0.01 if dtype == "u1" else 1.0
    pixels = np.round(TRUTH.image * scale) + 100
    pixels[INSIDE] = 0
    path = write(tmp_path / "t_i.fits", pixels, wcs_cards(BUNIT="nJy"), dtype=dtype)
    mask = read(path, TRUTH).mask[0]
    assert mask[INSIDE].all()
    assert not mask[6:].any()


@pytest.mark.parametrize(
    ("level", "expected"), [(0.0, 0), (-1.0, 0), ("0.0", 0), (3000.0, "some"), ("3000.", "some"), (None, 0)]
)
def test_a_saturation_level_of_zero_or_less_is_none(tmp_path, level, expected):
    path = write(tmp_path / "t_i.fits", TRUTH.image, wcs_cards(BUNIT="nJy", SATURATE=level))
    measured = read(path, TRUTH, survey=layout(saturation_keyword="SATURATE"))
    assert measured.mask.sum() == (expected if expected != "some" else (TRUTH.image.astype("f4") >= 3000).sum())


def test_a_saturation_level_below_most_of_the_sky_is_refused(tmp_path):
    path = write(tmp_path / "t_i.fits", TRUTH.image + 100, wcs_cards(BUNIT="nJy", SATURATE=1.0))
    with pytest.raises(TileError, match=r"above the saturation level; correct SATURATE .*level=1.0"):
        read(path, TRUTH, survey=layout(saturation_keyword="SATURATE"))


@pytest.mark.parametrize("bits", [(), (2,)])
def test_nan_in_a_mask_is_bad(tmp_path, bits):
    mask = np.zeros(TRUTH.image.shape)
    mask[3, 3], mask[4, 4], mask[5, 5], mask[6, 6] = np.nan, 4, np.inf, 1
    path = write_hdus(tmp_path / "t_i.fits", ("SCI", TRUTH.image, wcs_cards(BUNIT="nJy")), ("MSK", mask, None))
    measured = read(path, TRUTH, survey=layout(image_hdu="SCI", mask_hdu="MSK", mask_bits=bits))
    want = [[3, 3], [4, 4], [5, 5]] + ([] if bits else [[6, 6]])
    assert np.argwhere(measured.mask[0]).tolist() == want


@pytest.mark.parametrize("value", [-999.0, -9999.0, -32768.0, 1e30, -1e30, 1e20, 3.4e38, -12345.0, -99.0])
def test_numbers_in_place_of_no_data_are_masked_and_counted(tmp_path, value):
    pixels = TRUTH.image.copy()
    pixels[INSIDE] = value
    path = write(tmp_path / "t_i.fits", pixels, wcs_cards(BUNIT="nJy"))
    measured = read(path, TRUTH)
    assert measured.mask[0][INSIDE].all()
    assert not measured.mask[0][6:].any()
    assert measured.n_sentinel == (6 * TRUTH.image.shape[1],)
    agrees(measured, TRUTH, band="i")


@pytest.mark.parametrize("value", [-999.0, 100.0])
def test_they_are_found_in_maggies_too(tmp_path, value):
    pixels = TRUTH.image * 10 ** (-0.4 * 31.4)
    pixels[2, 3] = value
    path = write(tmp_path / "t_i.fits", pixels, wcs_cards(BUNIT="maggy"), dtype="f8")
    assert np.argwhere(read(path, TRUTH).mask[0]).tolist() == [[2, 3]]


def test_negative_pixels_of_a_noisy_image_are_data(rng):
    noisy = rng.normal(0, 500, (300, 300)).round()
    assert (noisy == -999).sum() > 3
    assert not sentinels(noisy, np.zeros(noisy.shape, bool), 1.0).any()
    dark = rng.normal(-32768, 30, (200, 200)).round()  # an offset that was never taken off
    assert not sentinels(dark, np.zeros(dark.shape, bool), 1.0).any()


def sentinels_by_definition(counts, masked, njy_per_unit):
    """The rule word for word, without regard to what it costs."""
    values = np.where(masked, 0.0, counts)
    found = np.abs(values) > ONE_PIXEL_MAX_NJY / njy_per_unit
    lowest = np.where(found, 0, values).min()
    for value, n_min, n_sigma in (*((v, 3, 10) for v in NO_DATA_VALUES), (lowest, 9, 50)):
        hit = ~masked & ~found & (values == value)
        rest = values[~masked & ~found & ~hit]
        if value < 0 and hit.sum() >= n_min and rest.size:
            middle = np.median(rest)
            if 0 < robust_sigma(rest, around=middle) < (middle - value) / n_sigma:
                found |= hit
    return found


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i4", ">f4"])
def test_numbers_in_place_of_none_are_found_as_by_their_definition(rng, dtype):
    n_found = 0
    for level in (0, 10, -500, -32768):
        for value in (-99, -999, -32768, 0, -12345, 1e30 if dtype.endswith(("f4", "f8")) else -9999):
            for part in (0.001, 0.02, 0.5):
                counts = rng.normal(level, 3, (40, 40))
                counts[rng.random(counts.shape) < part] = value
                counts[rng.random(counts.shape) < 0.005] = -9999
                counts = counts.astype(dtype)
                masked = rng.random(counts.shape) < 0.1
                want = sentinels_by_definition(counts, masked, 1.0)
                assert (sentinels(counts, masked, 1.0) == want).all()
                n_found += want.any()
    assert n_found > 30


@pytest.mark.parametrize(("mean", "dtype"), [(0.03, "i4"), (0.3, "f4"), (0.1, "i2")])
def test_photon_counts_are_told_about_zeros_are_no_data(tmp_path, rng, mean, dtype):
    path = write(tmp_path / "t_i.fits", rng.poisson(mean, TRUTH.image.shape), wcs_cards(MAGZERO=20.0), dtype=dtype)
    with pytest.raises(TileError, match=r"exact zeros among small whole numbers.*zeros_are_no_data = false"):
        read(path, TRUTH)
    with np.errstate(invalid="ignore"):
        assert not read(path, TRUTH, survey=layout(zeros_are_no_data=False)).mask.any()
        assert read(path, TRUTH, survey=layout(zeros_are_no_data=True)).mask.any()


def test_the_command_tells_about_photons_too(tmp_path, rng):
    """Whose layout has been through ``--set``, which states every key."""
    path = write(tmp_path / "t_i.fits", rng.poisson(0.03, TRUTH.image.shape), wcs_cards(MAGZERO=20.0), dtype="f4")
    asked = [str(path), "--model", "none", "--no-catalog", "--runner", "local", "--out"]
    assert CliRunner().invoke(command, [*asked, str(tmp_path / "run")], standalone_mode=False).return_value == 3
    (row,) = pq.read_table(tmp_path / "run/failures.parquet").to_pylist()
    assert "zeros_are_no_data = false" in row["message"]
    told = [*asked, str(tmp_path / "told"), "--set", "survey.zeros_are_no_data=false"]
    assert CliRunner().invoke(command, told, standalone_mode=False).return_value == 3
    (row,) = pq.read_table(tmp_path / "told/failures.parquet").to_pylist()
    assert "97% of the pixels have one value: there is no noise" in row["message"]


def test_a_labelled_image_with_an_empty_border_is_not_taken_for_photons(tmp_path, rng):
    pixels = rng.integers(1, 9, TRUTH.image.shape)
    pixels[:, :50] = 0
    path = write(tmp_path / "t_i.fits", pixels, wcs_cards(MAGZERO=20.0), dtype="i2")
    with np.errstate(invalid="ignore"):
        assert read(path, TRUTH).mask[0].sum() == 50 * TRUTH.image.shape[0]


def test_weights_that_are_no_number_mask(tmp_path):
    weight = np.ones(TRUTH.image.shape)
    weight[2, :5] = [np.nan, np.inf, -1, 0, -np.inf]
    path = write_hdus(tmp_path / "t_i.fits", ("SCI", TRUTH.image, wcs_cards(BUNIT="nJy")), ("WHT", weight, None))
    measured = read(path, TRUTH, survey=layout(image_hdu="SCI", weight_hdu="WHT", weight_kind="invvar"))
    assert np.argwhere(measured.mask[0]).tolist() == [[2, k] for k in range(5)]
