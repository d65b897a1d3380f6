import numpy as np
import pytest
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.param_util import phi_q2_ellipticity, shear_polar2cartesian

import lenspipe as lp
from lenspipe.errors import ConfigError
from lenspipe.simulate.instrument import moffat_kernel

LENS = {"theta_e_arcsec": 1.4, "axis_ratio": 0.7, "angle_rad": 0.4, "shear": 0.05, "shear_angle_rad": 1.1}
SOURCE = {"source_x_arcsec": 0.25, "source_y_arcsec": -0.1, "source_radius_arcsec": 0.35}


def test_the_arcs_are_lenstronomys():
    ours = lp.simulate_lens(**LENS, **SOURCE, bands=["i"], source_mag=23.0, lens_mag=19.0, noise=False)
    e1, e2 = phi_q2_ellipticity(LENS["angle_rad"], LENS["axis_ratio"])
    g1, g2 = shear_polar2cartesian(LENS["shear_angle_rad"], LENS["shear"])
    scale, side = 0.2, 61
    half = scale * (side - 1) / 2
    data = ImageData(
        image_data=np.zeros((side, side)), ra_at_xy_0=-half, dec_at_xy_0=-half, transform_pix2angle=np.eye(2) * scale
    )
    model = ImageModel(
        data,
        PSF("PIXEL", kernel_point_source=moffat_kernel(0.7, scale)),
        LensModel(["SIE", "SHEAR"]),
        LightModel(["SERSIC"]),
        kwargs_numerics={"supersampling_factor": 4, "supersampling_convolution": False},
    )
    image = model.image(
        [
            {"theta_E": LENS["theta_e_arcsec"], "e1": e1, "e2": e2, "center_x": 0, "center_y": 0},
            {"gamma1": g1, "gamma2": g2},
        ],
        [{"amp": 1.0, "R_sersic": 0.35, "n_sersic": 1.0, "center_x": 0.25, "center_y": -0.1}],
    )
    theirs = image / image.sum() * ours.arcs_njy[0].sum()
    assert np.abs(ours.arcs_njy[0] - theirs).max() < 0.02 * theirs.max()


def test_noise_is_that_of_the_depth_and_the_seed_decides_it():
    many = [lp.simulate_lens(source_mag=40.0, lens_mag=40.0, depth_mag=26.0, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (stamp.pixels_njy for stamp in many)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    # 5 sigma of a circle of 2 arcsec is 26 mag
    expected = 10 ** (0.4 * (31.4 - 26.0)) / 5 / np.sqrt(np.pi / 0.04)
    assert first.std() == pytest.approx(expected, rel=0.03)


def test_a_band_without_magnitude_is_named():
    with pytest.raises(ConfigError, match="source_mag") as error:
        lp.simulate_lens(bands=["g", "K"])
    assert error.value.facts["band"] == "K"


def test_painting_leaves_the_host_as_it_is(rng):
    host = rng.normal(size=(3, 61, 61)).astype(np.float32)
    painted = lp.paint(
        host,
        bands="gri",
        pixel_scale_arcsec=0.2,
        psf_fwhm_arcsec={"g": 0.9, "r": 0.7, "i": 0.6},
        theta_e_arcsec=(1.0, 1.2),
        sky_rms_njy=1.0,
        min_arc_snr=50,
        seed=4,
    )
    assert np.allclose(painted.pixels_njy - painted.arcs_njy, host, atol=1e-3)
    assert 1.0 <= painted.truth["theta_e_arcsec"] <= 1.2
    assert painted.truth["arc_snr"] >= 50
    assert np.sqrt(np.sum(painted.arcs_njy**2)) == pytest.approx(painted.truth["arc_snr"], rel=1e-3)
