"""Images of a lens by SLSim: PARAMETERS (JSON) OUT, in an environment that has it; prints the fastest CPU seconds."""

import sys

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Util import param_util
from slsim.Deflectors.deflector import Deflector
from slsim.ImageSimulation.image_simulation import lens_image
from slsim.Lenses.lens import Lens
from slsim.LOS.los_individual import LOSIndividual
from slsim.Sources.source import Source
from timed import time_images


def ellipticity(angle_rad, axis_ratio):
    """As SLSim counts it, from north to east."""
    e1, e2 = param_util.phi_q2_ellipticity(angle_rad, axis_ratio)
    return -e1, e2


def images(given):
    """A new lens, and its image in each band."""
    cosmo = FlatLambdaCDM(H0=70, Om0=0.3)
    lens, source = dict(given["lens"]), dict(given["source"])
    lens["e1_mass"], lens["e2_mass"] = ellipticity(*lens.pop("mass_ellipse"))
    lens["e1_light"], lens["e2_light"] = ellipticity(*lens.pop("light_ellipse"))
    source["e1"], source["e2"] = ellipticity(*source.pop("ellipse"))
    gamma1, gamma2 = param_util.shear_polar2cartesian(*given["shear"])
    one = Lens(
        source_class=Source(extended_source_type="single_sersic", cosmo=cosmo, **source),
        deflector_class=Deflector(deflector_type="EPL_SERSIC", **lens),
        cosmo=cosmo,
        los_class=LOSIndividual(kappa=0, gamma=[-gamma1, gamma2]),
    )
    scale = np.eye(2) * given["pixel_scale_arcsec"]
    return [
        lens_image(one, band, given["zero_point_mag"], given["size_px"], np.array(kernel), scale)
        for band, kernel in given["psf"].items()
    ]


if __name__ == "__main__":
    time_images(images, *sys.argv[1:])
