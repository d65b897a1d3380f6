import numpy as np
import pytest

from lenspipe.image.residual import elliptical_residual

Y, X = np.mgrid[:41, :41] - 20.0


def galaxy(ratio, angle_deg):
    turn = np.radians(angle_deg)
    along, across = X * np.cos(turn) + Y * np.sin(turn), Y * np.cos(turn) - X * np.sin(turn)
    return 100 * np.exp(-np.hypot(along, across / ratio) / 6)


@pytest.mark.parametrize(("ratio", "angle_deg"), [(1.0, 0.0), (0.6, 30.0), (0.4, 120.0)])
def test_a_smooth_galaxy_goes_and_an_arc_beside_it_stays(ratio, angle_deg):
    arc = 20.0 * (np.hypot(X - 9, Y - 5) < 2.5)
    stamp = np.stack([galaxy(ratio, angle_deg) + arc, galaxy(ratio, angle_deg)])
    there = np.ones(stamp.shape, bool)
    left = elliptical_residual(stamp, there, axis_ratio=ratio, angle_deg=angle_deg)
    beyond = np.hypot(X, Y) > 4
    assert np.abs(left[1][beyond]).max() < 3
    assert np.abs(left[0][beyond & (arc == 0)]).max() < 6
    assert np.median(left[0][arc > 0]) > 14
    turned = elliptical_residual(stamp, there, axis_ratio=ratio, angle_deg=angle_deg + 90)
    assert ratio == 1 or np.abs(turned[1][beyond]).max() > 5


def test_pixels_without_data_have_no_say_and_are_zero():
    stamp = galaxy(1.0, 0.0)[None].copy()
    there = np.ones(stamp.shape, bool)
    there[0, :, 25:] = False
    want = elliptical_residual(stamp, there, axis_ratio=np.nan, angle_deg=np.nan)
    stamp[~there] = 1e9
    left = elliptical_residual(stamp, there, axis_ratio=np.nan, angle_deg=np.nan)
    np.testing.assert_array_equal(left, want)
    assert (left[~there] == 0).all() and np.abs(left[there & (np.hypot(X, Y) > 4)]).max() < 2
    assert (elliptical_residual(stamp, ~(there | True), axis_ratio=1.0, angle_deg=0.0) == 0).all()
