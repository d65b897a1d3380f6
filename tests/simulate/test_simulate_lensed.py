"""The one drawer of lenses: what it draws is lenstronomy's image of the same lens, whichever way it is drawn."""

import numpy as np
import pytest
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.param_util import phi_q2_ellipticity, shear_polar2cartesian

from lenspipe.simulate.arcs import Optics
from lenspipe.simulate.instrument import gaussian_kernel
from lenspipe.simulate.lensed import around_light, draw_lens, from_population
from lenspipe.simulate.population import DeflectorPopulation, SourcePopulation
from lenspipe.simulate.render import Grid

N, SCALE = 121, 0.1
SMOOTH = SourcePopulation(clumpy_fraction=0.0, sersic_n=(0.9, 1.5))
OPTICS = Optics(("g", "r"), SCALE, [gaussian_kernel(0.3, SCALE)] * 2, np.array([3.0, 4.0]), Grid(N, SCALE, 4))
DRAWS = {
    "around light": around_light(
        (0.9, 1.6), axis_ratio=0.8, angle_rad=0.4, shear_scatter=0.05, offset_arcsec=(0.03, 0)
    ),
    "of a population": from_population(DeflectorPopulation(theta_e_arcsec=(0.9, 1.6)), (1.0, 3.0)),
}


def lenstronomys(lens, component, flux):
    """The same lens and source in lenstronomy, in flux per pixel."""
    e1, e2 = phi_q2_ellipticity(lens.angle_rad, lens.axis_ratio)
    g1, g2 = shear_polar2cartesian(lens.shear_angle_rad, lens.shear)
    profile = component.profile
    s1, s2 = phi_q2_ellipticity(profile.angle_rad, profile.axis_ratio)
    half = (N - 1) / 2 * SCALE
    data = ImageData(np.zeros((N, N)), ra_at_xy_0=-half, dec_at_xy_0=-half, transform_pix2angle=np.eye(2) * SCALE)
    psf = PSF("PIXEL", kernel_point_source=OPTICS.kernels[0])
    light = LightModel(["SERSIC_ELLIPSE"])
    source = {"amp": 1.0, "R_sersic": profile.radius_arcsec, "n_sersic": profile.n, "e1": s1, "e2": s2}
    source |= {"center_x": profile.x_arcsec, "center_y": profile.y_arcsec}
    source["amp"] = flux / light.total_flux([source])[0]
    model = ImageModel(
        data,
        psf,
        LensModel(["SIE", "SHEAR"]),
        light,
        kwargs_numerics={"supersampling_factor": 4, "supersampling_convolution": False},
    )
    sie = {"theta_E": lens.theta_e_arcsec, "e1": e1, "e2": e2, "center_x": lens.x_arcsec, "center_y": lens.y_arcsec}
    shear = {"gamma1": g1, "gamma2": g2, "ra_0": lens.x_arcsec, "dec_0": lens.y_arcsec}
    return model.image([sie, shear], [source])


@pytest.mark.parametrize("how", list(DRAWS))
def test_arcs_are_lenstronomys_image_of_the_lens_that_was_drawn(how):
    for seed in range(3):
        found = draw_lens(np.random.default_rng(seed), DRAWS[how], OPTICS, sources=SMOOTH, min_arc_snr=30, attempts=60)
        (component,) = found.arcs.components
        for band, image in enumerate(found.arcs.image):
            theirs = lenstronomys(found.lens, component, component.flux_njy[band])
            # both sample each pixel 4 x 4; ours integrates a source smaller than that finer still
            assert np.abs(image - theirs).max() < 0.02 * theirs.max()
            assert image.sum() == pytest.approx(theirs.sum(), rel=0.01)


def test_arcs_are_as_bright_and_as_visible_as_asked_or_there_is_none():
    ask = {"sources": SMOOTH, "min_arc_snr": 40.0}
    found = draw_lens(np.random.default_rng(1), DRAWS["around light"], OPTICS, attempts=60, **ask)
    assert found.arcs.truth["arc_snr"] >= 40
    snr = np.sqrt(np.sum((found.arcs.image / OPTICS.sky_rms_njy[:, None, None]) ** 2))
    assert snr == pytest.approx(found.arcs.truth["arc_snr"])
    never = draw_lens(
        np.random.default_rng(1), DRAWS["around light"], OPTICS, attempts=3, visible=lambda arcs: False, **ask
    )
    assert never is None


def test_mass_follows_the_light_that_is_given():
    rng = np.random.default_rng(4)
    draw = from_population(DeflectorPopulation(), (1.0, 3.0), light_shape=(0.6, 1.2))
    lenses = [draw(rng)[0] for _ in range(200)]
    assert np.mean([lens.axis_ratio for lens in lenses]) == pytest.approx(0.6, abs=4 * 0.05 / np.sqrt(200))
    assert np.mean([lens.angle_rad for lens in lenses]) == pytest.approx(1.2, abs=4 * np.radians(10) / np.sqrt(200))
