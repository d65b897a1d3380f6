import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver
from lenstronomy.Util import param_util

from lenspipe.errors import ConfigError
from lenspipe.simulate.lens import MacroLens, count_images
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.render import Grid, render, shoot_rays


def lenstronomy_twin(lens: MacroLens):
    e1, e2 = param_util.phi_q2_ellipticity(lens.angle_rad, lens.axis_ratio)
    g1, g2 = param_util.shear_polar2cartesian(lens.shear_angle_rad, lens.shear)
    centre = {"center_x": lens.x_arcsec, "center_y": lens.y_arcsec}
    epl = {"theta_E": lens.theta_e_arcsec, "gamma": lens.slope, "e1": e1, "e2": e2} | centre
    shear = {"gamma1": g1, "gamma2": g2, "ra_0": lens.x_arcsec, "dec_0": lens.y_arcsec}
    return LensModel(["EPL", "SHEAR"]), [epl, shear]


lenses = st.builds(
    MacroLens,
    theta_e_arcsec=st.floats(0.5, 3),
    axis_ratio=st.floats(0.4, 0.99),
    angle_rad=st.floats(-3, 3),
    slope=st.one_of(st.just(2.0), st.floats(1.6, 2.4)),
    shear=st.floats(0, 0.1),
    shear_angle_rad=st.floats(-1.5, 1.5),
    x_arcsec=st.floats(-0.5, 0.5),
    y_arcsec=st.floats(-0.5, 0.5),
)


@settings(max_examples=40, deadline=None)
@given(lenses, st.integers(0, 1000))
def test_deflection_agrees_with_lenstronomy(lens, seed):
    x, y = np.random.default_rng(seed).uniform(-5, 5, (2, 20))
    model, kwargs = lenstronomy_twin(lens)
    want = model.alpha(x, y, kwargs)
    np.testing.assert_allclose(lens.deflection(x, y), want, atol=2e-5)


def test_images_of_an_isothermal_sphere_are_two_einstein_radii_apart():
    theta_e, grid = 1.3, Grid(121, 0.05, 4)
    source = Component(Sersic(radius_arcsec=0.03, n=1, x_arcsec=0.35, y_arcsec=0.2), np.array([1.0]))
    rays = shoot_rays([MacroLens(theta_e_arcsec=theta_e)], grid)
    image = render([source], rays, grid, 1)[0]
    axis = (np.arange(121) - 60) * 0.05
    x, y = np.meshgrid(axis, axis)
    side = x * 0.35 + y * 0.2 > 0
    # on the axis through lens and source: the flux-weighted place of each arc along it, tangential spread left out
    along = (x * 0.35 + y * 0.2) / np.hypot(0.35, 0.2)
    near = np.abs(x * 0.2 - y * 0.35) / np.hypot(0.35, 0.2) < 0.05
    peak = [np.average(along[part & near], weights=image[part & near] ** 2) for part in (side, ~side)]
    assert peak[0] - peak[1] == pytest.approx(2 * theta_e, rel=0.01)


def test_number_of_images_agrees_with_lenstronomys_solver(rng):
    grid = Grid(201, 0.04, 1)
    agree = 0
    for _ in range(12):
        lens = MacroLens(
            theta_e_arcsec=1.2,
            axis_ratio=rng.uniform(0.5, 0.95),
            angle_rad=rng.uniform(0, 3),
            shear=0.04,
            shear_angle_rad=1,
        )
        rays = shoot_rays([lens], grid)
        model, kwargs = lenstronomy_twin(lens)
        source = rng.uniform(-0.8, 0.8, 2)
        found = LensEquationSolver(model).image_position_from_source(
            *source, kwargs, min_distance=0.05, search_window=8
        )
        agree += count_images(*rays, *source)[0] == len(found[0])
    assert agree >= 11  # pairs that are about to merge are closer than a cell


def test_a_source_far_off_has_one_image_and_one_near_the_axis_of_an_ellipse_has_four():
    grid = Grid(201, 0.05, 1)
    rays = shoot_rays([MacroLens(theta_e_arcsec=1.0, axis_ratio=0.6)], grid)
    assert count_images(*rays, 2.5, 0.0) == (1, 0)
    assert count_images(*rays, 0.02, 0.01) == (4, 2)


@pytest.mark.parametrize("wrong", [{"theta_e_arcsec": 0.0}, {"theta_e_arcsec": 1.0, "axis_ratio": 1.2}])
def test_lenses_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="a lens needs"):
        MacroLens(**wrong)
