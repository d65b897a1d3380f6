import numpy as np

from lenspipe.image.contact import colour_stamps, contact_sheet


def test_red_galaxies_look_red_and_blue_ones_blue(rng):
    y, x = np.indices((31, 31)) - 15
    blob = np.exp(-(x**2 + y**2) / 18)
    flux = np.array([[20.0, 100.0, 200.0], [100.0, 100.0, 100.0]])  # g r i
    stamps = flux[:, :, None, None] * blob + rng.normal(0, 1, (2, 3, 31, 31))
    red, blue = colour_stamps(stamps)[:, 13:18, 13:18].reshape(2, -1, 3).mean(axis=1)
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_one_band_is_grey_and_blank_stamps_do_no_harm():
    grey = colour_stamps(np.concatenate([np.zeros((2, 1, 8, 8)), np.random.default_rng(0).normal(size=(1, 1, 8, 8))]))
    assert (grey[..., 0] == grey[..., 2]).all()
    assert colour_stamps(np.zeros((2, 3, 8, 8))).max() < 40


def test_a_sheet_shows_row_zero_at_the_bottom():
    stamps = np.zeros((3, 4, 5, 3), np.uint8)
    stamps[:, 0] = 255
    sheet = contact_sheet(stamps, n_column=2)
    assert sheet.shape == (2 * 6, 2 * 7, 3)
    assert (sheet[3, :5] == 255).all()
    assert (sheet[0, :5] == 0).all()
