import subprocess
import sys

import numpy as np
import pytest

import lenspipe as lp
from lenspipe.api.picture import NO_DATA, png
from lenspipe.errors import DataError


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e5])
def test_any_unit_gives_one_picture_that_is_no_white_blob(unit):
    lens = lp.simulate_lens()
    picture, reference = lp.rgb(lens.pixels_njy * unit, "gri"), lens.rgb()
    assert np.abs(picture.astype(int) - reference).max() <= 2
    assert (picture == 255).all(axis=-1).mean() < 0.02
    assert 1 < np.median(picture) < 60


def test_arcs_without_noise_are_no_white_blob_and_noise_keeps_its_stretch():
    lens = lp.simulate_lens()
    arcs = lp.rgb(lens.arcs_njy, "gri")
    assert (arcs >= 250).all(axis=-1).mean() < 0.01 and arcs.max() > 150
    assert (arcs > 100).any(axis=-1).mean() > 0.02
    torn = lens.pixels_njy.copy()
    torn[:, :40] = np.nan  # most of it has no data
    assert np.array_equal(lp.rgb(torn, "gri")[45], lp.rgb(torn[:, 40:], "gri")[5])


def noisy_stamps(n=1, side=64):
    return np.random.default_rng(3).normal(size=(n, 3, side, side)).astype(np.float32)


@pytest.mark.parametrize("enlarged", [2, 3, 4])
def test_noise_is_noise_where_pixels_repeat(enlarged):
    large = noisy_stamps()[0].repeat(enlarged, -1).repeat(enlarged, -2)
    assert lp.rgb(large, "gri").mean() < 30


def test_a_stamp_keeps_its_stretch_beside_blank_ones_and_blank_parts_are_no_sky():
    alone = noisy_stamps(4)
    beside = np.concatenate([np.zeros((6, 3, 64, 64), np.float32), alone])
    assert np.array_equal(lp.rgb(beside, "gri")[6:], lp.rgb(alone, "gri"))
    torn = noisy_stamps()[0]
    torn[:, :36] = 0  # most of it
    assert np.abs(lp.rgb(torn, "gri")[36:].astype(int) - lp.rgb(noisy_stamps()[0], "gri")[36:]).mean() < 3


def test_a_bright_star_does_not_hide_an_arc():
    stack = noisy_stamps()[0]
    stack[:, 20, 20:30] += 15
    before = lp.rgb(stack, "gri")[20, 22:28]
    stack[:, 40:48, 40:48] += 20_000
    assert np.abs(lp.rgb(stack, "gri")[20, 22:28].astype(int) - before).max() < 10


def test_red_is_the_reddest_band():
    stack = np.random.default_rng(1).normal(size=(4, 32, 32)).astype(np.float32)
    stack[3, 16, 16] += 100  # i
    red, green, blue = lp.rgb(stack, ["u", "g", "r", "i"])[16, 16].astype(int)
    assert red > green + 50 and red > blue + 50


def test_no_data_is_grey_and_not_sky():
    stack = np.random.default_rng(1).normal(size=(2, 3, 16, 16))
    stack[1, 0, :4] = np.nan
    picture = lp.rgb(stack, "gri")
    assert (picture[1, :4] == NO_DATA).all()
    assert not (picture[0] == NO_DATA).all(axis=-1).any()
    with pytest.raises(DataError, match="no pixel holds data"):
        lp.rgb(np.full((3, 8, 8), np.nan), "gri")


def test_a_png_has_north_up():
    from io import BytesIO

    from PIL import Image

    picture = np.zeros((60, 60, 3), np.uint8)
    picture[0] = 255  # the southern row
    shown = np.array(Image.open(BytesIO(png(picture))))
    assert shown.shape == (240, 240, 3)
    assert (shown[-4:] == 255).all() and not shown[0].any()


def test_importing_lenspipe_imports_nothing_heavy():
    code = "import sys, lenspipe as lp; dir(lp); print(sorted({'numpy', 'torch', 'ray', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
