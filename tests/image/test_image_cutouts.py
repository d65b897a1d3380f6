import numpy as np
import pytest
from astropy.nddata import Cutout2D
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from lenspipe.image.cutouts import extract_cutouts

IMAGE = np.random.default_rng(4).normal(size=(2, 40, 50)).astype("f4")
CLEAR = np.zeros(IMAGE.shape, bool)
PLACE = st.tuples(st.floats(-3, 53), st.floats(-3, 43))


@given(place=PLACE, size=st.sampled_from([1, 3, 7, 15]))
def test_cutouts_are_those_of_astropy(place, size):
    x, y = (np.floor(p + 0.5) for p in place)
    cut, covered = extract_cutouts(IMAGE, CLEAR, np.array([place[0]]), np.array([place[1]]), size_px=size)
    try:
        want = np.stack([Cutout2D(band, (x, y), size, mode="partial", fill_value=0).data for band in IMAGE])
    except Exception:  # astropy refuses what does not overlap
        want = np.zeros((2, size, size), "f4")
    assert_array_equal(cut[0], want)
    inside = (x + np.arange(size) - size // 2 >= 0) & (x + np.arange(size) - size // 2 < 50)
    rows = (y + np.arange(size) - size // 2 >= 0) & (y + np.arange(size) - size // 2 < 40)
    assert covered[0] == pytest.approx(inside.sum() * rows.sum() / size**2)


@pytest.mark.parametrize(("x", "row"), [(9.49, 9), (9.5, 10), (10.49, 10)])
def test_positions_round_to_the_nearest_pixel_and_halves_go_up(x, row):
    cut, _ = extract_cutouts(IMAGE, CLEAR, np.array([x]), np.array([x]), size_px=1)
    assert cut[0, 0, 0, 0] == IMAGE[0, row, row]


def test_masked_pixels_become_the_fill_and_are_counted():
    mask = CLEAR.copy()
    mask[0, 20, 20] = True
    cut, covered = extract_cutouts(IMAGE, mask, np.array([20.0]), np.array([20.0]), size_px=3, fill=-7.0)
    assert cut[0, 0, 1, 1] == -7
    assert cut[0, 1, 1, 1] == IMAGE[1, 20, 20]
    assert covered[0] == pytest.approx(17 / 18)


def test_cutouts_are_copies():
    cut, _ = extract_cutouts(IMAGE, CLEAR, np.array([20.0]), np.array([20.0]), size_px=3)
    before = IMAGE[0, 20, 20]
    cut[:] = 99
    assert IMAGE[0, 20, 20] == before


@pytest.mark.parametrize("size", [0, 4, -1])
def test_even_size_is_refused(size):
    with pytest.raises(ValueError, match=rf"size_px must be odd and positive, got {size}"):
        extract_cutouts(IMAGE, CLEAR, np.array([1.0]), np.array([1.0]), size_px=size)


def test_no_positions_give_no_cutouts():
    cut, covered = extract_cutouts(IMAGE, CLEAR, np.empty(0), np.empty(0), size_px=5)
    assert cut.shape == (0, 2, 5, 5)
    assert covered.shape == (0,)
