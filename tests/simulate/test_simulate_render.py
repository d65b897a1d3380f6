import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver
from lenstronomy.SimulationAPI.sim_api import SimAPI
from lenstronomy.Util import param_util

from lenspipe.errors import ConfigError
from lenspipe.simulate.instrument import gaussian_kernel
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.photometry import njy_of_magnitude
from lenspipe.simulate.render import Grid, add_stamp, convolve, render, render_galaxy, shoot_rays

LENS = MacroLens(
    theta_e_arcsec=1.3, axis_ratio=0.7, angle_rad=0.5, shear=0.05, shear_angle_rad=1.2, x_arcsec=0.03, y_arcsec=-0.05
)


def test_flux_times_magnification_is_conserved():
    """A small source is magnified by what lenstronomy gives for a point, summed over its images."""
    grid = Grid(161, 0.04, 10)
    source = Component(Sersic(radius_arcsec=0.02, n=0.5, x_arcsec=0.4, y_arcsec=0.25), np.array([3.0]))
    got = render([source], shoot_rays([LENS], grid), grid, 1).sum() / 3.0
    e1, e2 = param_util.phi_q2_ellipticity(LENS.angle_rad, LENS.axis_ratio)
    g1, g2 = param_util.shear_polar2cartesian(LENS.shear_angle_rad, LENS.shear)
    model = LensModel(["SIE", "SHEAR"])
    kwargs = [
        {"theta_E": 1.3, "e1": e1, "e2": e2, "center_x": 0.03, "center_y": -0.05},
        {"gamma1": g1, "gamma2": g2, "ra_0": 0.03, "dec_0": -0.05},
    ]
    x, y = LensEquationSolver(model).image_position_from_source(0.4, 0.25, kwargs, min_distance=0.02, search_window=6)
    assert got == pytest.approx(np.abs(model.magnification(x, y, kwargs)).sum(), rel=0.01)


def test_surface_brightness_is_conserved():
    grid = Grid(61, 0.1, 2)
    disc = Sersic(radius_arcsec=5.0, n=0.5)
    rays = shoot_rays([LENS], grid)
    assert disc.brightness(*rays).max() <= disc.brightness(np.array(0.0), np.array(0.0)) * (1 + 1e-12)


@pytest.mark.parametrize(("n_lens", "n_source"), [(4.0, 1.0), (2.5, 0.7)])
def test_pixels_agree_with_a_direct_lenstronomy_image(n_lens, n_source):
    size, scale, fwhm = 64, 0.2, 0.8
    kwargs_band = {
        "pixel_scale": scale,
        "exposure_time": 100.0,
        "magnitude_zero_point": 31.4,
        "read_noise": 0.0,
        "ccd_gain": 1.0,
        "sky_brightness": 99.0,
        "seeing": fwhm,
        "num_exposures": 1,
        "psf_type": "GAUSSIAN",
    }
    sim = SimAPI(
        size,
        kwargs_band,
        {
            "lens_model_list": ["SIE", "SHEAR"],
            "lens_light_model_list": ["SERSIC_ELLIPSE"],
            "source_light_model_list": ["SERSIC_ELLIPSE"],
        },
    )
    e1, e2 = param_util.phi_q2_ellipticity(LENS.angle_rad, LENS.axis_ratio)
    g1, g2 = param_util.shear_polar2cartesian(LENS.shear_angle_rad, LENS.shear)
    lens_light, source, _ = sim.magnitude2amplitude(
        [
            {
                "magnitude": 19.0,
                "R_sersic": 0.8,
                "n_sersic": n_lens,
                "e1": e1,
                "e2": e2,
                "center_x": 0.03,
                "center_y": -0.05,
            }
        ],
        [
            {
                "magnitude": 22.0,
                "R_sersic": 0.25,
                "n_sersic": n_source,
                "e1": 0.1,
                "e2": -0.1,
                "center_x": 0.2,
                "center_y": 0.1,
            }
        ],
    )
    model = sim.image_model_class({"supersampling_factor": 12, "supersampling_convolution": False})
    theirs = model.image(
        kwargs_lens=[
            {"theta_E": 1.3, "e1": e1, "e2": e2, "center_x": 0.03, "center_y": -0.05},
            {"gamma1": g1, "gamma2": g2, "ra_0": 0.03, "dec_0": -0.05},
        ],
        kwargs_source=source,
        kwargs_lens_light=lens_light,
    )
    angle, q = param_util.ellipticity2phi_q(0.1, -0.1)
    grid = Grid(size, scale, 4)
    shape = Sersic(radius_arcsec=0.25, n=n_source, axis_ratio=q, angle_rad=angle, x_arcsec=0.2, y_arcsec=0.1)
    light = Sersic(radius_arcsec=0.8, n=n_lens, axis_ratio=0.7, angle_rad=0.5, x_arcsec=0.03, y_arcsec=-0.05)
    mine = render([Component(shape, njy_of_magnitude([22.0]))], shoot_rays([LENS], grid), grid, 1)
    mine += render_galaxy([Component(light, njy_of_magnitude([19.0]))], grid, 1)
    mine = convolve(mine, [gaussian_kernel(fwhm, scale)])[0]
    bright = theirs > 0.01 * theirs.max()
    np.testing.assert_allclose(mine[bright] / theirs[bright], 1, atol=0.01)
    assert mine.sum() == pytest.approx(theirs.sum(), rel=0.01)


def test_a_finely_sampled_psf_gives_the_image_of_a_coarse_one_where_both_resolve_it():
    source = [Component(Sersic(radius_arcsec=0.5, n=1.0, x_arcsec=0.13), np.array([1.0]))]
    grid = Grid(64, 0.1, 6)
    coarse = convolve(render_galaxy(source, grid, 1), [gaussian_kernel(0.5, 0.1)])
    fine = convolve(render_galaxy(source, grid, 1, sampling=3), [gaussian_kernel(0.5, 0.1 / 3)], sampling=3)
    assert fine.shape == coarse.shape
    np.testing.assert_allclose(fine, coarse, atol=0.002 * coarse.max())


def test_convolution_keeps_flux_and_agrees_with_scipy(rng):
    from scipy.signal import convolve2d

    image, kernel = rng.normal(size=(2, 21, 21)), rng.uniform(size=(2, 7, 5))
    got = convolve(image, list(kernel))
    for band in range(2):
        np.testing.assert_allclose(got[band], convolve2d(image[band], kernel[band], mode="same"), atol=1e-12)


def test_an_even_psf_is_refused():
    with pytest.raises(ConfigError, match="odd sides"):
        convolve(np.zeros((1, 9, 9)), [np.ones((4, 4))])


def test_stamps_over_the_edge_are_cut_and_those_outside_are_left_out():
    image = np.zeros((1, 6, 6))
    add_stamp(image, np.ones((1, 3, 3)), 0, 5)
    assert image.sum() == 4
    assert image[0, 4:, :2].sum() == 4
    add_stamp(image, np.ones((1, 3, 3)), 20, -9)
    assert image.sum() == 4
