# Bands, weights and masks of a tile lie on one grid, or are refused; shifts below half a pixel are told.

import numpy as np
import pytest
from made_files import agrees, field, read, wcs_cards, with_cards, write

from lenspipe.errors import TileError
from lenspipe.survey.layout import FileRule, SurveyLayout, ZeroPoint

SQUARE = field((100, 100))
TRUTH = field()
D = 0.2 / 3600


def two_bands(folder, truth, cards, pixels=None):
    shape = truth.image.shape
    write(folder / "t_g.fits", truth.image, wcs_cards(shape, BUNIT="nJy"))
    other = truth.image if pixels is None else pixels
    write(folder / "t_r.fits", other, with_cards(wcs_cards(shape, BUNIT="nJy"), cards))
    return folder


@pytest.mark.parametrize(
    ("cards", "turn", "how"),
    [
        ({"CD1_1": 0.0, "CD1_2": -D, "CD2_1": D, "CD2_2": 0.0}, lambda a: a.T, "columns and rows are exchanged"),
        ({"CD1_1": D}, lambda a: a[:, ::-1], "mirrored in x"),
        ({"CD2_2": -D}, lambda a: a[::-1], "mirrored in y"),
        ({"CD1_1": D, "CD2_2": -D}, lambda a: a[::-1, ::-1], "turned by 180 degrees"),
        ({"CD1_1": 0.0, "CD1_2": D, "CD2_1": D, "CD2_2": 0.0}, lambda a: np.rot90(a), "not on one pixel grid;"),
    ],
)
def test_a_band_that_is_turned_or_mirrored_is_refused_and_told_how(tmp_path, cards, turn, how):
    with pytest.raises(TileError, match=how):
        read(two_bands(tmp_path, SQUARE, cards, turn(SQUARE.image)), SQUARE)


@pytest.mark.parametrize(
    "cards",
    [
        {"CRPIX1": 56.1},  # 0.6 px
        {"CRPIX2": 40.0},
        {"CD1_1": -D * 1.02},  # 1.1 px at the edges, none in the middle
        {"CD1_2": D * 0.02, "CD2_1": D * 0.02},  # sheared: the diagonal of a square stays where it is
        {"CRVAL1": 150.2},
        {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
    ],
)
def test_a_band_on_another_grid_is_refused(tmp_path, cards):
    with pytest.raises(TileError, match=r"not on one pixel grid.*apart_px"):
        read(two_bands(tmp_path, TRUTH, cards), TRUTH)


@pytest.mark.parametrize(("shift_px", "cards"), [(0.4, {"CRPIX1": 55.9}), (0.1, {"CRPIX2": 45.4}), (0.0, {})])
def test_a_shift_below_half_a_pixel_is_read_and_told(tmp_path, shift_px, cards):
    measured = read(two_bands(tmp_path, TRUTH, cards), TRUTH)
    assert measured.facts.grid_shift_px["g"] == 0
    assert measured.facts.grid_shift_px["r"] == pytest.approx(shift_px, abs=1e-3)
    agrees(measured, TRUTH, band="g")


@pytest.mark.parametrize("role", ["weight", "mask"])
def test_a_weight_or_mask_that_is_mirrored_is_refused(tmp_path, role):
    head = wcs_cards(BUNIT="nJy")
    write(tmp_path / "t_g.fits", TRUTH.image, head)
    rule = FileRule(pattern=r"(?P<tile>t)_(?P<band>g)\.fits", **{f"{role}_file": rf"\g<tile>_{role}.fits"})
    layout = SurveyLayout(
        name="t", description="t", files=(rule,), weight_kind="invvar", zero_point=ZeroPoint(units={"nJy": 31.4})
    )
    plane = np.ones(TRUTH.image.shape) if role == "weight" else np.zeros(TRUTH.image.shape)
    for cards in ({}, {"CTYPE1": None, "CTYPE2": None}):
        write(tmp_path / f"t_{role}.fits", plane, with_cards(head, cards))
        agrees(read(tmp_path / "t_g.fits", TRUTH, survey=layout), TRUTH, band="g")
    write(tmp_path / f"t_{role}.fits", plane, with_cards(head, {"CD1_1": D}))
    with pytest.raises(TileError, match=rf"the {role} of the tile is not on the pixel grid.*mirrored in x"):
        read(tmp_path / "t_g.fits", TRUTH, survey=layout)
    write(tmp_path / f"t_{role}.fits", plane[:-1], head)
    with pytest.raises(TileError, match="differs in shape from its image"):
        read(tmp_path / "t_g.fits", TRUTH, survey=layout)
