import numpy as np
import pytest
from astropy.modeling.models import Sersic2D
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammainc, gammaincinv

from lenspipe.errors import ConfigError
from lenspipe.simulate.light import Component, GalaxyImage, Sersic
from lenspipe.simulate.population import half_light_radius_px
from lenspipe.simulate.render import Grid, render_galaxy


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 2), st.floats(0.5, 5), st.floats(0.3, 1), st.floats(-2, 2), st.integers(0, 99))
def test_sersic_agrees_with_astropy(radius, n, q, angle, seed):
    x, y = np.random.default_rng(seed).uniform(-3, 3, (2, 30))
    mine = Sersic(radius_arcsec=radius, n=n, axis_ratio=q, angle_rad=angle, x_arcsec=0.1)
    on_edge = mine.brightness(0.1 + radius * np.cos(angle) / np.sqrt(q), radius * np.sin(angle) / np.sqrt(q))
    theirs = Sersic2D(float(on_edge), radius / np.sqrt(q), n, 0.1, 0.0, 1 - q, angle)  # its radius: the major axis
    np.testing.assert_allclose(mine.brightness(x, y), theirs(x, y), rtol=1e-6)


@pytest.mark.parametrize(("n", "radius"), [(0.5, 0.3), (1.0, 0.5), (4.0, 0.5)])
def test_a_sersic_galaxy_has_its_flux_and_half_of_it_within_its_radius(n, radius):
    grid = Grid(401, 0.05, 3)
    light = Component(Sersic(radius_arcsec=radius, n=n), np.array([2.0]))
    image = render_galaxy([light], grid, 1)[0]
    axis = (np.arange(401) - 200) * 0.05
    r = np.hypot(*np.meshgrid(axis, axis))
    assert image.sum() == pytest.approx(2.0, rel=0.02 if n == 4 else 0.002)  # n = 4 reaches out of the image
    assert image[r < radius].sum() == pytest.approx(1.0, rel=0.04)


@pytest.mark.parametrize(("n", "radius"), [(2.0, 0.3), (4.0, 1.0), (5.0, 1.25), (6.5, 0.6)])
def test_the_pixel_on_a_cusp_has_the_flux_that_lies_in_it(n, radius):
    """Of a square of side 2a, ``P(2n, b (r / R)^(1/n))`` up to ``r = a / cos phi`` (Graham & Driver 2005, eq. 2)."""
    phi = np.linspace(0, np.pi / 4, 401)
    b = gammaincinv(2 * n, 0.5)
    inside = gammainc(2 * n, b * (0.1 / radius / np.cos(phi)) ** (1 / n))
    image = render_galaxy([Component(Sersic(radius_arcsec=radius, n=n), np.array([1.0]))], Grid(5, 0.2, 4), 1)[0]
    assert image[2, 2] == pytest.approx(np.trapezoid(inside, phi) / (np.pi / 4), rel=2e-3)


def test_a_galaxy_image_keeps_its_flux_and_turns_from_x_towards_y():
    pixels = np.zeros((31, 31), np.float32)
    pixels[15, 10:21] = 1 / 11
    bar = GalaxyImage(pixels=pixels, pixel_scale_arcsec=0.1, angle_rad=np.pi / 2, x_arcsec=0.3)
    grid = Grid(61, 0.1, 3)
    image = render_galaxy([Component(bar, np.array([5.0]))], grid, 1)[0]
    assert image.sum() == pytest.approx(5.0, rel=1e-3)
    y, x = np.indices(image.shape)
    spread = [np.average((v - np.average(v, weights=image)) ** 2, weights=image) for v in (x, y)]
    assert spread[1] > 5 * spread[0]
    assert np.average(x, weights=image) == pytest.approx(30 + 3, abs=0.05)


def test_half_light_radius_of_a_gaussian_image_is_1p18_sigma():
    y, x = np.indices((81, 81)) - 40
    assert half_light_radius_px(np.exp(-(x**2 + y**2) / 2 / 8.0**2)) == pytest.approx(1.1774 * 8, rel=0.03)


def test_a_sersic_profile_without_radius_is_refused():
    with pytest.raises(ConfigError, match="radius > 0"):
        Sersic(radius_arcsec=0.0)
