import numpy as np

from lenspipe.image.contact import colour_stamps, contact_sheet, sample_stamps
from lenspipe.image.stretch import humvi_composite


def test_red_galaxies_look_red_and_blue_ones_blue(rng):
    y, x = np.indices((31, 31)) - 15
    blob = np.exp(-(x**2 + y**2) / 18)
    flux = np.array([[200.0, 100.0, 20.0], [100.0, 100.0, 100.0]])  # i r g
    stamps = flux[:, :, None, None] * blob + rng.normal(0, 1, (2, 3, 31, 31))
    red, blue = colour_stamps(stamps)[:, 13:18, 13:18].reshape(2, -1, 3).mean(axis=1)
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_one_band_is_grey_and_blank_stamps_do_no_harm():
    grey = colour_stamps(np.concatenate([np.zeros((2, 1, 8, 8)), np.random.default_rng(0).normal(size=(1, 1, 8, 8))]))
    assert (grey[..., 0] == grey[..., 2]).all()
    assert colour_stamps(np.zeros((2, 3, 8, 8))).max() < 40


def test_the_composite_is_humvis_in_units_of_the_noise(rng):
    stamps = rng.normal(0, 2.0, (4, 3, 32, 32)) + 30.0 * (np.arange(32) == 16)
    want = humvi_composite(stamps, band_scales=[0.7 / 2, 1.0 / 2, 1.6 / 2], alpha=0.05, q=4.0)
    given = colour_stamps(stamps, noise=np.array([9.0, 2.0, 9.0]))
    np.testing.assert_array_equal(given, np.rint(255 * want).astype(np.uint8).transpose(0, 2, 3, 1))
    assert np.abs(colour_stamps(stamps).astype(int) - given).max() < 30  # the noise is measured within a few per cent


def test_stamps_are_sampled_around_their_positions_and_a_missing_band_is_the_mean_of_the_others():
    y, x = np.indices((40, 50)).astype(np.float32)
    image = np.stack([x, 10 * y])
    where = {"channels": ("r", "z", "g"), "stamp_px": 5, "step_px": 0.5}
    shown = sample_stamps(image, ("g", "r"), np.array([20.25]), np.array([11.5]), **where)[0]
    offset = 0.5 * (np.arange(5) - 2)
    np.testing.assert_allclose(shown[2], np.broadcast_to(20.25 + offset, (5, 5)), rtol=1e-6)
    np.testing.assert_allclose(shown[0], np.broadcast_to(10 * (11.5 + offset)[:, None], (5, 5)), rtol=1e-6)
    np.testing.assert_allclose(shown[1], (shown[0] + shown[2]) / 2, rtol=1e-6)
    assert (sample_stamps(image, ("g", "r"), np.array([-9.0]), np.array([5.0]), **where) == 0).all()


def test_a_sheet_shows_row_zero_at_the_bottom():
    stamps = np.zeros((3, 4, 5, 3), np.uint8)
    stamps[:, 0] = 255
    sheet = contact_sheet(stamps, n_column=2)
    assert sheet.shape == (2 * 6, 2 * 7, 3)
    assert (sheet[3, :5] == 255).all()
    assert (sheet[0, :5] == 0).all()
